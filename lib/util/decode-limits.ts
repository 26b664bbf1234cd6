// Checks how many values a remote MessagePack message contains before it is decoded: a few megabytes of empty maps become gigabytes
// of objects, and a hundred bytes of pointers a circular structure.

/** Values, where an array or a map counts as CONTAINER_COST. Decoding takes at most about 0.5 GB and two seconds. */
export const MAX_DECODED_VALUES = 4 * 1024 * 1024
const CONTAINER_COST = 8
/** HarperDB packs objects as records: a definition names the keys of an object, and later objects are its number and their values. */
const RECORD = 0x72
/** A definition is compiled when it is used several times. */
const RECORD_DEFINITION_COST = 64
/** The numbers of definitions, as tokens: an integer while the number is not defined. */
const [FIRST_RECORD, LAST_RECORD] = [0x40, 0x7f]
/** So few bytes never contain too many values. */
export const MAX_HARMLESS_BYTES = MAX_DECODED_VALUES / CONTAINER_COST

/** Bytes of the numeric types, from token 0xca on. */
const NUMBER_BYTES = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8]
/** Supported extensions. Undefined, big integers, typed arrays and dates contain bytes; in sets, errors and regular expressions each byte may be a value. */
const FLAT_EXTENSIONS: ReadonlySet<number> = new Set([0x00, 0x42, 0x74, 0xff])
const NESTED_EXTENSIONS: ReadonlySet<number> = new Set([0x73, 0x65, 0x78])
/** MessagePack reserves this token; decoders give it private meanings. */
const UNUSED_TOKEN = 0xc1

/** A length of 1, 2 or 4 bytes, big-endian; bytes beyond the end count as 0. */
function lengthAt(data: Uint8Array, at: number, bytes: number): number {
  let length = 0
  for (let index = at; index < at + bytes; index++) length = length * 256 + (data[index] ?? 0)
  return length
}

/** Why these bytes must not be decoded; undefined when they may be. For invalid MessagePack the result is arbitrary. */
export function checkDecodeLimits(data: Uint8Array, maxValues = MAX_DECODED_VALUES): string | undefined {
  const end = data.byteLength
  let cost = 0
  let records: Uint8Array | undefined
  for (let at = 0; at < end && cost <= maxValues; ) {
    const token = data[at++]!
    cost++
    if (token <= 0x7f || token >= 0xe0) {
      if (records?.[token] === 1) cost += CONTAINER_COST - 1
      continue
    }
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
      // An extension: the token implies its size, or the size follows.
      const bytes = token >= 0xd4 ? 0 : 2 ** (token - 0xc7)
      const size = bytes === 0 ? 2 ** (token - 0xd4) : lengthAt(data, at, bytes)
      const type = data[at + bytes] ?? 0
      if (type === RECORD && token === 0xd4) {
        records ??= new Uint8Array(0x100)
        records[FIRST_RECORD + (data[at + 1]! & (LAST_RECORD - FIRST_RECORD))] = 1
        cost += RECORD_DEFINITION_COST
      } else if (NESTED_EXTENSIONS.has(type)) cost += size * CONTAINER_COST
      else if (!FLAT_EXTENSIONS.has(type)) return unsupportedExtension(type)
      at += bytes + 1 + size
    } else if (token === UNUSED_TOKEN) return unsupportedExtension(token)
  }
  return cost > maxValues ? `contains more than ${maxValues} values` : undefined
}

const unsupportedExtension = (type: number) => `contains the unsupported MessagePack extension ${type}`
