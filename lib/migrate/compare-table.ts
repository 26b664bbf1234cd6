// Compares the rows of a table in two databases by their keys and values: counts, digests, and which rows differ. Memory is bounded.

import type { Host, KeyedRow, PrimaryKey, TableName } from '../host/host.ts'
import { BucketSums, bucketOf, bucketsFor } from '../replication/copy/buckets.ts'
import { keyIdentity } from '../replication/copy/key-identity.ts'
import { digestOf, type HashRules, rowText } from '../replication/copy/row-hash.ts'
import { delay } from '../util/timers.ts'
import type { HarperRecord } from './harper-answers.ts'
import type { HarperApi } from './harper-api.ts'
import { isKey, writtenAt } from './imported-row.ts'
import { type KeyedTable, recordPages } from './record-pages.ts'

/** The rows of one table in one of the two databases. */
export type RowReader = {
  /** All rows, some at a time. */
  all(): AsyncIterable<KeyedRow[]>
  /** Those of these rows that exist, some at a time. */
  some(keys: readonly PrimaryKey[]): AsyncIterable<KeyedRow[]>
}

export type Comparison = TableName & {
  rows: [here: number, there: number]
  /** Of all keys and values, without the times. Equal for equal tables; of tables that change meanwhile they are of different moments. */
  digest: [here: string, there: string]
  /** Numbers of rows. When more than 10,000 rows differ, those that were looked at. */
  missingHere: number
  missingThere: number
  different: number
  /** Rows that differ because they were written or deleted since the migration began: they arrive over the streams. */
  changedMeanwhile: number
  /** Keys of the first rows that differ. */
  examples: string[]
}

export type CompareOptions = {
  table: KeyedTable
  here: RowReader
  there: RowReader
  /** ms since 1970: rows that were written there since then count as changed meanwhile. */
  since?: number | undefined
  /**
   * With `since`: the database that the rows `here` were imported from. What it has by now as it is there, or has not either, changed
   * after the import.
   */
  original?: RowReader | 'there' | undefined
  /** ms between two looks at rows that differ: they may be on their way. Default 1,000. */
  settle?: number
  signal?: AbortSignal | undefined
}

const PAGE_ROWS = 1_000
const MAX_SUSPECTS = 10_000
const MAX_EXAMPLES = 10
/** Looks at rows that differ. */
const LOOKS = 3

export const isEqual = ({ missingHere, missingThere, different }: Comparison): boolean =>
  missingHere + missingThere + different === 0

export async function compareTable(options: CompareOptions): Promise<Comparison> {
  const { table, here, there } = options
  const rules: HashRules = { primaryKey: table.primaryKey, cut: '', values: true }
  const buckets = bucketsFor(table.rows)
  const strip = withoutTimes(table)
  const sums = (reader: RowReader) => sumsOf(reader, buckets, rules, strip)
  const [left, right] = await Promise.all([sums(here), sums(there)])
  const differing = new Set(left.sums.differences(right.sums))
  const suspects = differing.size === 0 ? new Map<string, PrimaryKey>() : await keysIn(differing, options, buckets)
  const found = await confirmed(suspects, options)
  const { database, table: name } = table
  return {
    database,
    table: name,
    rows: [left.rows, right.rows],
    digest: [left.sums.digest(), right.sums.digest()],
    ...found.counts,
    examples: found.keys.slice(0, MAX_EXAMPLES),
  }
}

async function sumsOf(
  reader: RowReader,
  buckets: number,
  rules: HashRules,
  strip: (row: KeyedRow) => KeyedRow,
): Promise<{ sums: BucketSums; rows: number }> {
  const sums = new BucketSums(buckets)
  let rows = 0
  for await (const page of reader.all())
    for (const row of page) {
      sums.add(strip(row), rules)
      rows++
    }
  return { sums, rows }
}

/** Attributes that HarperDB sets by itself, also of rows that it got from a node that has none. */
const USUAL_TIMES = ['__createdtime__', '__updatedtime__']

/** The two databases may know different times of a row. */
function withoutTimes({ updatedTime, createdTime }: KeyedTable): (row: KeyedRow) => KeyedRow {
  const times = new Set([...USUAL_TIMES, updatedTime, createdTime])
  return ({ key, row: { record } }) => {
    const kept = record && Object.fromEntries(Object.entries(record).filter(([name]) => !times.has(name)))
    return { key, row: { timestamp: '', ...(kept && { record: kept }) } }
  }
}

/** The keys of both sides in these buckets, by identity. */
async function keysIn(
  differing: ReadonlySet<number>,
  { here, there }: CompareOptions,
  buckets: number,
): Promise<Map<string, PrimaryKey>> {
  const keys = new Map<string, PrimaryKey>()
  for (const reader of [here, there])
    for await (const page of reader.all())
      for (const { key } of page) {
        const identity = keyIdentity(key)
        if (keys.size < MAX_SUSPECTS && differing.has(bucketOf(identity, buckets))) keys.set(identity, key)
      }
  return keys
}

