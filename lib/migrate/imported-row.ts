// A record of HarperDB as a row here: with the time at which HarperDB wrote it.

import { hash } from 'node:crypto'
import type { KeyedRow, PrimaryKey, StoredRow, Timestamp } from '../host/host.ts'
import { counterOf, issuerOf, makeTimestamp, wallTimeOf } from '../host/hybrid-clock.ts'
import { recordText } from '../replication/copy/record-text.ts'

/** What of a table of HarperDB is needed to read its records. */
export type TimedTable = {
  primaryKey: string
  /** Names of the attributes with the time of the last write, and of the first one, if the table has them. */
  updatedTime?: string | undefined
  createdTime?: string | undefined
}

/** `untimed`: no time is known, so that every other write wins. `future`: its time is too far ahead, and the present is taken instead. */
export type TimeProblem = 'untimed' | 'future'
export type ImportedRow = { row: KeyedRow; problem?: TimeProblem }

/** ms by which a row may be ahead of the local clock: other nodes quarantine what is further ahead. */
const MAX_AHEAD_MS = 60_000
/** Parts of a millisecond that a time of HarperDB tells apart; the same as in its messages (`replication/wire/single-message.ts`). */
const PARTS_OF_MS = 4_096
/** Contains a slash, as no name of a node does. */
const ISSUER = 'harperdb/'
const DELETED = `${ISSUER}deleted`
const HASH_LENGTH = 16

/** Keys that a host can store. HarperDB also has lists as keys. */
export const isKey = (key: unknown): key is PrimaryKey =>
  typeof key === 'string' || typeof key === 'bigint' || (typeof key === 'number' && Number.isFinite(key))

/** JSON has numbers only: whether HarperDB can be asked for this key. */
export const isExact = (key: PrimaryKey): boolean =>
  typeof key !== 'bigint' || (Number.isFinite(Number(key)) && BigInt(Number(key)) === key)

/** A key that can be asked for, not above this one: rows after it may begin with this one again, and none is passed over. */
export function searchedKey(key: unknown): unknown {
  if (typeof key !== 'bigint') return key
  const near = Math.min(Math.max(Number(key), -Number.MAX_VALUE), Number.MAX_VALUE)
  if (BigInt(near) <= key) return near
  const bits = new BigInt64Array(new Float64Array([near]).buffer)
  bits[0]! += near > 0 ? -1n : 1n
  return new Float64Array(bits.buffer)[0]
}

/**
 * The timestamp has the time of HarperDB, and instead of a node it names the contents: the same row has the same timestamp on every node that
 * imports it, and of two different rows with the same time, which HarperDB may have, one wins everywhere. `now`: ms since 1970.
 *
 * HarperDB answers null for each attribute that a record lacks, so attributes without a value are left out.
 */
export function importedRow(
  table: TimedTable,
  record: Readonly<Record<string, unknown>>,
  key: PrimaryKey,
  now: number,
): ImportedRow {
  const values = Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null && value !== undefined))
  const { time, problem } = timeOf(table, values, now)
  const ms = Math.floor(time)
  const issuer = `${ISSUER}${hash('sha256', recordText(values, table.primaryKey), 'hex').slice(0, HASH_LENGTH)}`
  const timestamp = makeTimestamp(ms, Math.floor((time - ms) * PARTS_OF_MS), issuer)
  return { row: { key, row: { timestamp, record: values } }, ...(problem && { problem }) }
}

/** ms since 1970 when HarperDB last wrote the record; undefined if it is not known. */
export const writtenAt = (
  { updatedTime, createdTime }: TimedTable,
  record: Readonly<Record<string, unknown>>,
): number | undefined =>
  [updatedTime, createdTime]
    .map((name) => (name !== undefined && Object.hasOwn(record, name) ? toTime(record[name]) : undefined))
    .find((each) => each !== undefined)

function timeOf(
  table: TimedTable,
  record: Readonly<Record<string, unknown>>,
  now: number,
): { time: number; problem?: TimeProblem } {
  const time = writtenAt(table, record)
  if (time === undefined) return { time: 0, problem: 'untimed' }
  return time > now + MAX_AHEAD_MS ? { time: now, problem: 'future' } : { time }
}

/** ms since 1970, with fractions; undefined if it is no time. */
function toTime(value: unknown): number | undefined {
  const time =
    value instanceof Date
      ? value.getTime()
      : typeof value === 'string'
        ? Date.parse(value)
        : Number(value ?? Number.NaN)
  return Number.isFinite(time) && time > 0 && time < 2 ** 48 ? time : undefined
}

/** The row is as it was imported: nothing has written it here since. */
export const isImported = ({ timestamp, record, updated }: StoredRow): boolean =>
  record !== undefined && !updated && timestamp !== '' && issuerOf(timestamp).startsWith(ISSUER)

/** Of the delete of a row that HarperDB no longer has. When it was deleted is not known, so it is just above the row. */
export const deletedTimestamp = (timestamp: Timestamp): Timestamp =>
  makeTimestamp(wallTimeOf(timestamp), counterOf(timestamp) + 1, DELETED)

/** Of a row that HarperDB has no time of. */
export const isUntimed = (timestamp: Timestamp): boolean =>
  wallTimeOf(timestamp) === 0 && issuerOf(timestamp).startsWith(ISSUER)

/** Of an untimed row whose stored timestamp is `before`: the same for the same contents, and otherwise above what was imported. */
export function nextTimestamp(before: Timestamp, own: Timestamp): Timestamp {
  if (!isUntimed(before)) return own
  const issuer = issuerOf(own)
  return issuer === issuerOf(before) ? before : makeTimestamp(0, counterOf(before) + 1, issuer)
}
