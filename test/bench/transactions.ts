// What is sent: transactions of one row, and the very messages that the module makes of them, for the raw client.

import type { ClusterManager, Transaction } from '../../lib/index.ts'
import { encode } from '../../lib/replication/wire.ts'
import type { Send } from './flow.ts'

/** Bytes of a row. */
export const sizes = [
  { on: '200 B', size: 200 },
  { on: '2 KB', size: 2_000 },
] as const

/** Rows that are written over and over. */
const ROWS = 100_000
let counter = 0

/** As long as a UUID, and cheaper. */
export const nextId = (): string => (counter++).toString(36).padStart(36, '0')

/** A row of so many bytes, with its key. */
export function rowsOf(size: number): () => { id: string; text: string } {
  const text = 'x'.repeat(size - 10)
  return () => ({ id: `row-${(counter % ROWS).toString().padStart(6, '0')}`, text })
}

/** Transactions for `table` of the database `dev`, each stamped when it is asked for. */
export function transactionsOf(cluster: ClusterManager, table: string, size: number): () => Transaction {
  const row = rowsOf(size)
  return () => ({
    id: nextId(),
    timestamp: cluster.timestamp(),
    writes: [{ operation: 'upsert', database: 'dev', table, records: [row()] }],
  })
}

/** Publishes them, as a flow asks for them. */
export const publishing =
  (cluster: ClusterManager, next: () => Transaction): Send =>
  (settled, failed) =>
    void cluster.publish(next()).then(settled, failed)

/** Calls of `publish` under way in a flow: more than the module has in flight by default, so that it need not wait for them. */
export const CALLS = 2_048

/** One message's bytes. */
export function messageOf(cluster: ClusterManager, table: string, size: number): Uint8Array {
  const transaction = transactionsOf(cluster, table, size)()
  return encode(transaction, transaction.writes, cluster.manifest.nodeName)
}
