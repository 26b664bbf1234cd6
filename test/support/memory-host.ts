// The database in memory for tests of enmesh itself: it records the applied transactions, and commits with ids that the test chooses.

import type {
  ApplyOutcome,
  Batch,
  RemoteTable,
  RemoteTransaction,
  Timestamp,
  Transaction,
  Write,
} from '../../lib/index.ts'
import type { ClusterHandle } from '../../lib/testing/memory-host.ts'
import { MemoryHost as Base } from '../../lib/testing.ts'

/** Writes to tables of the database `dev`. */
export const insert = (table: string, ...records: Record<string, unknown>[]): Write => ({
  operation: 'insert',
  database: 'dev',
  table,
  records,
})

export class MemoryHost extends Base {
  /** The applied transactions as they were received, with their sources. */
  readonly received: { source: RemoteTable; transaction: RemoteTransaction }[] = []
  /** Thrown by the next `apply`, once. */
  refusal: Error | undefined
  publish: ((transaction: Transaction) => Promise<void>) | undefined
  timestamp: (() => Timestamp) | undefined

  constructor(
    tables: [database: string, table: string][] = [],
    options: { outbox?: boolean; readRows?: boolean } = {},
  ) {
    super({ tables: tables.map(([database, table]) => ({ database, table })), ...options })
  }

  override attach(cluster: ClusterHandle): this {
    this.timestamp = () => cluster.timestamp()
    this.publish = (transaction) => cluster.publish(transaction)
    return super.attach(cluster)
  }

  override info(): { version: string } {
    return { version: '4.3.0' }
  }

  override async lastTimestamp(): Promise<Timestamp | undefined> {
    return undefined
  }

  override async apply(batch: Batch): Promise<ApplyOutcome> {
    const { refusal } = this
    this.refusal = undefined
    if (refusal) throw refusal
    const outcome = await super.apply(batch)
    const { source, transactions, isCopy } = batch
    for (const transaction of isCopy ? [] : transactions) this.received.push({ source, transaction })
    return outcome
  }

  /** Commits locally. Resolves when the local leaf has stored the transaction. */
  write(id: string, ...writes: Write[]): Promise<void> {
    const transaction: Transaction = { id, timestamp: this.timestamp!(), writes }
    this.commitAs(transaction)
    return this.publish!(transaction)
  }

  /** Transactions received from `node` on this table of the database `dev`, in order. */
  from(node: string, table: string): RemoteTransaction[] {
    return this.received
      .filter(({ source }) => source.node === node && source.table === table)
      .map(({ transaction }) => transaction)
  }

  contents(database: string, table: string): Record<string, unknown>[] {
    return this.records(database, table)
  }
}
