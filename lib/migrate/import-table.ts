// Brings the rows of one table of HarperDB into the database: through `Host.apply`, as old writes at their own time. So nothing is in the
// outbox and nothing is published, newer writes win, and it may be repeated. The position is part of the same database transactions.

import { ClusterError, reasonOf } from '../errors.ts'
import type { Host, KeyedRow, PrimaryKey, RemoteTable, RemoteTransaction, TableName, Write } from '../host/host.ts'
import { keyIdentity } from '../replication/copy/key-identity.ts'
import { withVersion } from '../replication/subscribe/checkpoint-version.ts'
import { forEachConcurrently } from '../util/for-each-concurrently.ts'
import { systemTimers } from '../util/timers.ts'
import type { HarperRecord } from './harper-answers.ts'
import type { HarperApi } from './harper-api.ts'
import {
  deletedTimestamp,
  importedRow,
  isExact,
  isImported,
  isKey,
  isUntimed,
  nextTimestamp,
  searchedKey,
  type TimeProblem,
} from './imported-row.ts'
import { type KeyedTable, recordPages } from './record-pages.ts'

export type ImportOptions = {
  api: HarperApi
  host: Host
  table: KeyedTable
  signal?: AbortSignal | undefined
  /** Called after each page, with the number of rows read so far. */
  onRows?: ((rows: number) => void) | undefined
  /** ms since 1970. */
  now?: () => number
  /** Every row is read: it continues an interrupted final pass, and no other one, since which rows may have changed. */
  isFinal?: boolean
}

/** A row that could not be imported. */
export type RefusedRow = { key: string; reason: string }

export type ImportResult = TableName & {
  /** Rows that this pass has read. */
  rows: number
  /** Rows that earlier passes read: this one continued where they stopped. */
  continuedAfter: number
  /** Rows that HarperDB counts, and did not answer. Then none is deleted. */
  unread: number
  /** Why HarperDB did not count its rows, when this pass has read fewer than it estimates. Then none is deleted. */
  uncounted?: string
  /** Rows that are different now; undefined if the host does not say. */
  changed: number | undefined
  /** Rows that HarperDB does not have any more. */
  deleted: number
  /** Rows without a time, and rows whose time is too far ahead. */
  untimed: number
  future: number
  refused: number
  /** The first refused rows. */
  examples: RefusedRow[]
}

/** Not a name of a node: it holds the position of the import. */
const IMPORT_SOURCE = '.harperdb'
const MAX_EXAMPLES = 10
/** In place of the epoch, by `isFinal`. */
const PASS = { false: '', true: 'final' } as const
/** Rows of the local table that are looked for in HarperDB at once. */
const SWEEP_ROWS = 1_000
const CONFIRMED_AT_ONCE = 8

/**
 * One pass over all rows, and then over the imported rows that HarperDB does not have any more. After an interruption the next call
 * continues. Rejects harperdb_unreachable, harperdb_rejected, aborted, and internal when the host refuses even its position.
 */
export async function importTable(options: ImportOptions): Promise<ImportResult> {
  const pass = new ImportPass(options)
  await pass.readAll()
  if (!(await pass.lacksRows())) await pass.deleteMissing()
  return pass.finish()
}

class ImportPass {
  readonly #options: ImportOptions
  readonly #source: RemoteTable
  readonly #result: ImportResult
  readonly #now: () => number
  readonly #pass: string

  constructor(options: ImportOptions) {
    this.#options = options
    const { database, table } = options.table
    this.#source = { node: IMPORT_SOURCE, database, table }
    this.#now = options.now ?? systemTimers.now
    this.#pass = PASS[`${options.isFinal === true}`]
    const counts = { rows: 0, continuedAfter: 0, unread: 0, changed: 0, deleted: 0, untimed: 0, future: 0, refused: 0 }
    this.#result = { database, table, ...counts, examples: [] }
  }

  async readAll(): Promise<void> {
    const { api, host, table, signal, onRows } = this.#options
    const stored = await host.loadCheckpoint(this.#source)
    const position = this.#options.isFinal && stored?.epoch !== this.#pass ? undefined : stored?.copy
    this.#result.continuedAfter = position?.rows ?? 0
    const after: unknown = position?.after === undefined ? undefined : JSON.parse(position.after)
    for await (const records of recordPages(api, table, { after, before: position?.rows ?? 0, signal })) {
      this.#result.rows += records.length
      await this.#applyRows(
        await this.#aboveStored(this.#toRows(records)),
        JSON.stringify(searchedKey(records.at(-1)![table.primaryKey])),
      )
      onRows?.(this.#result.continuedAfter + this.#result.rows)
    }
  }

  /** Whether fewer rows were read than HarperDB counts, now and before, or may have been. */
  async lacksRows(): Promise<boolean> {
    const { api, table, signal } = this.#options
    const read = this.#result.continuedAfter + this.#result.rows
    const known = countOf(table)
    if (read >= known) return false
    try {
      const count = await api.countRows(table, signal)
      this.#result.unread = Math.max(0, Math.min(count, known) - read)
    } catch (error) {
      // All rows are here: a count that takes too long must not end the migration.
      if (!(error instanceof ClusterError) || error.code === 'aborted') throw error
      this.#result.uncounted = reasonOf(error)
      return true
    }
    return this.#result.unread > 0
  }

  #toRows(records: readonly HarperRecord[]): KeyedRow[] {
    const { table } = this.#options
    const problems: (TimeProblem | undefined)[] = []
    const rows = records.flatMap((record) => {
      const key = record[table.primaryKey]
      if (!isKey(key)) {
        this.#refuse(key, 'the primary key is neither a string nor a number')
        return []
      }
      const { row, problem } = importedRow(table, record, key, this.#now())
      problems.push(problem)
      return row
    })
    this.#result.untimed += problems.filter((each) => each === 'untimed').length
    this.#result.future += problems.filter((each) => each === 'future').length
    return rows
  }

  /** Without times, nothing else says that a row is newer than what an earlier pass has imported, or deleted. */
  async #aboveStored(rows: KeyedRow[]): Promise<KeyedRow[]> {
    const { host, table } = this.#options
    const keys = rows.flatMap(({ key, row }) => (isUntimed(row.timestamp) ? [key] : []))
    if (keys.length === 0 || !host.readRows) return rows
    const known = new Map(
      (await host.readRows(table, { keys })).map(({ key, row }) => [keyIdentity(key), row.timestamp]),
    )
    return rows.map(({ key, row }) => {
      const before = known.get(keyIdentity(key))
      const timestamp = before && isUntimed(row.timestamp) ? nextTimestamp(before, row.timestamp) : row.timestamp
      return { key, row: { ...row, timestamp } }
    })
  }

