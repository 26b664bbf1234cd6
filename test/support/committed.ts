// Transactions that a test commits itself, so that it can name them afterwards.

import { randomUUID } from 'node:crypto'
import type { Transaction, Write } from '../../lib/index.ts'
import type { ClusterNode } from '../../lib/testing.ts'

/** Committed, and not yet published. */
export function commit({ host, cluster }: ClusterNode, ...writes: Write[]): Transaction {
  const transaction = { id: randomUUID(), timestamp: cluster.timestamp(), writes }
  host.commitAs(transaction)
  return transaction
}

export const insertInto = (table: string, ...records: Record<string, unknown>[]): Write => ({
  operation: 'insert',
  database: 'dev',
  table,
  records,
})
