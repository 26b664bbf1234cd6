// Row keys: database, table and primary key as one LMDB key, in the order of the primary keys.

import type { PrimaryKey } from '../../lib/host/host.ts'
import { badRequest } from './errors.ts'

/** LMDB's limit for keys with pages of 4 KiB. */
export const MAX_KEY_BYTES = 1978

const NUMBER = 0x01
const STRING = 0x02
const STRING_CHARACTER = '\u0002'

/** Names contain no NUL (see tables.ts), so no table's prefix starts with that of another table. */
const prefix = (database: string, table: string) => Buffer.from(`${database}\0${table}\0`)

/** The range of all rows of a table. */
export function tableRange(database: string, table: string): { start: Buffer; end: Buffer } {
  const start = prefix(database, table)
  return { start, end: Buffer.concat([start, Buffer.from([0xff])]) }
}

/** Throws HostError 400 for an invalid primary key. */
export function rowKey(database: string, table: string, key: unknown): Buffer {
  const bytes = isText(key)
    ? Buffer.from(`${database}\0${table}\0${STRING_CHARACTER}${key}`)
    : Buffer.concat([prefix(database, table), numericBytes(key)])
  if (bytes.length > MAX_KEY_BYTES) {
    throw badRequest(
      `A primary key of '${database}.${table}' takes ${bytes.length} bytes with the table's name, more than the limit of ${MAX_KEY_BYTES}`,
    )
  }
  return bytes
}

/** The primary key in the bytes of `rowKey`, after a prefix of this length. */
export function keyFromRow(bytes: Buffer, prefixLength: number): PrimaryKey {
  const type = bytes[prefixLength]
  const rest = Buffer.from(bytes.subarray(prefixLength + 1))
  if (type === STRING) return rest.toString()
  if (rest.length > 8) return BigInt(rest.subarray(8).toString())
  if (rest[0]! & 0x80) rest[0]! &= 0x7f
  else for (let i = 0; i < 8; i++) rest[i] = ~rest[i]!
  return rest.readDoubleBE()
}

/** A lone surrogate has no UTF-8 form: two different keys would get the same bytes. */
const isText = (key: unknown): key is string => typeof key === 'string' && !/\p{Surrogate}/u.test(key)

function numericBytes(key: unknown): Buffer {
  if (typeof key === 'bigint') return bigintBytes(key)
  if (typeof key === 'number' && Number.isFinite(key)) return numberBytes(key)
  throw badRequest('A primary key must be a string of valid Unicode, a finite number or a bigint')
}

/** A double whose bytes sort like numbers: the sign bit is inverted, and all bits of a negative number. */
function numberBytes(key: number): Buffer {
  const bytes = Buffer.alloc(9, NUMBER)
  bytes.writeDoubleBE(key + 0, 1) // + 0: -0 and 0 are one key
  if (bytes[1]! & 0x80) for (let i = 1; i < 9; i++) bytes[i] = ~bytes[i]!
  else bytes[1]! |= 0x80
  return bytes
}

/** 5n and 5 are the same key. A bigint that no double represents exactly has its digits after the nearest double. */
function bigintBytes(key: bigint): Buffer {
  const near = Number(key)
  const exact = Number.isFinite(near) && BigInt(near) === key
  return exact ? numberBytes(near) : Buffer.concat([numberBytes(near), Buffer.from(String(key))])
}

/** As in HarperDB, an empty primary key counts as missing: `insert` and `upsert` then generate one. */
export const isMissing = (key: unknown): key is undefined | null | '' => key === undefined || key === null || key === ''
