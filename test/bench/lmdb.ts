// The reference host on a new database, with a count of applied transactions.

import { join } from 'node:path'
import type { ApplyResult, Batch, ClusterManager, Transaction } from '../../lib/index.ts'
import { Database } from '../host/database.ts'
import { LmdbHost } from '../host/lmdb-host.ts'
import { temporaryDirectory } from '../support/cluster.ts'
import { Counter, flow } from './flow.ts'
import type { Scene } from './nodes.ts'
import { rowsOf } from './transactions.ts'

export class CountingLmdbHost extends LmdbHost {
  readonly applied = new Counter()
  readonly database: Database

  private constructor(database: Database) {
    super(database, '1.0.0')
    this.database = database
  }

  /** Creates these tables of the database `dev`. Closed at the end of the scene. */
  static async open(scene: Scene, tables: readonly string[]): Promise<CountingLmdbHost> {
    const [directory, remove] = await temporaryDirectory()
    const database = await Database.open(join(directory, 'database'))
    scene.afterwards(async () => {
      await database.close()
      await remove()
    })
    for (const table of tables)
      await database.createTable({ database: 'dev', table, primaryKey: 'id', attributes: ['id'] })
    return new CountingLmdbHost(database)
  }

  override async apply(batch: Batch): Promise<ApplyResult> {
    const result = await super.apply(batch)
    this.applied.add(batch.transactions.length)
    return result
  }

  /** Sets the manager that gives commits their timestamps and publishes them. */
  serve(cluster: ClusterManager): void {
    this.database.timestamp = () => cluster.timestamp()
    this.database.publish = (transaction) => cluster.publish(transaction)
  }

  /** Commits transactions of one row, which stay in the outbox. Resolves with them. */
  async fill(cluster: ClusterManager, table: string, size: number, count: number): Promise<Transaction[]> {
    const filled: Transaction[] = []
    this.database.timestamp = () => cluster.timestamp()
    this.database.publish = async (transaction) => void filled.push(transaction)
    const row = rowsOf(size)
    await flow((settled, failed) => void this.commit(table, row()).then(settled, failed), { window: 1_000, count })
    return filled
  }

  commit(table: string, row: { id: string; text: string }): Promise<unknown> {
    return this.database.transact(undefined, (transaction) => transaction.upsert('dev', table, [row]))
  }
}
