// Row keys: database, table and primary key as one LMDB key, in the order of the primary keys.

import { badRequest } from './errors.ts'

/** What LMDB stores at most as a key, with pages of 4 KiB. */
export const MAX_KEY_BYTES = 1978

const NUMBER = 0x01
const STRING = 0x02

/** Names hold no NUL (see tables.ts), so no prefix is the beginning of another table's. */
const prefix = (database: string, table: string) => Buffer.from(`${database}\0${table}\0`)

/** The range of all rows of a table. */
export function tableRange(database: string, table: string): { start: Buffer; end: Buffer } {
  const start = prefix(database, table)
  return { start, end: Buffer.concat([start, Buffer.from([0xff])]) }
}

/** Throws HostError 400 for what cannot be a primary key. */
export function rowKey(database: string, table: string, key: unknown): Buffer {
  const bytes = Buffer.concat([prefix(database, table), keyBytes(key)])
  if (bytes.length > MAX_KEY_BYTES) {
    throw badRequest(
      `A primary key of '${database}.${table}' takes ${bytes.length} bytes with the table's name, more than the ${MAX_KEY_BYTES} possible`,
    )
  }
  return bytes
}

function keyBytes(key: unknown): Buffer {
  if (typeof key === 'bigint') return bigintBytes(key)
  if (typeof key === 'number' && Number.isFinite(key)) return numberBytes(key)
  // A lone surrogate has no UTF-8: two such keys would become one.
  if (typeof key === 'string' && !/\p{Surrogate}/u.test(key))
    return Buffer.concat([Buffer.from([STRING]), Buffer.from(key)])
  throw badRequest('A primary key must be a string of valid Unicode, a finite number or a bigint')
}

/** Doubles that sort as bytes: the sign bit flipped, and all of a negative one. */
function numberBytes(key: number): Buffer {
  const bytes = Buffer.alloc(9, NUMBER)
  bytes.writeDoubleBE(key + 0, 1) // + 0: -0 and 0 are one key
  if (bytes[1]! & 0x80) for (let i = 1; i < 9; i++) bytes[i] = ~bytes[i]!
  else bytes[1]! |= 0x80
  return bytes
}

/** 5n and 5 are the same key; only what no double can express has its digits behind the nearest double. */
function bigintBytes(key: bigint): Buffer {
  const near = Number(key)
  const exact = Number.isFinite(near) && BigInt(near) === key
  return exact ? numberBytes(near) : Buffer.concat([numberBytes(near), Buffer.from(String(key))])
}

/** Is this one the record's own, or to be made up? As in HarperDB, an empty one counts as missing. */
export const isMissing = (key: unknown): key is undefined | null | '' => key === undefined || key === null || key === ''
