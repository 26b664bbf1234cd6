// Which transactions of which origins were applied, as ranges of sequences: what arrives twice, by whatever path, is known.

import type { Checkpoint, Range } from '../host.ts'

export type Seen = NonNullable<Checkpoint['seen']>

/** The ranges with `from..to` added; neighbours and overlaps joined, in order. The given array is not changed. */
export function addRange(ranges: readonly Range[], from: number, to: number): Range[] {
  const last = ranges.at(-1)
  // Nearly always the next one.
  if (last && from >= last[0] && from <= last[1] + 1) return [...ranges.slice(0, -1), [last[0], Math.max(last[1], to)]]
  const joined: Range = [from, to]
  const before = ranges.filter((range) => range[1] < from - 1)
  const after = ranges.filter((range) => range[0] > to + 1)
  for (const [start, end] of ranges.slice(before.length, ranges.length - after.length)) {
    joined[0] = Math.min(joined[0], start)
    joined[1] = Math.max(joined[1], end)
  }
  return [...before, joined, ...after]
}

/** By bisection: ranges are in order. */
export function inRanges(ranges: readonly Range[], sequence: number): boolean {
  let low = 0
  let high = ranges.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const [from, to] = ranges[middle]!
    if (sequence < from) high = middle - 1
    else if (sequence > to) low = middle + 1
    else return true
  }
  return false
}

export const hasSeen = (seen: Seen | undefined, origin: string, epoch: string, sequence: number): boolean =>
  inRanges(seen?.[origin]?.[epoch] ?? [], sequence)

/** A copy of `seen` in which this one is noted; what did not change is shared. */
export const noteSeen = (
  seen: Seen | undefined,
  origin: string,
  epoch: string,
  from: number,
  to: number = from,
): Seen => ({
  ...seen,
  [origin]: { ...seen?.[origin], [epoch]: addRange(seen?.[origin]?.[epoch] ?? [], from, to) },
})
