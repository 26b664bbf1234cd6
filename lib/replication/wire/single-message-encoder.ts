// Encodes one table's part of a transaction as a message that HarperDB 4.3 and later reads, and definitions of attributes.
//
// HarperDB reads a list of rows in the first write only, and one row in each further one. What it does not know is in `__enmesh`.

import type { PrimaryKey } from '../../host/host.ts'
import { counterOf, wallTimeOf } from '../../host/hybrid-clock.ts'
import type { Message, TableName } from '../../mesh/mesh.ts'
import { recordPackr } from '../packr.ts'
import { frameId, MESSAGE_VERSION } from './message-ids.ts'
import { netWrites, type RowWrite } from './net-writes.ts'
import type { DecodedPart } from './part.ts'
import { HEADER, PARTS_OF_MS } from './single-message-format.ts'

/**
 * Rows beside those of the largest group of inserts, updates or deletes: each is nested in the one before it, and msgpackr, with which
 * HarperDB reads them, fails at about 1,000.
 */
export const MAX_CHAIN = 500

export type MessagePosition = { node: string; epoch: string; first: number }

/** ms since 1970 as HarperDB orders transactions by it: the counter of the timestamp is the fraction. */
export const harperTime = (timestamp: string): number => wallTimeOf(timestamp) + counterOf(timestamp) / PARTS_OF_MS

/** `time`: see `harperTime`. `node`, `epoch` and `first`: the owner of the stream, and the place of the message in it. */
export function encodeSingleMessage(
  position: MessagePosition,
  { database, table }: TableName,
  part: DecodedPart,
  { primaryKey, time }: { primaryKey: string; time: number },
): Message {
  const { id, timestamp, user = null, node: committedBy = position.node, relayedBy, epoch, index, voids, trace } = part
  const own = { id, timestamp, ...(epoch && { epoch, index }), ...(voids && { voids }), ...(trace && { trace }) }
  const rows = netWrites(part.writes, primaryKey)
  const body = {
    ...(rows.length === 0 ? definition(database, table, []) : chainOf(database, table, rows)),
    __origin: { user, timestamp: time, node_name: committedBy },
    __enmesh: own,
  }
  return messageOf(position, body, committedBy, relayedBy)
}

/** HarperDB gets to know these attributes of the table. Its own id is that of the message: it is no transaction of a database. */
export function encodeDefinition(
  position: MessagePosition,
  { database, table }: TableName,
  attributes: readonly string[],
  { timestamp, time }: { timestamp: string; time: number },
): Message {
  const { node, epoch, first } = position
  const body = {
    ...definition(database, table, attributes),
    __origin: { user: null, timestamp: time, node_name: node },
    __enmesh: { id: frameId(epoch, first, 1), timestamp },
  }
  return messageOf(position, body, node, [])
}

const definition = (schema: string, table: string, attributes: readonly string[]) => ({
  operation: 'define_schema',
  schema,
  table,
  attributes: attributes.map((name) => ({ name, attribute: name, indexed: true })),
})

type Link = { operation: string; table: string; id: PrimaryKey; record: object | undefined; next?: Link }

function chainOf(schema: string, table: string, rows: readonly RowWrite[]): object {
  const groups = new Map<string, RowWrite[]>()
  for (const row of rows) {
    const operation = harperOperation(row)
    const group = groups.get(operation) ?? []
    groups.set(operation, group)
    group.push(row)
  }
  const [[operation, largest], ...others] = [...groups].sort(([, a], [, b]) => b.length - a.length) as [
    [string, RowWrite[]],
    ...[string, RowWrite[]][],
  ]
  let next: Link | undefined
  for (const [operation, group] of others)
    for (const row of group) next = { operation, table, id: row.key, record: recordOf(row), ...(next && { next }) }
  return {
    operation,
    schema,
    table,
    hash_values: largest.map(({ key }) => key),
    records: largest.map(recordOf),
    ...(next && { next }),
  }
}

/** HarperDB maps `update` to a put, which would remove all other attributes. */
const harperOperation = ({ operation }: RowWrite): string =>
  operation === 'update' ? 'patch' : operation === 'insert' ? 'upsert' : operation
const recordOf = (row: RowWrite): object | undefined => (row.operation === 'delete' ? undefined : row.record)

function messageOf({ epoch, first }: MessagePosition, body: object, committedBy: string, relayedBy: string[]) {
  // HarperDB names the node that committed the transaction first. A relayed one names the local node as the last.
  const nodes = [committedBy, ...relayedBy]
  return {
    data: Uint8Array.from(recordPackr.pack(body)),
    headers: {
      [HEADER.id]: frameId(epoch, first, 1),
      origin: committedBy,
      [HEADER.nodes]: nodes.join(','),
      [HEADER.nodeCount]: `${nodes.length}`,
      epoch,
      v: `${MESSAGE_VERSION}`,
      first: `${first}`,
      count: '1',
    },
  }
}