/** The rows that differ at every look, without those that have changed since `since`. */
async function confirmed(suspects: Map<string, PrimaryKey>, options: CompareOptions) {
  const { table, here, there, settle = 1_000, signal } = options
  let pairs: Pair[] = []
  let keys = suspects
  for (let look = 1; look <= LOOKS && keys.size > 0; look++) {
    if (look > 1) await delay(settle, undefined, { signal })
    const [left, right] = await Promise.all([comparedRows(table, here, keys), comparedRows(table, there, keys)])
    pairs = [...keys].map(([identity, key]) => ({ key, here: left.get(identity), there: right.get(identity) }))
    pairs = pairs.filter((pair) => pair.here?.digest !== pair.there?.digest)
    keys = new Map(pairs.map(({ key }) => [keyIdentity(key), key]))
  }
  const unchanged = await withoutChanged(pairs, options)
  const count = (matches: (pair: Pair) => boolean) => unchanged.filter(matches).length
  return {
    counts: {
      missingHere: count((pair) => !pair.here),
      missingThere: count((pair) => !pair.there),
      different: count((pair) => pair.here !== undefined && pair.there !== undefined),
      changedMeanwhile: pairs.length - unchanged.length,
    },
    keys: unchanged.map(({ key }) => (typeof key === 'string' ? key.slice(0, 200) : `${key}`)),
  }
}

/** What is kept of a row, since there may be many large ones. `digest`: without its times. `writtenAt`: ms since 1970. */
type ComparedRow = { digest: string; writtenAt: number | undefined }
/** Undefined for an absent row. */
type Pair = { key: PrimaryKey; here: ComparedRow | undefined; there: ComparedRow | undefined }

/** Without rows whose time is after `since`, and without those that the original has as they are there. */
async function withoutChanged(pairs: readonly Pair[], options: CompareOptions): Promise<Pair[]> {
  const { table, since, original } = options
  if (since === undefined) return [...pairs]
  const earlier = pairs.filter(({ there }) => (there?.writtenAt ?? Number.NEGATIVE_INFINITY) < since)
  if (original === 'there') return earlier.filter(({ there }) => there)
  if (!original || earlier.length === 0) return earlier
  const present = await comparedRows(table, original, new Map(earlier.map(({ key }) => [keyIdentity(key), key])))
  return earlier.filter(({ key, there }) => present.get(keyIdentity(key))?.digest !== there?.digest)
}

/** By identity. */
async function comparedRows(
  table: KeyedTable,
  reader: RowReader,
  keys: ReadonlyMap<string, PrimaryKey>,
): Promise<Map<string, ComparedRow>> {
  const strip = withoutTimes(table)
  const rules = { primaryKey: table.primaryKey, cut: '', values: true }
  const found = new Map<string, ComparedRow>()
  const all = [...keys.values()]
  for (let at = 0; at < all.length; at += PAGE_ROWS)
    for await (const rows of reader.some(all.slice(at, at + PAGE_ROWS)))
      for (const each of rows) {
        const identity = keyIdentity(each.key)
        const digest = digestOf(rowText(identity, strip(each).row, rules) ?? '')
        found.set(identity, { digest, writtenAt: writtenAt(table, each.row.record ?? {}) })
      }
  return found
}

/** Records of HarperDB, or of a host with the same operations, over HTTP. Keys that no host can store are left out. */
export function apiReader(api: HarperApi, table: KeyedTable, signal?: AbortSignal): RowReader {
  const toRows = (records: readonly HarperRecord[]): KeyedRow[] =>
    records.flatMap((record) => {
      const key = record[table.primaryKey]
      return isKey(key) ? { key, row: { timestamp: '', record } } : []
    })
  return {
    async *all() {
      for await (const records of recordPages(api, table, { signal })) yield toRows(records)
    },
    async *some(keys) {
      for await (const records of api.recordsOf(table, keys, signal)) yield toRows(records)
    },
  }
}

/** Rows of the local database, without tombstones. */
export function hostReader(host: Host, table: KeyedTable): RowReader {
  const live = (rows: KeyedRow[]) => rows.filter(({ row }) => row.record)
  return {
    async *all() {
      for (let after: PrimaryKey | undefined; ; ) {
        const rows = await host.readRows!(table, { after, limit: PAGE_ROWS })
        if (rows.length === 0) return
        yield live(rows)
        after = rows.at(-1)!.key
      }
    },
    async *some(keys) {
      yield live(await host.readRows!(table, { keys }))
    },
  }
}
