// The body of a frame: a MessagePack array of byte strings, one for each transaction. Written and read by hand, which takes a fraction of
// the time of a general encoder.

const [FIX_ARRAY, ARRAY_16, ARRAY_32] = [0x90, 0xdc, 0xdd] as const
const [BYTES_8, BYTES_16, BYTES_32] = [0xc4, 0xc5, 0xc6] as const
const MAX_FIX_ARRAY = 15

const headBytes = (length: number): number => (length <= 0xff ? 2 : length <= 0xffff ? 3 : 5)

export function encodeBody(parts: readonly Uint8Array[]): Uint8Array {
  let size = parts.length <= MAX_FIX_ARRAY ? 1 : 3
  for (const { byteLength } of parts) size += headBytes(byteLength) + byteLength
  const body = Buffer.allocUnsafe(size)
  let at = 0
  if (parts.length <= MAX_FIX_ARRAY) body[at++] = FIX_ARRAY + parts.length
  else at = writeHead(body, at, ARRAY_16, parts.length, 2)
  for (const part of parts) {
    const { byteLength } = part
    if (byteLength <= 0xff) at = writeHead(body, at, BYTES_8, byteLength, 1)
    else if (byteLength <= 0xffff) at = writeHead(body, at, BYTES_16, byteLength, 2)
    else at = writeHead(body, at, BYTES_32, byteLength, 4)
    body.set(part, at)
    at += byteLength
  }
  return body
}

function writeHead(body: Uint8Array, at: number, token: number, length: number, bytes: number): number {
  body[at] = token
  for (let index = bytes, rest = length; index > 0; index--, rest >>>= 8) body[at + index] = rest & 0xff
  return at + 1 + bytes
}

/** Where each byte string of a body begins and ends, in turn; or why it is unreadable. Not more than `max` strings. */
export function decodeBody(body: Uint8Array, max: number): number[] | string {
  const token = body[0]
  let at = 1
  let count: number
  if (token !== undefined && token >= FIX_ARRAY && token <= FIX_ARRAY + MAX_FIX_ARRAY) count = token - FIX_ARRAY
  else if (token === ARRAY_16 || token === ARRAY_32) {
    const bytes = token === ARRAY_16 ? 2 : 4
    count = lengthAt(body, at, bytes)
    at += bytes
  } else return 'not a list of byte strings'
  if (count > max) return `has ${count} transactions, more than ${max}`
  const bounds: number[] = []
  for (let number = 0; number < count; number++) {
    const head = body[at++]
    if (head === undefined) return 'ends too early'
    if (head < BYTES_8 || head > BYTES_32) return 'not a list of byte strings'
    const bytes = 1 << (head - BYTES_8)
    const start = at + bytes
    at = start + lengthAt(body, at, bytes)
    if (at > body.byteLength) return 'ends too early'
    bounds.push(start, at)
  }
  return at === body.byteLength ? bounds : 'has more bytes than its list of byte strings'
}

/** A length of 1, 2 or 4 bytes, big-endian; bytes beyond the end count as 0. */
function lengthAt(body: Uint8Array, at: number, bytes: number): number {
  let length = 0
  for (let index = at; index < at + bytes; index++) length = length * 256 + (body[index] ?? 0)
  return length
}
