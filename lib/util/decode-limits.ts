// What a MessagePack message of somebody else's would make of itself in memory, told before it is decoded: a few megabytes of
// empty maps are gigabytes of objects, and a hundred bytes of pointers a circle.

/** In values; an array or a map counts as some. At most about half a gigabyte, and a second or two. */
export const MAX_DECODED_VALUES = 4 * 1024 * 1024
const CONTAINER_COST = 8

/** Bytes of the numbers from 0xca on. */
const NUMBER_BYTES = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8]
/** Extensions that we write. Undefined, big integers, typed arrays and times hold bytes; of sets, errors and patterns each byte may be a value. */
const FLAT_EXTENSIONS: ReadonlySet<number> = new Set([0x00, 0x42, 0x74, 0xff])
const NESTED_EXTENSIONS: ReadonlySet<number> = new Set([0x73, 0x65, 0x78])
/** Never used in MessagePack; decoders have uses of their own for it. */
const UNUSED_TOKEN = 0xc1

/** A length of 1, 2 or 4 bytes; what lies beyond the end counts as 0. */
function lengthAt(data: Uint8Array, at: number, bytes: number): number {
  let length = 0
  for (let index = at; index < at + bytes; index++) length = length * 256 + (data[index] ?? 0)
  return length
}

/** Why these bytes are not to be decoded; undefined when they may be. Bytes that are no MessagePack may go either way. */
export function checkDecodeLimits(data: Uint8Array, maxValues = MAX_DECODED_VALUES): string | undefined {
  const end = data.byteLength
  let cost = 0
  for (let at = 0; at < end && cost <= maxValues; ) {
    const token = data[at++]!
    cost++
    if (token <= 0x7f || token >= 0xe0) continue
    if (token <= 0x9f) cost += CONTAINER_COST - 1
    else if (token <= 0xbf) at += token & 0x1f
    else if (token >= 0xdc) {
      at += token % 2 === 0 ? 2 : 4
      cost += CONTAINER_COST - 1
    } else if (token >= 0xca && token <= 0xd3) at += NUMBER_BYTES[token - 0xca]!
    else if (token >= 0xd9 || (token >= 0xc4 && token <= 0xc6)) {
      const bytes = 2 ** (token - (token >= 0xd9 ? 0xd9 : 0xc4))
      at += bytes + lengthAt(data, at, bytes)
    } else if (token >= 0xc7) {
      // An extension, of a size that the token tells, or that follows it.
      const bytes = token >= 0xd4 ? 0 : 2 ** (token - 0xc7)
      const size = bytes === 0 ? 2 ** (token - 0xd4) : lengthAt(data, at, bytes)
      const type = data[at + bytes] ?? 0
      if (NESTED_EXTENSIONS.has(type)) cost += size * CONTAINER_COST
      else if (!FLAT_EXTENSIONS.has(type)) return unsupportedExtension(type)
      at += bytes + 1 + size
    } else if (token === UNUSED_TOKEN) return unsupportedExtension(token)
  }
  return cost > maxValues ? `it holds more than ${maxValues} values` : undefined
}

const unsupportedExtension = (type: number) => `it has an extension that is not used here, ${type}`
