// A transaction of another node as it is appended to the local streams.

import { randomUUID } from 'node:crypto'
import type { RemoteTable, RemoteTransaction, Transaction } from '../../host/host.ts'
import { partId } from '../wire/names.ts'
import { splitByTable } from '../wire/writes.ts'

/**
 * The parts of one transaction arrive in the streams of several tables, and each is relayed separately: the first relaying node
 * gives each part a separate id. A transaction of HarperDB arrives in one stream with the writes to other tables: their parts have no
 * place in the streams of those tables, so their origin has neither epoch nor index. A message that only defines attributes has no part.
 *
 * Without epoch and index nothing tells that a transaction arrives a second time, by another path: each time it gets another id, because the
 * outbox is read on by ids.
 */
export function toRelayed(node: string, source: RemoteTable, transaction: RemoteTransaction): Transaction[] {
  const { sequence: _, index: __, origin, id, ...content } = transaction
  if (content.writes.length === 0 && !origin.epoch) return []
  const relayedBy = [...origin.relayedBy, node]
  const ownId = !origin.epoch ? randomUUID() : origin.relayedBy.length === 0 ? partId(id, source) : id
  const own: Transaction = { ...content, id: ownId, origin: { ...origin, relayedBy } }
  if (content.writes.every(({ table }) => table === source.table)) return [own]
  return splitByTable(own).map(({ table, writes }) =>
    table.table === source.table
      ? { ...own, writes }
      : { ...content, writes, id: randomUUID(), origin: { node: origin.node, relayedBy } },
  )
}
