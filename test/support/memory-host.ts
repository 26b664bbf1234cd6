// A database in memory for tests of the module itself: the last writer wins, attribute by attribute, everything an outbox host must keep.

import type {
  Batch,
  Checkpoint,
  Host,
  Published,
  RemoteTransaction,
  Source,
  Stamp,
  TableDescription,
  Transaction,
  Write,
} from '../../lib/index.ts'
import { type Change, merge, type Row } from '../host/merge.ts'

const keyOf = (...parts: unknown[]) =>
  JSON.stringify(parts, (_, value) => (typeof value === 'bigint' ? `${value}n` : value))

/** Writes to tables of the database `dev`. */
export const insert = (table: string, ...records: Record<string, unknown>[]): Write => ({
  operation: 'insert',
  database: 'dev',
  table,
  records,
})

export class MemoryHost implements Host {
  readonly tables = new Map<string, TableDescription>()
  readonly rows = new Map<string, Map<string, Row>>()
  readonly checkpoints = new Map<string, Checkpoint>()
  readonly progress = new Map<string, Published>()
  outbox: Transaction[] = []
  /** Ids of remote transactions in the order in which they were applied. */
  readonly applied: string[] = []
  /** The same transactions as they were handed to us, by the source they came from. */
  readonly received: { source: Source; transaction: RemoteTransaction }[] = []
  /** Thrown by the next `apply`, once. */
  refusal: Error | undefined
  /** Asked before anything of a batch is applied; what it throws refuses the batch. */
  beforeApply: ((batch: Batch) => void | Promise<void>) | undefined
  publish: ((transaction: Transaction) => Promise<void>) | undefined
  stamp: (() => Stamp) | undefined

  /** With `outbox: false` it is a host without the three methods of an outbox. */
  constructor(tables: [database: string, table: string][] = [], { outbox = true }: { outbox?: boolean } = {}) {
    for (const [database, table] of tables)
      this.tables.set(keyOf(database, table), { database, table, primaryKey: 'id', attributes: ['id'] })
    if (!outbox) Object.assign(this, { unpublished: undefined, published: undefined, publishedUpTo: undefined })
  }

  info() {
    return { version: '4.3.0' }
  }

  async describe(): Promise<TableDescription[]> {
    return [...this.tables.values()]
  }

  async createTable(table: TableDescription): Promise<void> {
    this.tables.set(keyOf(table.database, table.table), table)
  }

  async apply({ source, transactions, checkpoint, republish = [] }: Batch): Promise<void> {
    const { refusal } = this
    this.refusal = undefined
    if (refusal) throw refusal
    await this.beforeApply?.({ source, transactions, checkpoint, republish })
    for (const transaction of transactions) {
      this.applied.push(transaction.id)
      this.received.push({ source, transaction })
      for (const write of transaction.writes) this.#write(transaction.stamp, write)
    }
    this.checkpoints.set(keyOf(source.node, source.database, source.table), checkpoint)
    if (this.unpublished !== undefined) this.outbox.push(...republish)
  }

  async checkpoint(source: Source): Promise<Checkpoint | undefined> {
    return this.checkpoints.get(keyOf(source.node, source.database, source.table))
  }

  async forget(source: Source): Promise<void> {
    this.checkpoints.delete(keyOf(source.node, source.database, source.table))
  }

  async *unpublished(after?: { id: string }): AsyncIterable<Transaction> {
    // What was read last is near the end, what is published next near the start.
    const from = after ? this.outbox.findLastIndex(({ id }) => id === after.id) + 1 : 0
    yield* this.outbox.slice(from)
  }

  async published(progress: Published[], through?: { id: string }, except: string[] = []): Promise<void> {
    for (const each of progress) this.progress.set(keyOf(each.database, each.table), each)
    if (!through) return
    const end = this.outbox.findIndex(({ id }) => id === through.id) + 1
    const kept = this.outbox.slice(0, end).filter(({ id }) => except.includes(id))
    this.outbox = [...kept, ...this.outbox.slice(end)]
  }

  async publishedUpTo(database: string, table: string): Promise<Published | undefined> {
    return this.progress.get(keyOf(database, table))
  }

  /** Commits locally, as a database would; resolves when our leaf has it. */
  write(id: string, ...writes: Write[]): Promise<void> {
    const transaction: Transaction = { id, stamp: this.stamp!(), writes }
    for (const write of writes) this.#write(transaction.stamp, write)
    if (this.unpublished !== undefined) this.outbox.push(transaction)
    return this.publish!(transaction)
  }

  /** What came from `node` for this table of the database `dev`, in order. */
  from(node: string, table: string): RemoteTransaction[] {
    return this.received
      .filter(({ source }) => source.node === node && source.table === table)
      .map(({ transaction }) => transaction)
  }

  /** The visible records of a table by key, sorted. */
  contents(database: string, table: string): Record<string, unknown>[] {
    const rows = [...(this.rows.get(keyOf(database, table)) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
    return rows.flatMap(([, { record }]) => (record ? [record] : []))
  }

  #write(stamp: Stamp, { operation, database, table, records = [], ids = [] }: Write): void {
    const rows = this.rows.get(keyOf(database, table)) ?? new Map<string, Row>()
    this.rows.set(keyOf(database, table), rows)
    const put = (key: string, change: Change) => rows.set(key, merge(rows.get(key), change))
    for (const id of ids) put(keyOf(id), { operation: 'delete', stamp })
    for (const record of records)
      put(keyOf(record.id), { operation: operation === 'update' ? 'update' : 'put', stamp, record })
  }
}
