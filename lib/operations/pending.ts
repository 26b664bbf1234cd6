// What an operation has committed that is not in effect yet: subscriptions that cannot end while the database does not answer.

import type { RemoteTable } from '../host/host.ts'
import { type OperationName, operations } from './index.ts'
import type { PendingSubscription } from './nodes.ts'

/** The entries of `pending` that belong to the nodes of this request. `request` was accepted before. */
export function pendingOf(
  name: OperationName,
  request: unknown,
  pending: readonly { source: RemoteTable; reason: string }[],
): PendingSubscription[] {
  if (pending.length === 0) return []
  const queue = operations[name].queue?.(request as never)
  if (!queue) return []
  const isNamed = ({ source }: { source: RemoteTable }) => queue === 'all' || source.node === queue.node
  return pending
    .filter(isNamed)
    .map(({ source: { node, database, table }, reason }) => ({ node_name: node, schema: database, table, reason }))
}
