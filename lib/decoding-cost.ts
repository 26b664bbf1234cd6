// What a MessagePack message of somebody else's would make of itself in memory, told before it is decoded: a few megabytes of
// empty maps are gigabytes of objects, and a hundred bytes of pointers a circle.

/** In values; an array or a map counts as some. At most about half a gigabyte, and a second or two. */
export const MOST_VALUES = 4 * 1024 * 1024
const CONTAINER = 8

/** Bytes of the numbers from 0xca on. */
const NUMBERS = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8]
/** Extensions that we write. Undefined, big integers, typed arrays and times hold bytes; of sets, errors and patterns each byte may be a value. */
const PLAIN: ReadonlySet<number> = new Set([0x00, 0x42, 0x74, 0xff])
const NESTED: ReadonlySet<number> = new Set([0x73, 0x65, 0x78])
/** Never used in MessagePack; decoders have uses of their own for it. */
const UNUSED = 0xc1

/** Why these bytes are not to be decoded; undefined when they may be. Bytes that are no MessagePack may go either way. */
export function decodingFault(data: Uint8Array, most = MOST_VALUES): string | undefined {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const end = data.byteLength
  let at = 0
  let cost = 0
  let unknown: number | undefined
  /** A length of so many bytes, at `at`. */
  const length = (bytes: number): number => {
    const place = at
    at += bytes
    if (at > end) return end
    return bytes === 1 ? view.getUint8(place) : bytes === 2 ? view.getUint16(place) : view.getUint32(place)
  }
  const extension = (size: number) => {
    const type = length(1)
    if (NESTED.has(type)) cost += size * CONTAINER
    else if (!PLAIN.has(type)) unknown = type
    at += size
  }
  while (at < end && cost <= most && unknown === undefined) {
    const token = data[at++]!
    cost++
    if (token <= 0x7f || token >= 0xe0) continue
    if (token <= 0x9f) cost += CONTAINER - 1
    else if (token <= 0xbf) at += token & 0x1f
    else if (token >= 0xdc) {
      at += token % 2 === 0 ? 2 : 4
      cost += CONTAINER - 1
    } else if (token >= 0xd9) at += length(2 ** (token - 0xd9))
    else if (token >= 0xd4) extension(2 ** (token - 0xd4))
    else if (token >= 0xca) at += NUMBERS[token - 0xca]!
    else if (token >= 0xc7) extension(length(2 ** (token - 0xc7)))
    else if (token >= 0xc4) at += length(2 ** (token - 0xc4))
    else if (token === UNUSED) unknown = token
  }
  if (unknown !== undefined) return `it has an extension that is not used here, ${unknown}`
  return cost > most ? `it holds more than ${most} values` : undefined
}
