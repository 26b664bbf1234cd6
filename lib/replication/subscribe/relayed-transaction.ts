// A transaction of another node as it is appended to the local stream.

import type { RemoteTable, RemoteTransaction, Transaction } from '../../host/host.ts'
import { partId } from '../wire.ts'

/**
 * The parts of one transaction arrive in the streams of several tables, and each is relayed separately: the first relaying node
 * gives each part a separate id.
 */
export function toRelayed(
  node: string,
  source: RemoteTable,
  { sequence: _, index: __, origin, id, ...transaction }: RemoteTransaction,
): Transaction {
  const relayedId = origin.relayedBy.length === 0 ? partId(id, source) : id
  return { ...transaction, id: relayedId, origin: { ...origin, relayedBy: [...origin.relayedBy, node] } }
}
