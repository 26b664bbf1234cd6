// The database: local transactions go out to the cluster, batches of the cluster come in. Rows, outbox and checkpoint are always one commit.

import type {
  ApplyResult,
  Batch,
  Checkpoint,
  EmptiedTable,
  KeyedRow,
  NewAttributes,
  PrimaryKey,
  PublishConfirmation,
  PublishedPosition,
  RemoteTable,
  RemoteTransaction,
  Restamp,
  RowSelection,
  TableDescription,
  TableName,
  Timestamp,
  Transaction,
} from '../../lib/host/host.ts'
import type { MergeConflict } from '../../lib/host/merge-conflict.ts'
import { type Attributes, rowChanges } from '../../lib/host/merge-row.ts'
import { TableMap } from '../../lib/mesh/table-map.ts'
import { type Logger, silentLogger } from '../../lib/observe/logger.ts'
import { Conflicts, type StoredConflict } from './conflicts.ts'
import { HostError } from './errors.ts'
import { LocalTransaction } from './local-transaction.ts'
import { Outbox } from './outbox.ts'
import { Rows } from './rows.ts'
import { Storage } from './storage.ts'
import type { TableEditor } from './table-editor.ts'
import { type Table, Tables } from './tables.ts'

/** Rows that are read at once, tombstones included. */
const MAX_READ_ROWS = 1_000

export class Database {
  /**
   * The cluster's clock, read inside each write transaction. Set after `ClusterManager.open`, because opening the manager needs
   * the database.
   */
  timestamp: () => Timestamp = () => {
    throw new HostError(503, 'The database rejects writes: the cluster is not open')
  }

  /** Called right after each commit, in commit order. A rejection is logged; the transaction remains in the outbox. */
  publish: (transaction: Transaction) => Promise<void> = async () => {}

  /** Whether commits are stored in the outbox: while clustering is disabled, it would grow without end. */
  isRecording: () => boolean = () => true

  /** Whether conflicts of remote writes are stored. */
  logsConflicts = false

  /** Called after a table was dropped. */
  tableDropped: (table: { database: string; table: string }) => void = () => {}

  readonly outbox: Outbox
  readonly #storage: Storage
  readonly #tables: Tables
  readonly #rows: Rows
  readonly #conflicts: Conflicts
  readonly #logger: Logger
  /** As stored: only this process writes it. Undefined: not read since the last rollback. */
  #lastTimestamp: Timestamp | undefined

  private constructor(storage: Storage, logger: Logger) {
    this.#storage = storage
    storage.onRollback(() => {
      this.#lastTimestamp = undefined
    })
    this.#logger = logger
    this.#tables = new Tables(storage)
    this.#rows = new Rows(storage, this.#tables)
    this.outbox = new Outbox(storage)
    this.#conflicts = new Conflicts(storage)
  }

  static async open(directory: string, logger: Logger = silentLogger): Promise<Database> {
    return new Database(await Storage.open(directory), logger)
  }

  /** Waits for pending commits; later writes are rejected. Idempotent. */
  close(): Promise<void> {
    return this.#storage.close()
  }

