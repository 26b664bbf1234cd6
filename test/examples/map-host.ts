// The smallest host: tables, rows and checkpoints in memory. An example in a README; compiled and run by tests.

import { randomUUID } from 'node:crypto'
import {
  type Batch,
  type Checkpoint,
  ClusterManager,
  type ClusterOptions,
  type Host,
  mergeRow,
  type RemoteTable,
  rowChanges,
  type StoredRow,
  type TableDescription,
  type Transaction,
  type Write,
} from '../../lib/index.ts'

const nameOf = (...parts: unknown[]) => JSON.stringify(parts)

class MapHost implements Host {
  readonly #tables = new Map<string, TableDescription>()
  readonly #rows = new Map<string, StoredRow>() // tombstones included
  readonly #checkpoints = new Map<string, Checkpoint>()

  info = () => ({ version: '1.0.0' })
  lastTimestamp = async () => undefined // no rows survive a restart
  describe = async () => [...this.#tables.values()]
  createTable = async (table: TableDescription) => void this.#tables.set(nameOf(table.database, table.table), table)
  loadCheckpoint = async (source: RemoteTable) => this.#checkpoints.get(nameOf(source))
  deleteCheckpoint = async (source: RemoteTable) => void this.#checkpoints.delete(nameOf(source))

  /** A database on disk stores the rows and the checkpoint in one transaction. */
  async apply({ source, transactions, checkpoint }: Batch) {
    for (const transaction of transactions) this.write(transaction)
    this.#checkpoints.set(nameOf(source), checkpoint)
  }

  write({ timestamp, writes, voids }: Transaction) {
    for (const write of writes) {
      const table = this.#tables.get(nameOf(write.database, write.table))
      if (!table) throw new Error(`Table '${write.database}.${write.table}' does not exist`)
      for (const { key, change } of rowChanges(write, timestamp, table.primaryKey)) {
        const name = nameOf(write.database, write.table, key)
        this.#rows.set(name, mergeRow(this.#rows.get(name), change, { voids })) // the last writer wins
      }
    }
  }

  records = () => [...this.#rows.values()].flatMap(({ record }) => (record ? [record] : []))
}

export async function openDatabase(options: Omit<ClusterOptions, 'host'>) {
  const host = new MapHost()
  const cluster = await ClusterManager.open({ ...options, host })
  const commit = async (...writes: Write[]) => {
    const transaction = { id: randomUUID(), timestamp: cluster.timestamp(), writes }
    host.write(transaction)
    await cluster.publish(transaction) // resolves when the local stream has stored it
  }
  return { host, cluster, commit }
}
