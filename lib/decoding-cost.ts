// What a MessagePack message of somebody else's would make of itself in memory, told before it is decoded: a few megabytes of
// empty maps are gigabytes of objects, and most of a minute.

/** In values; an array or a map counts as some. At most about half a gigabyte, and a second or two. */
export const MOST_VALUES = 4 * 1024 * 1024
const CONTAINER = 8

/** Bytes of the numbers from 0xca on. */
const NUMBERS = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8]
/** Extensions that hold bytes, whatever their size: big integers, typed arrays, times. The others may hold messages again. */
const BYTES: ReadonlySet<number> = new Set([0x42, 0x74, 0xff])

/** Would decoding these bytes make more than `most` values? Bytes that are no MessagePack may go either way. */
export function isCostly(data: Uint8Array, most = MOST_VALUES): boolean {
  // However they are made up.
  if (data.byteLength * CONTAINER <= most) return false
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const end = data.byteLength
  let at = 0
  let cost = 0
  /** A length of so many bytes, at `at`. */
  const length = (bytes: number): number => {
    const place = at
    at += bytes
    if (at > end) return end
    return bytes === 1 ? view.getUint8(place) : bytes === 2 ? view.getUint16(place) : view.getUint32(place)
  }
  const extension = (size: number) => {
    const type = length(1)
    cost += BYTES.has(type) ? 0 : size
    at += size
  }
  while (at < end && cost <= most) {
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
  }
  return cost > most
}
