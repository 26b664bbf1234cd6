// Encodes one table's part of a transaction as a message that HarperDB 4.3 and later reads, and definitions of attributes.
//
// HarperDB reads a list of rows in the first write only, and one row in each further one. What it does not know is in `__enmesh`. A
// transaction that no such message can hold is a message without rows for HarperDB, which has the whole transaction in `__enmesh`. Ahead of
// it are messages that only HarperDB applies, with some of its rows in each: so enmesh nodes apply it at once and with one id.

import type { PrimaryKey, Write } from '../../host/host.ts'
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
  const { voids, trace } = part
  const rows = netWrites(part.writes, primaryKey)
  const body = rows.length === 0 ? definition(database, table, []) : chainOf(database, table, rows)
  const own = { ...identityOf(part), ...(voids && { voids }), ...(trace && { trace }) }
  return transactionMessage(position, body, part, { time, own })
}

/** The whole transaction for enmesh nodes. `data`: the encoded part, which has the user, too: the message is hardly larger than the part. */
export function encodeWhole(
  position: MessagePosition,
  { database, table }: TableName,
  part: DecodedPart,
  { data, time }: { data: Uint8Array; time: number },
): Message {
  const own = { ...identityOf(part), part: Buffer.from(data.buffer, data.byteOffset, data.byteLength) }
  return transactionMessage(position, definition(database, table, []), { ...part, user: undefined }, { time, own })
}

/** Characters of a user whom each message with rows of a divided transaction repeats. */
const MAX_USER_LENGTH = 1_024

/** Some rows of a transaction, for HarperDB alone: its own id is that of the message, as with a definition. All have one operation. */
export function encodeRows(
  position: MessagePosition,
  { database, table }: TableName,
  part: DecodedPart,
  { rows, time }: { rows: readonly RowWrite[]; time: number },
): Message {
  const own = { id: frameId(position.epoch, position.first, 1), timestamp: part.timestamp }
  const user = part.user !== undefined && part.user.length > MAX_USER_LENGTH ? undefined : part.user
  return transactionMessage(position, chainOf(database, table, rows), { ...part, user }, { time, own })
}

const identityOf = ({ id, timestamp, epoch, index }: DecodedPart) => ({ id, timestamp, ...(epoch && { epoch, index }) })

function transactionMessage(
  position: MessagePosition,
  writes: object,
  { user, node: committedBy = position.node, relayedBy }: DecodedPart,
  { time, own }: { time: number; own: object },
): Message {
  const __origin = { user: user ?? null, timestamp: time, node_name: committedBy }
  return messageOf(position, { ...writes, __origin, __enmesh: own }, committedBy, relayedBy)
}

/** Rows that are not in the list of a single message, or more than those. */
export function chainLength(writes: readonly Write[]): number {
  if (writes.length <= 1) return 0
  const rows = { put: 0, update: 0, delete: 0 }
  for (const write of writes) {
    if (write.operation === 'delete') rows.delete += write.ids.length
    else rows[write.operation === 'update' ? 'update' : 'put'] += write.records.length
  }
  const all = Object.values(rows)
  return all.reduce((sum, each) => sum + each, 0) - Math.max(...all)
}

/** Lists of rows for `encodeRows`. `maxBytes`: of the rows in one list; a larger row is a list by itself. */
export function divideRows(rows: readonly RowWrite[], maxBytes: number): RowWrite[][] {
  const lists: RowWrite[][] = []
  const open = new Map<string, { list: RowWrite[]; bytes: number }>()
  for (const row of rows) {
    const operation = harperOperation(row)
    const bytes = recordPackr.pack(row).byteLength
    const last = open.get(operation)
    if (last && last.bytes + bytes <= maxBytes) {
      last.list.push(row)
      last.bytes += bytes
    } else {
      const list = [row]
      lists.push(list)
      open.set(operation, { list, bytes })
    }
  }
  return lists
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