  /**
   * Runs `work` as one transaction over any number of tables: it is committed, appended to the outbox and published as a whole,
   * or rolled back if `work` throws. Resolves with the result of `work` when it is committed. Does not wait for
   * publishing, so that a failing cluster never blocks a write; `onCommit` gets the transaction for those who wait.
   */
  async transact<T>(
    user: string | undefined,
    work: (transaction: LocalTransaction) => T,
    onCommit?: (transaction: Transaction) => void,
  ): Promise<T> {
    let committed: Transaction | undefined
    const result = await this.#storage.transaction(() => {
      // Inside the write transaction, so that timestamps follow commit order.
      const transaction = new LocalTransaction(this.#rows, this.timestamp())
      const result = work(transaction)
      committed = transaction.committed(user)
      if (committed) {
        if (this.isRecording()) this.outbox.add(committed)
        else this.#noteUnrecorded(committed)
        this.#raiseTimestamp(committed.timestamp)
      }
      return result
    })
    if (committed) {
      void this.#publishCommitted(committed)
      onCommit?.(committed)
    }
    return result
  }

  /** Commits a batch of a remote node: rows, checkpoint, horizon and relayed transactions, all or nothing. */
  apply({ source, transactions, checkpoint, relay = [], isCopy, acceptOld, horizon }: Batch): Promise<ApplyResult> {
    // Copied rows are old by their nature.
    const conflicts = this.logsConflicts && !isCopy ? this.#conflicts : undefined
    return this.#storage.transaction(() => {
      const editors = new TableMap<EditedTable>()
      const edited = (table: TableName) => editors.get(table, () => this.#edited(table, acceptOld))
      let ignoredWrites = 0
      let highest = ''
      for (const transaction of transactions) {
        ignoredWrites += applyWrites(transaction, edited, conflicts)
        if (transaction.timestamp > highest) highest = transaction.timestamp
      }
      let changedRows = 0
      for (const { editor } of editors.values()) {
        editor.finish()
        changedRows += editor.changedRows
      }
      this.#raiseTimestamp(highest)
      for (const transaction of relay) this.outbox.add(transaction)
      if (horizon !== undefined) this.#raiseHorizon(source, horizon)
      this.#storage.state.put(checkpointKey(source), checkpoint)
      return { changedRows, ignoredWrites }
    })
  }

  /** The newest first. */
  conflicts(limit?: number): StoredConflict[] {
    return this.#conflicts.list(limit)
  }

  /** Rows with their timestamps, tombstones included. No rows if the table does not exist. */
  readRows({ database, table }: TableName, selection: RowSelection): KeyedRow[] {
    return this.#rows.read(database, table, selection)
  }

  /** The timestamp of the last local transaction on the table that is not in the outbox. */
  lastUnrecorded({ database, table }: TableName): Timestamp | undefined {
    return this.#storage.state.get(unrecordedKey(database, table)) as Timestamp | undefined
  }

  #noteUnrecorded({ timestamp, writes }: Transaction): void {
    for (const { database, table } of writes) this.#storage.state.put(unrecordedKey(database, table), timestamp)
  }

  /** The highest timestamp of a tombstone that was dropped. */
  horizon({ database, table }: TableName): Timestamp | undefined {
    return this.#storage.state.get(horizonKey(database, table)) as Timestamp | undefined
  }

  /**
   * Drops the tombstones of a table with lower timestamps, and stores the highest of them as its horizon in the same transaction: some
   * rows at a time, so that other writes get their turn. Resolves with their number. `limit`: from `cluster.tombstoneLimit()`.
   */
  async dropTombstones(database: string, table: string, limit: Timestamp, signal?: AbortSignal): Promise<number> {
    let dropped = 0
    for (const keys of this.#rows.tombstones(database, table, limit)) {
      if (signal?.aborted) break
      await this.#storage.transaction(() => {
        const timestamps = keys.flatMap((key) => this.#rows.dropTombstone(key, limit))
        const highest = timestamps.sort().at(-1)
        // Of a table that was dropped meanwhile, nothing is left.
        if (highest !== undefined) this.#raiseHorizon({ database, table }, highest)
        dropped += timestamps.length
      })
    }
    return dropped
  }

  /** Rewrites timestamps of the future after a wrong clock: rows, outbox and highest timestamp, all or nothing. */
  restamp(restamp: Restamp): Promise<void> {
    return this.#storage.transaction(() => {
      const pass = restamp.begin()
      for (const table of this.#tables.list()) for (const row of this.#rows.stored(table)) pass.add(row)
      const { rows, transactions, lastTimestamp } = pass.finish()
      for (const row of rows) this.#rows.replace(row)
      for (const transaction of transactions) this.outbox.add(transaction)
      this.#putTimestamp(lastTimestamp)
    })
  }

  loadCheckpoint(source: RemoteTable): Checkpoint | undefined {
    return this.#storage.state.get(checkpointKey(source)) as Checkpoint | undefined
  }

  deleteCheckpoint(source: RemoteTable): Promise<void> {
    return this.#storage.transaction(() => void this.#storage.state.remove(checkpointKey(source)))
  }

  /** Stores the published position of each table and removes the outbox up to and including `upTo`, in one transaction. */
  confirmPublished({ positions, upTo, keep = [] }: PublishConfirmation): Promise<void> {
    return this.#storage.transaction(() => {
      for (const position of positions)
        this.#storage.state.put(publishedKey(position.database, position.table), position)
      if (upTo) this.outbox.removeUpTo(upTo, keep)
    })
  }

  publishedPosition(database: string, table: string): PublishedPosition | undefined {
    return this.#storage.state.get(publishedKey(database, table)) as PublishedPosition | undefined
  }

  /** The highest timestamp committed here, of local and remote transactions. */
  lastTimestamp(): Timestamp | undefined {
    this.#lastTimestamp ??= this.#storage.state.get('timestamp') as Timestamp | undefined
    return this.#lastTimestamp
  }

  /** The record, or undefined. Throws HostError 404 if the table does not exist, as `scan` does. */
  get(database: string, table: string, key: PrimaryKey): Attributes | undefined {
    this.#tables.get(database, table)
    return this.#rows.get(database, table, key)
  }

  /** All records in the order of their primary keys. */
  scan(database: string, table: string): Iterable<Attributes> {
    this.#tables.get(database, table)
    return this.#rows.scan(database, table)
  }

  /** At most `limit` records in the order of their primary keys, after this key. */
  readRecords(database: string, table: string, after: PrimaryKey, limit: number): Attributes[] {
    this.#tables.get(database, table)
    const records: Attributes[] = []
    for (let from = after; records.length < limit; ) {
      const rows = this.#rows.read(database, table, { after: from, limit: Math.min(limit, MAX_READ_ROWS) })
      if (rows.length === 0) break
      for (const { row } of rows) if (row.record && records.length < limit) records.push(row.record)
      from = rows.at(-1)!.key
    }
    return records
  }

  databases(): string[] {
    return this.#tables.databases()
  }

  tables(database?: string): Table[] {
    return this.#tables.list(database)
  }

  table(database: string, table: string): Table {
    return this.#tables.get(database, table)
  }

  /** Idempotent. With `fresh`, rejects with HostError 409 if the database exists. */
  createDatabase(database: string, fresh = false): Promise<void> {
    return this.#storage.transaction(() => {
      if (fresh && this.#tables.hasDatabase(database)) throw new HostError(409, `database '${database}' already exists`)
      this.#tables.createDatabase(database)
    })
  }

  /** Creates the table and its database. Idempotent: adds missing attributes. With `fresh`, rejects with HostError 409 if the table exists. */
  createTable(description: TableDescription, fresh = false): Promise<void> {
    const { database, table } = description
    return this.#storage.transaction(() => {
      if (fresh && this.#tables.find(database, table)) {
        throw new HostError(409, `Table '${table}' already exists in '${database}'`)
      }
      this.#tables.create(description)
    })
  }

  /** Idempotent. Rejects with HostError 404 if the table does not exist. */
  addAttributes({ database, table, attributes }: NewAttributes): Promise<void> {
    return this.#storage.transaction(() => this.#tables.create({ ...this.#tables.get(database, table), attributes }))
  }

  /** Removes all rows of the source's table and stores the checkpoint, all or nothing. */
  emptyTable({ source, checkpoint, horizon }: EmptiedTable): Promise<void> {
    return this.#storage.transaction(() => {
      this.#tables.empty(source.database, source.table)
      if (horizon !== undefined) this.#raiseHorizon(source, horizon)
      this.#storage.state.put(checkpointKey(source), checkpoint)
    })
  }

  async dropTable(database: string, table: string): Promise<void> {
    await this.#storage.transaction(() => {
      this.#tables.drop(database, table)
      this.#removeState(database, table)
    })
    this.tableDropped({ database, table })
  }

  async dropDatabase(database: string): Promise<void> {
    const tables = await this.#storage.transaction(() => {
      const tables = this.#tables.list(database)
      this.#tables.dropDatabase(database)
      for (const { table } of tables) this.#removeState(database, table)
      return tables
    })
    for (const { table } of tables) this.tableDropped({ database, table })
  }

  /** The checkpoints and the horizon: the rows that they stand for are gone. The published position stays, because the stream stays. */
  #removeState(database: string, table: string): void {
    this.#storage.state.remove(horizonKey(database, table))
    for (const key of [...this.#storage.state.getKeys({ start: ['checkpoint'] })] as string[][])
      if (key[0] === 'checkpoint' && key[2] === database && key[3] === table) this.#storage.state.remove(key)
  }

  #edited(table: TableName, acceptOld = false): EditedTable {
    const horizon = acceptOld ? undefined : this.horizon(table)
    return { editor: this.#rows.editor(table.database, table.table), horizon }
  }

  #raiseHorizon({ database, table }: TableName, timestamp: Timestamp): void {
    if (timestamp > (this.horizon({ database, table }) ?? ''))
      this.#storage.state.put(horizonKey(database, table), timestamp)
  }

  #raiseTimestamp(timestamp: Timestamp): void {
    if (timestamp > (this.lastTimestamp() ?? '')) this.#putTimestamp(timestamp)
  }

  #putTimestamp(timestamp: Timestamp): void {
    this.#storage.state.put('timestamp', timestamp)
    this.#lastTimestamp = timestamp
  }

  async #publishCommitted(transaction: Transaction): Promise<void> {
    try {
      await this.publish(transaction)
    } catch (error) {
      this.#logger.warn(
        { error, transaction: transaction.id },
        'Publishing a transaction failed, it remains in the outbox',
      )
    }
  }
}

