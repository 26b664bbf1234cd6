// The database: local transactions out to the cluster, the cluster's batches in, each with all its traces in one commit.

import type {
  Batch,
  Checkpoint,
  PrimaryKey,
  PublishedPosition,
  RemoteTable,
  RemoteTransaction,
  TableDescription,
  Timestamp,
  Transaction,
} from '../../lib/host/host.ts'
import { type Attributes, rowChanges } from '../../lib/host/merge-row.ts'
import { type Logger, silentLogger } from '../../lib/observe/logger.ts'
import { HostError } from './errors.ts'
import { LocalTransaction } from './local-transaction.ts'
import { Outbox } from './outbox.ts'
import { Rows } from './rows.ts'
import { Storage } from './storage.ts'
import { type Table, Tables } from './tables.ts'

export class Database {
  /**
   * The cluster's clock, asked inside each write transaction. The manager needs the database before it can give stamps:
   * set this when it is open.
   */
  timestamp: () => Timestamp = () => {
    throw new HostError(503, 'The database does not take writes yet: the cluster is not open')
  }

  /** Told of each transaction right after its commit, in the order of commits. A rejection is logged; the outbox has it. */
  publish: (transaction: Transaction) => Promise<void> = async () => {}

  readonly outbox: Outbox
  readonly #storage: Storage
  readonly #tables: Tables
  readonly #rows: Rows
  readonly #logger: Logger

  private constructor(storage: Storage, logger: Logger) {
    this.#storage = storage
    this.#logger = logger
    this.#tables = new Tables(storage)
    this.#rows = new Rows(storage, this.#tables)
    this.outbox = new Outbox(storage)
  }

  static async open(directory: string, logger: Logger = silentLogger): Promise<Database> {
    return new Database(await Storage.open(directory), logger)
  }

  /** Waits for commits under way; later writes are refused. Idempotent. */
  close(): Promise<void> {
    return this.#storage.close()
  }

  /**
   * All that `work` writes, in whatever tables, is one transaction: committed, put into the outbox and published as one, or,
   * if `work` throws, not done at all. Resolves with what `work` returns when it is on disk; publishing is not waited for, so
   * that a cluster in trouble never blocks a write.
   */
  async transact<T>(user: string | undefined, work: (transaction: LocalTransaction) => T): Promise<T> {
    let committed: Transaction | undefined
    const result = await this.#storage.transaction(() => {
      // Inside the write transaction, so that the order of stamps is the order of commits.
      const transaction = new LocalTransaction(this.#rows, this.timestamp())
      const result = work(transaction)
      committed = transaction.committed(user)
      if (committed) {
        this.outbox.add(committed)
        this.#raiseTimestamp(committed.timestamp)
      }
      return result
    })
    if (committed) void this.#announce(committed)
    return result
  }

  /** A batch of another node: its rows, its checkpoint and what is to be sent on, all or nothing. */
  apply({ source, transactions, checkpoint, relay = [] }: Batch): Promise<void> {
    return this.#storage.transaction(() => {
      for (const transaction of transactions) {
        this.#applyWrites(transaction)
        this.#raiseTimestamp(transaction.timestamp)
      }
      for (const transaction of relay) this.outbox.add(transaction)
      this.#storage.state.put(checkpointKey(source), checkpoint)
    })
  }

  checkpoint(source: RemoteTable): Checkpoint | undefined {
    return this.#storage.state.get(checkpointKey(source)) as Checkpoint | undefined
  }

  forget(source: RemoteTable): Promise<void> {
    return this.#storage.transaction(() => void this.#storage.state.remove(checkpointKey(source)))
  }

  /** Store how far each table is published, and drop the outbox up to and including `through`, in one transaction. */
  published(progress: PublishedPosition[], through?: { id: string }, except: string[] = []): Promise<void> {
    return this.#storage.transaction(() => {
      for (const entry of progress) this.#storage.state.put(publishedKey(entry.database, entry.table), entry)
      if (through) this.outbox.removeThrough(through, except)
    })
  }

  publishedPosition(database: string, table: string): PublishedPosition | undefined {
    return this.#storage.state.get(publishedKey(database, table)) as PublishedPosition | undefined
  }

  /** The highest one that was committed here, whoever gave it. */
  lastTimestamp(): Timestamp | undefined {
    return this.#storage.state.get('timestamp') as Timestamp | undefined
  }

  /** The record, or undefined. Throws HostError 404 for an unknown table, as `scan` does. */
  get(database: string, table: string, key: PrimaryKey): Attributes | undefined {
    this.#tables.get(database, table)
    return this.#rows.get(database, table, key)
  }

  /** All records in the order of their primary keys, as of now. */
  scan(database: string, table: string): Iterable<Attributes> {
    this.#tables.get(database, table)
    return this.#rows.scan(database, table)
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

  /** Idempotent; `fresh` rejects with HostError 409 instead when it exists. */
  createDatabase(database: string, fresh = false): Promise<void> {
    return this.#storage.transaction(() => {
      if (fresh && this.#tables.hasDatabase(database)) throw new HostError(409, `database '${database}' already exists`)
      this.#tables.createDatabase(database)
    })
  }

  /** And its database. Idempotent, and adds missing attributes; `fresh` rejects with HostError 409 instead when it exists. */
  createTable(description: TableDescription, fresh = false): Promise<void> {
    const { database, table } = description
    return this.#storage.transaction(() => {
      if (fresh && this.#tables.find(database, table)) {
        throw new HostError(409, `Table '${table}' already exists in '${database}'`)
      }
      this.#tables.create(description)
    })
  }

  dropTable(database: string, table: string): Promise<void> {
    return this.#storage.transaction(() => this.#tables.drop(database, table))
  }

  dropDatabase(database: string): Promise<void> {
    return this.#storage.transaction(() => this.#tables.dropDatabase(database))
  }

  #applyWrites({ timestamp, writes }: RemoteTransaction): void {
    for (const write of writes) {
      const editor = this.#rows.editor(write.database, write.table)
      // A delete of an absent row leaves a tombstone as well: it outranks older writes that arrive later.
      for (const { key, change } of rowChanges(write, timestamp, editor.table.primaryKey)) editor.merge(key, change)
      editor.finish()
    }
  }

  #raiseTimestamp(timestamp: Timestamp): void {
    if (timestamp > (this.lastTimestamp() ?? '')) this.#storage.state.put('timestamp', timestamp)
  }

  async #announce(transaction: Transaction): Promise<void> {
    try {
      await this.publish(transaction)
    } catch (error) {
      this.#logger.warn({ error, transaction: transaction.id }, 'A transaction was not published; the outbox has it')
    }
  }
}

const checkpointKey = ({ node, database, table }: RemoteTable) => ['checkpoint', node, database, table]
const publishedKey = (database: string, table: string) => ['published', database, table]
