// The records of a table in pages, in the order of their keys: by the last key, not by a number, so that rows that come and go meanwhile
// move no others.

import { clusterError } from '../errors.ts'
import type { HarperRecord, HarperTable } from './harper-answers.ts'
import type { HarperApi } from './harper-api.ts'
import { searchedKey } from './imported-row.ts'

/** A table whose primary key is known. */
export type KeyedTable = HarperTable & { primaryKey: string }

export type PageOptions = {
  /** Begins after this key. Default: at the first row. */
  after?: unknown
  /** Rows up to this key. Default: 0. */
  before?: number
  signal?: AbortSignal | undefined
}

/** A page has as many rows as take about this many bytes. */
const PAGE_BYTES = 2 * 1024 * 1024
const FIRST_ROWS = 200
const MAX_ROWS = 5_000

/**
 * Ends with an empty page, or with one that is not full when there were as many rows as HarperDB counts: a server that limits its pages must
 * not end it early, and of a table to which rows are appended all the time, there would be no empty page. Rejects as the API.
 */
export async function* recordPages(
  api: HarperApi,
  table: KeyedTable,
  { after: first, before = 0, signal }: PageOptions = {},
): AsyncGenerator<HarperRecord[]> {
  let after = first
  let rows = before
  for (let next = FIRST_ROWS; ; ) {
    const { records, limit } = await api.recordsAfter(table, after, next, signal)
    if (records.length === 0) return
    const last = searchedKey(records.at(-1)![table.primaryKey])
    const [isFull, isSame] = [records.length >= limit, JSON.stringify(last) === JSON.stringify(after)]
    if (last === undefined || last === null || (isFull && isSame)) throw notFollowing(api)
    rows += records.length
    yield records
    if (!isFull && (isSame || rows >= table.rows)) return
    after = last
    next = nextLimit(records, limit)
  }
}

const notFollowing = ({ url }: HarperApi) =>
  clusterError('harperdb_rejected', 'search_by_conditions', url, 'the next rows do not follow the last one')

/** By the size of the last page, at most twice as many rows. */
function nextLimit(records: readonly HarperRecord[], limit: number): number {
  const bytes = records.reduce((sum, record) => sum + sizeOf(record), 0)
  const fitting = Math.floor((PAGE_BYTES * records.length) / Math.max(bytes, 1))
  return Math.max(1, Math.min(fitting, 2 * limit, MAX_ROWS))
}

/** About the number of bytes that a value takes. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length
  if (ArrayBuffer.isView(value)) return value.byteLength
  if (typeof value !== 'object' || value === null) return 8
  return Object.entries(value).reduce((sum, [name, each]) => sum + name.length + sizeOf(each), 8)
}
