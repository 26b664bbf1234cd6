// "Did you mean ...?" for names that callers mistype.

/** The number of characters to insert, delete, replace or swap with the next one to make `b` of `a` (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (isSwap) next[j] = Math.min(next[j]!, before[j - 2]! + 1)
    }
    before = row
    row = next
  }
  return row[b.length]!
}

const MAX_DISTANCE = 3
/** Longer names cannot be near any, and would only take time. */
const MAX_LENGTH = 100

/** The name nearest to `given` as ` Did you mean 'name'?`, or '' when none is near. Case does not count. */
export function suggestion(given: string, names: readonly string[]): string {
  if (given.length > MAX_LENGTH) return ''
  const distances = names.map((name) => ({ name, distance: editDistance(given.toLowerCase(), name.toLowerCase()) }))
  const [nearest] = distances.sort((a, b) => a.distance - b.distance)
  const isNear = nearest && nearest.distance <= Math.min(MAX_DISTANCE, nearest.name.length / 3)
  return isNear ? ` Did you mean '${nearest.name}'?` : ''
}
