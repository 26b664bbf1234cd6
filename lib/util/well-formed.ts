// Strings that are not well-formed Unicode: they have no UTF-8 form, so two of them may become the same one.

const LONE_SURROGATE = /\p{Surrogate}/u

/** The first string in `value`, or name of a property, that contains half of a surrogate pair. */
export function illFormedString(value: unknown): string | undefined {
  if (typeof value === 'string') return LONE_SURROGATE.test(value) ? value : undefined
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return undefined
  const entries = value instanceof Map ? value : value instanceof Set ? value.entries() : Object.entries(value)
  for (const [name, each] of entries) {
    const found = illFormedString(name) ?? illFormedString(each)
    if (found !== undefined) return found
  }
  return undefined
}

/**
 * False when no string that was encoded to these bytes is ill-formed. Encoders write half of a surrogate pair as it is, which UTF-8 does not
 * allow, or as the replacement character. Both may also be there for another reason.
 */
export function mayBeIllFormed(data: Uint8Array): boolean {
  for (let at = data.indexOf(0xed); at >= 0; at = data.indexOf(0xed, at + 1)) if (data[at + 1]! >= 0xa0) return true
  for (let at = data.indexOf(0xef); at >= 0; at = data.indexOf(0xef, at + 1))
    if (data[at + 1] === 0xbf && data[at + 2] === 0xbd) return true
  return false
}
