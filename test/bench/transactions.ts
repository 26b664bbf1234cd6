// Transactions of one row, and the messages that enmesh sends for them, for the raw client.

import type { ClusterManager, Transaction } from '../../lib/index.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import type { Send } from './flow.ts'

/** Bytes of a row. */
export const sizes = [
  { on: '200 B', size: 200 },
  { on: '2 KB', size: 2_000 },
] as const

/** Number of rows, which are overwritten in turn. */
const ROWS = 100_000
let counter = 0

/** As long as a UUID, but faster to create. */
export const nextId = (): string => (counter++).toString(36).padStart(36, '0')

/** A row of this many bytes including its key. */
export function rowsOf(size: number): () => { id: string; text: string } {
  const text = 'x'.repeat(size - 10)
  return () => ({ id: `row-${(counter % ROWS).toString().padStart(6, '0')}`, text })
}

/** Transactions for `table` of the database `dev`, each with a timestamp of the moment of the call. */
export function transactionsOf(cluster: ClusterManager, table: string, size: number): () => Transaction {
  const row = rowsOf(size)
  return () => ({
    id: nextId(),
    timestamp: cluster.timestamp(),
    writes: [{ operation: 'upsert', database: 'dev', table, records: [row()] }],
  })
}

/** Publishes transactions as the flow requests them. */
export const publishing =
  (cluster: ClusterManager, next: () => Transaction): Send =>
  (settled, failed) =>
    void cluster.publish(next()).then(settled, failed)

/** Concurrent calls of `publish` in a flow: more than enmesh has in flight by default, so that it never waits for a call. */
export const CALLS = 2_048

/** Bytes of one message. */
export function messageOf(cluster: ClusterManager, table: string, size: number): Uint8Array {
  const transaction = transactionsOf(cluster, table, size)()
  return encodePart(transaction, transaction.writes, cluster.manifest.nodeName)
}