/** A table to which a batch is applied. `horizon`: of `mergeRow`. */
type EditedTable = { editor: TableEditor; horizon: Timestamp | undefined }

/** Returns the number of writes that were ignored because of the horizon. */
function applyWrites(
  { timestamp, writes, voids }: RemoteTransaction,
  edited: (table: TableName) => EditedTable,
  conflicts: Conflicts | undefined,
): number {
  let ignored = 0
  for (const write of writes) {
    const { editor, horizon } = edited(write)
    const options = { voids, horizon }
    // A delete of an absent row leaves a tombstone as well: it outranks older writes that arrive later.
    for (const { key, change } of rowChanges(write, timestamp, editor.table.primaryKey)) {
      const onConflict = conflicts && conflictLogger(conflicts, write, key)
      if (editor.merge(key, change, onConflict ? { ...options, onConflict } : options) === undefined) ignored++
    }
  }
  return ignored
}

const conflictLogger =
  (conflicts: Conflicts, { database, table }: TableName, key: PrimaryKey) =>
  (conflict: MergeConflict) =>
    conflicts.add({ database, table, key, ...conflict })

const checkpointKey = ({ node, database, table }: RemoteTable) => ['checkpoint', node, database, table]
const publishedKey = (database: string, table: string) => ['published', database, table]
const horizonKey = (database: string, table: string) => ['horizon', database, table]
const unrecordedKey = (database: string, table: string) => ['unrecorded', database, table]
