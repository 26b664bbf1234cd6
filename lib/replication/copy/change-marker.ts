// The transaction without rows by which a node announces to the subscribers of a table that it has copied rows that they expect in its
// stream, and the stream does not have: see IsAnnounced. It is a part of the stream, so that it is neither lost nor forgotten when one of the
// nodes ends; a subscriber that does not read it has a gap, which has the same effect.

import { randomUUID } from 'node:crypto'
import type { TableName, Transaction } from '../../host/host.ts'
import { makeTimestamp } from '../../host/hybrid-clock.ts'

const PREFIX = 'rows-copied:'

/** Its timestamp is never voided, and never in the future. */
export const changeMarker = (node: string, { database, table }: TableName): Transaction => ({
  id: `${PREFIX}${randomUUID()}`,
  timestamp: makeTimestamp(0, 0, node),
  writes: [{ operation: 'upsert', database, table, records: [] }],
})

/** Relayed by nobody: a node that copies rows because of it has a marker of its own. */
export const isChangeMarker = ({ id, writes }: Pick<Transaction, 'id' | 'writes'>): boolean =>
  id.startsWith(PREFIX) &&
  writes.every((write) => (write.operation === 'delete' ? write.ids : write.records).length === 0)
