// Rows and primary keys in answers between nodes, as MessagePack. Everything from a remote node is validated.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../../errors.ts'
import type { KeyedRow, PrimaryKey, StoredRow, Timestamp } from '../../host/host.ts'
import { checkDecodeLimits } from '../../util/decode-limits.ts'
import { packr } from '../packr.ts'
import type { RowPage } from './row-requests.ts'

/** Bytes that cannot be a page, a row or a key. */
export class RowPageError extends Error {
  override readonly name = 'RowPageError'
}

/** Encoded. A larger row cannot be copied. */
export const MAX_ROW_BYTES = 256 * 1024 * 1024
/** Per page and per list of keys. */
export const MAX_PAGE_ROWS = 10_000
/** Encoded. */
const MAX_KEY_BYTES = 64 * 1024

const timestampPattern = /^[0-9a-f]{12}-[0-9a-f]{6}-[^\s]{1,255}$/
const keyValidator = Compile(Type.Union([Type.String(), Type.Number(), Type.BigInt()]))

export const isTimestamp = (value: unknown): value is Timestamp =>
  typeof value === 'string' && timestampPattern.test(value)

/** Throws RowPageError; `what` names the bytes in it. */
export function unpack(data: Uint8Array, what: string): unknown {
  const fault = checkDecodeLimits(data)
  if (fault) throw new RowPageError(`${what} ${fault}`)
  try {
    return packr.unpack(data)
  } catch (error) {
    throw new RowPageError(`${what} is not valid MessagePack: ${reasonOf(error)}`)
  }
}

// --- keys -----------------------------------------------------------------------------------------------------------------

/** Throws RowPageError. */
export function checkKey(value: unknown): PrimaryKey {
  if (!keyValidator.Check(value) || Number.isNaN(value)) throw new RowPageError('contains an invalid primary key')
  return value as PrimaryKey
}

export const encodeKey = (key: PrimaryKey): Uint8Array => packr.pack(key)

/** Throws RowPageError. */
export function decodeKey(data: Uint8Array): PrimaryKey {
  if (data.byteLength > MAX_KEY_BYTES) throw new RowPageError(`a primary key has more than ${MAX_KEY_BYTES} bytes`)
  return checkKey(unpack(data, 'a primary key'))
}

export const encodeKeys = (keys: readonly PrimaryKey[]): Uint8Array => packr.pack(keys)

/** Throws RowPageError. */
export function decodeKeys(data: Uint8Array): PrimaryKey[] {
  const keys = unpack(data, 'the list of primary keys')
  if (!Array.isArray(keys)) throw new RowPageError('the list of primary keys is not a list')
  if (keys.length > MAX_PAGE_ROWS) throw new RowPageError(`more than ${MAX_PAGE_ROWS} primary keys`)
  return keys.map(checkKey)
}

// --- rows -----------------------------------------------------------------------------------------------------------------

/** A row is the list of its key, timestamp, record (null: tombstone) and, if there are any, the timestamps of its attributes. */
export function encodeRow({ key, row: { timestamp, record, updated } }: KeyedRow): Uint8Array {
  const fields = [key, timestamp, record ?? null]
  return packr.pack(updated ? [...fields, updated] : fields)
}

/** Throws RowPageError. */
export const decodeRow = (data: Uint8Array): KeyedRow => checkRow(unpack(data, 'a row'))

function checkRow(value: unknown): KeyedRow {
  if (!Array.isArray(value) || value.length < 3 || value.length > 4) throw new RowPageError('contains an invalid row')
  const [key, timestamp, record, updated] = value as unknown[]
  const row: StoredRow = { timestamp: checkTimestamp(timestamp, '') }
  if (record !== null) row.record = checkMap(record)
  if (updated !== undefined) row.updated = checkUpdated(updated, row.record)
  return { key: checkKey(key), row }
}

function checkTimestamp(value: unknown, other?: ''): Timestamp {
  if (value === other || isTimestamp(value)) return value as Timestamp
  throw new RowPageError('contains an invalid timestamp')
}

function checkMap(value: unknown): Record<string, unknown> {
  const isMap = typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
  if (!isMap) throw new RowPageError('contains an invalid record')
  return value as Record<string, unknown>
}

function checkUpdated(value: unknown, record: Record<string, unknown> | undefined): Record<string, Timestamp> {
  const updated = checkMap(value)
  if (!record) throw new RowPageError('contains timestamps of attributes without a record')
  for (const timestamp of Object.values(updated)) checkTimestamp(timestamp)
  return updated as Record<string, Timestamp>
}

// --- pages ----------------------------------------------------------------------------------------------------------------

/** Token of a list of two values. */
const PAIR = 0x92
/** Token of a list whose length has four bytes. */
const LIST = 0xdd
const LIST_HEADER_BYTES = 5

/** A page of rows that are encoded already: the pair of the horizon and the list of rows. */
export function encodePage(rows: readonly Uint8Array[], horizon: Timestamp | undefined): Uint8Array {
  const header = Buffer.alloc(LIST_HEADER_BYTES)
  header[0] = LIST
  header.writeUInt32BE(rows.length, 1)
  return Buffer.concat([Uint8Array.of(PAIR), packr.pack(horizon ?? null), header, ...rows])
}

/** Throws RowPageError. `maxRows`: number of rows asked for. */
export function decodePage(data: Uint8Array, maxRows = MAX_PAGE_ROWS): RowPage {
  const page = unpack(data, 'a page')
  if (!Array.isArray(page) || page.length !== 2 || !Array.isArray(page[1])) throw new RowPageError('is not a page')
  const [horizon, rows] = page as [unknown, unknown[]]
  if (rows.length > maxRows) throw new RowPageError(`a page has ${rows.length} rows, more than ${maxRows}`)
  const checked = rows.map(checkRow)
  return horizon === null ? { rows: checked } : { rows: checked, horizon: checkTimestamp(horizon) }
}
