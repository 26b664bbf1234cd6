// A database that stores no rows: it counts transactions and keeps checkpoints. It has no outbox.

import type { Batch, Checkpoint, Host, RemoteTable, TableDescription } from '../../lib/index.ts'
import { Counter } from './flow.ts'

const keyOf = ({ node, database, table }: RemoteTable) => `${node}.${database}.${table}`

export class NullHost implements Host {
  readonly applied = new Counter()
  readonly #tables: Map<string, TableDescription>
  readonly #checkpoints = new Map<string, Checkpoint>()

  /** Creates tables of the database `dev`. */
  constructor(tables: readonly string[] = []) {
    this.#tables = new Map(
      tables.map((table) => [table, { database: 'dev', table, primaryKey: 'id', attributes: ['id'] }]),
    )
  }

  info() {
    return { version: '1.0.0' }
  }

  async lastTimestamp(): Promise<undefined> {}

  async describe(): Promise<TableDescription[]> {
    return [...this.#tables.values()]
  }

  async createTable(table: TableDescription): Promise<void> {
    this.#tables.set(table.table, table)
  }

  async apply({ source, transactions, checkpoint }: Batch): Promise<void> {
    this.#checkpoints.set(keyOf(source), checkpoint)
    this.applied.add(transactions.length)
  }

  async loadCheckpoint(source: RemoteTable): Promise<Checkpoint | undefined> {
    return this.#checkpoints.get(keyOf(source))
  }

  async deleteCheckpoint(source: RemoteTable): Promise<void> {
    this.#checkpoints.delete(keyOf(source))
  }

  /** Copies all checkpoints. The returned function restores them. */
  remember(): () => void {
    const kept = new Map(this.#checkpoints)
    return () => {
      for (const [key, checkpoint] of kept) this.#checkpoints.set(key, checkpoint)
    }
  }
}