  /** If the host refuses the page, each row by itself: the fault may be in one of them. */
  async #applyRows(rows: readonly KeyedRow[], after: string): Promise<void> {
    const transactions = rows.map((row) => this.#put(row))
    try {
      return await this.#apply(transactions, after)
    } catch {
      // A host that refuses everything refuses this too. Without it, a page of faulty rows only would end every pass.
      await this.#apply([])
      for (const [index, transaction] of transactions.entries())
        await this.#apply([transaction]).catch((reason) => this.#refuse(rows[index]!.key, reasonOf(reason)))
    }
    await this.#apply([], after)
  }

  /** With `after`, the position moves. */
  async #apply(transactions: RemoteTransaction[], after?: string): Promise<void> {
    const { host } = this.#options
    const known = await host.loadCheckpoint(this.#source)
    const rows = this.#result.continuedAfter + this.#result.rows
    const moved = { epoch: this.#pass, sequence: 0, copy: { reason: 'requested' as const, after: after!, rows } }
    const checkpoint = after === undefined ? (known ?? { epoch: '', sequence: 0 }) : moved
    const batch = {
      source: this.#source,
      transactions,
      checkpoint: withVersion(checkpoint),
      isCopy: true,
      acceptOld: true,
    }
    const outcome = (await host.apply(batch)) ?? {}
    const { changed } = this.#result
    this.#result.changed =
      outcome.changedRows === undefined || changed === undefined ? undefined : changed + outcome.changedRows
  }

  #put({ key, row: { timestamp, record } }: KeyedRow): RemoteTransaction {
    const { database, table, primaryKey } = this.#options.table
    const records = [{ ...record, [primaryKey]: key }]
    return this.#transaction(timestamp, { operation: 'upsert', database, table, records }, key)
  }

  #transaction(timestamp: string, write: Write, key: PrimaryKey): RemoteTransaction {
    const origin = { node: IMPORT_SOURCE, relayedBy: [] }
    const id = `import:${write.table}:${timestamp}:${keyIdentity(key).slice(0, 200)}`
    return { id: id.replace(/\s/g, '_'), timestamp, writes: [write], origin, sequence: 0, index: 0 }
  }

  #refuse(key: unknown, reason: string): void {
    this.#result.refused++
    if (this.#result.examples.length >= MAX_EXAMPLES) return
    const text = JSON.stringify(key, (_, value) => (typeof value === 'bigint' ? `${value}` : value)) ?? 'undefined'
    this.#result.examples.push({ key: text.slice(0, 200), reason })
  }

  /**
   * Rows that were deleted in HarperDB since an earlier pass imported them. Those that were written here since stay. A later pass does not
   * bring a deleted row back, so an empty answer is not enough to delete it.
   */
  async deleteMissing(): Promise<void> {
    const { api, host, table, signal } = this.#options
    if (!host.readRows) return
    for (let after: PrimaryKey | undefined; ; ) {
      const stored = await host.readRows(table, { after, limit: SWEEP_ROWS })
      if (stored.length === 0) return
      after = stored.at(-1)!.key
      const imported = stored.filter(({ key, row }) => isExact(key) && isImported(row))
      if (imported.length === 0) continue
      const keys = imported.map(({ key }) => key)
      const found = new Set((await api.keysOf(table, keys, signal)).map(identityOf))
      const gone = await this.#confirmGone(imported.filter(({ key }) => !found.has(keyIdentity(key))))
      this.#result.deleted += gone.length
      if (gone.length > 0) await this.#apply(gone.map((row) => this.#delete(row)))
    }
  }

  async #confirmGone(rows: readonly KeyedRow[]): Promise<KeyedRow[]> {
    const { api, table, signal } = this.#options
    const gone: KeyedRow[] = []
    await forEachConcurrently(rows, CONFIRMED_AT_ONCE, async (row) => {
      if (!(await api.hasRecord(table, row.key, signal))) gone.push(row)
    })
    return gone
  }

  #delete({ key, row: { timestamp } }: KeyedRow): RemoteTransaction {
    const { database, table } = this.#options.table
    return this.#transaction(deletedTimestamp(timestamp), { operation: 'delete', database, table, ids: [key] }, key)
  }

  /** The next call begins at the first row again. */
  async finish(): Promise<ImportResult> {
    await this.#options.host.deleteCheckpoint(this.#source)
    return this.#result
  }
}

/** At least. */
const countOf = ({ rows, minRows = rows }: Pick<KeyedTable, 'rows' | 'minRows'>): number => minRows
const identityOf = (key: unknown): string | undefined => (isKey(key) ? keyIdentity(key) : undefined)
