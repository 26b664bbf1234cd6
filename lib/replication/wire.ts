// Encodes and decodes transactions as messages: the MessagePack map and headers of HarperDB 4.x, with additional keys.

import { createHash } from 'node:crypto'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { type Issue, reasonOf } from '../errors.ts'
import type {
  DeleteWrite,
  Origin,
  PrimaryKey,
  RecordWrite,
  RemoteTable,
  RemoteTransaction,
  Transaction,
  Write,
} from '../host/host.ts'
import { makeTimestamp, wallTimeOf } from '../host/hybrid-clock.ts'
import { type TraceContext, traceContext } from '../host/trace-context.ts'
import { tableKey } from '../manifest/manifest.ts'
import { isToken } from '../manifest/names.ts'
import type { Entry, Headers, TableName } from '../mesh/mesh.ts'
import { checkDecodeLimits } from '../util/decode-limits.ts'
import { packr } from './packr.ts'

/** The message is not a valid transaction of its table. */
export class WireError extends Error {
  override readonly name = 'WireError'
}

const HEADER = { id: 'Nats-Msg-Id', origin: 'origin', relayedBy: 'transacted_nodes', epoch: 'epoch' } as const
/** Writes beyond this depth of `next` go into the list `more`: a chain of thousands overflows the stack of the encoder. */
const MAX_CHAIN = 32

const KeyType = Type.Union([Type.String(), Type.Number(), Type.BigInt()])
const WriteType = Type.Object({
  operation: Type.String(),
  schema: Type.String(),
  table: Type.String(),
  records: Type.Optional(Type.Array(Type.Object({}))),
  hash_values: Type.Optional(Type.Array(KeyType)),
})
/** Limits of values that become headers of a relayed transaction: together they must fit into `HEADER_RESERVE_BYTES` of part-encoder.ts. */
const MAX_ID_LENGTH = 1_024
const MAX_EPOCH_LENGTH = 64
const MAX_RELAYS = 64
const oneLine = (maxLength: number) => `^[^\\r\\n]{1,${maxLength}}$`
const NodeType = Type.String({ pattern: '^[^\\s,]{1,255}$' })
const RelayedByType = Type.Array(NodeType, { maxItems: MAX_RELAYS })
const TimestampType = Type.String({ pattern: '^[0-9a-f]{12}-[0-9a-f]{6}-[^\\s]{0,255}$' })
const EnvelopeType = Type.Object({
  __origin: Type.Object({
    timestamp: Type.Number(),
    node_name: NodeType,
    user: Type.Optional(Type.Union([Type.String(), Type.Null()])),
    epoch: Type.Optional(Type.String({ pattern: oneLine(MAX_EPOCH_LENGTH) })),
    index: Type.Optional(Type.Integer({ minimum: 1 })),
    relayedBy: Type.Optional(RelayedByType),
  }),
  id: Type.Optional(Type.String({ pattern: oneLine(MAX_ID_LENGTH) })),
  timestamp: Type.Optional(Type.String()),
  more: Type.Optional(Type.Array(Type.Object({}))),
  voids: Type.Optional(Type.Object({ node: NodeType, from: TimestampType, to: TimestampType })),
})
const writeValidator = Compile(WriteType)
const envelopeValidator = Compile(EnvelopeType)
const relayedByValidator = Compile(RelayedByType)

type WireWrite = Type.Static<typeof WriteType> & { next?: unknown }
type Envelope = WireWrite & Type.Static<typeof EnvelopeType>

/** False when a name is not a valid token of a NATS subject. */
export const isReplicable = ({ database, table }: TableName): boolean => isToken(database) && isToken(table)

/** The writes of each table, in the order in which the tables first occur. */
export function splitByTable({ writes }: Transaction): { table: TableName; writes: Write[] }[] {
  const first = writes[0]
  if (!first) return []
  if (writes.every(({ database, table }) => database === first.database && table === first.table))
    return [{ table: first, writes }]
  const parts = new Map<string, { table: TableName; writes: Write[] }>()
  for (const each of writes) {
    const key = tableKey(each)
    const part = parts.get(key) ?? { table: { database: each.database, table: each.table }, writes: [] }
    part.writes.push(each)
    parts.set(key, part)
  }
  return [...parts.values()]
}

/**
 * Encodes one table's part of a transaction. `node`: the local node, which is the origin unless the transaction has one. A restamp
 * keeps the name that its node had, because it voids timestamps with that name.
 */
export function encode(transaction: Transaction, writes: readonly Write[], node: string): Uint8Array {
  const { id, timestamp, user = null, origin, voids } = transaction
  const runs = joinRuns(writes)
  const message: Record<string, unknown> = toWire(runs[0]!)
  if (runs.length > 1) message.next = runs.slice(1, 1 + MAX_CHAIN).reduceRight<WireWrite | undefined>(chain, undefined)
  const time = wallTimeOf(timestamp)
  message.__origin = origin
    ? {
        timestamp: time,
        user,
        node_name: origin.node,
        epoch: origin.epoch,
        index: origin.index,
        relayedBy: origin.relayedBy,
      }
    : { timestamp: time, user, node_name: voids?.node ?? node }
  message.id = id
  message.timestamp = timestamp
  if (voids) message.voids = voids
  if (runs.length > 1 + MAX_CHAIN) message.more = runs.slice(1 + MAX_CHAIN).map(toWire)
  return packr.pack(message)
}

type MessageIdentity = {
  readonly id: string
  readonly origin?: Origin | undefined
  /** Must be valid: it is not checked again. */
  readonly trace?: TraceContext | undefined
}

export function encodeHeaders({ id, origin, trace }: MessageIdentity, node: string, epoch: string): Headers {
  // A literal with the names of `HEADER`, because this runs for every message.
  if (!origin && !trace) return { 'Nats-Msg-Id': id, origin: node, epoch }
  const headers = { 'Nats-Msg-Id': id, origin: origin?.node ?? node, epoch, ...trace }
  return origin ? { ...headers, transacted_nodes: [...origin.relayedBy, node].join(',') } : headers
}

const bounded = (value: string | undefined, maxLength: number): string =>
  value !== undefined && value.length <= maxLength ? value : ''

/** The transaction's id in the headers; '' when it is missing or too long. */
export const messageId = ({ headers }: Entry): string => bounded(headers[HEADER.id], MAX_ID_LENGTH)

const transactionIdPattern = new RegExp(oneLine(MAX_ID_LENGTH))
/** Why a transaction of the host is invalid, apart from its writes; undefined when it is valid. */
export function transactionIssues(transaction: Transaction): Issue[] | undefined {
  const { id, timestamp, writes } = (transaction ?? {}) as { id?: unknown; timestamp?: unknown; writes?: unknown }
  const hasId = typeof id === 'string' && id !== ''
  const hasTimestamp = typeof timestamp === 'string' && !Number.isNaN(wallTimeOf(timestamp))
  if (hasId && hasTimestamp && Array.isArray(writes)) return undefined
  const issues = []
  if (!hasId) issues.push({ path: 'id', message: "'id' must be a non-empty, globally unique string" })
  if (!hasTimestamp)
    issues.push({ path: 'timestamp', message: "'timestamp' must be a value that cluster.timestamp() returned" })
  if (!Array.isArray(writes)) issues.push({ path: 'writes', message: "'writes' must be an array" })
  return issues
}

export const isValidTransactionId = (text: string): boolean => transactionIdPattern.test(text)

/** The id of one table's part of a relayed transaction, within `MAX_ID_LENGTH`. */
export function partId(id: string, { database, table }: TableName): string {
  const whole = `${id}:${database}.${table}`
  return whole.length <= MAX_ID_LENGTH ? whole : createHash('sha256').update(whole).digest('hex')
}

/** The epoch of a message; '' when its writer has no epochs. */
export const messageEpoch = ({ headers }: Entry): string => bounded(headers[HEADER.epoch], MAX_EPOCH_LENGTH)

/** Throws WireError when the message is not a valid transaction of the source's table. */
export function decode(source: RemoteTable, entry: Entry): RemoteTransaction {
  const message = unpack(entry.data)
  const writes: Write[] = []
  const add = (value: unknown) => {
    // `unpack` has checked the first write.
    if (value !== message && !writeValidator.Check(value)) throw new WireError('contains an invalid write')
    const found = fromWire(source, value as WireWrite)
    if (found) writes.push(found)
  }
  for (let each: unknown = message; each !== undefined && each !== null; each = (each as WireWrite).next) add(each)
  if (message.more) for (const each of message.more) add(each)
  const { user, timestamp, node_name } = message.__origin
  const transaction: RemoteTransaction = {
    id: message.id ?? (messageId(entry) || `${source.node}:${entry.sequence}`),
    timestamp: message.timestamp ?? makeTimestamp(Math.max(0, Math.trunc(timestamp)), 0, node_name),
    writes,
    origin: originOf(source, entry, message),
    sequence: entry.sequence,
    index: entry.sequence,
  }
  if (user) transaction.user = user
  const { voids } = message
  // A node voids its own timestamps only.
  if (voids && voids.node === node_name) transaction.voids = { node: voids.node, from: voids.from, to: voids.to }
  const trace = entry.headers.traceparent === undefined ? undefined : traceContext(entry.headers)
  if (trace) transaction.trace = trace
  return transaction
}

/**
 * For a transaction that the source committed itself, epoch and sequence are those of the stream. Its message names the source as the
 * node was called when it was stored.
 */
function originOf(source: RemoteTable, entry: Entry, { __origin: from }: Envelope): Origin {
  const { node_name: node, epoch, index } = from
  const header = entry.headers[HEADER.relayedBy]
  const relayedBy = from.relayedBy ?? (header === undefined ? [] : header.split(',').filter((name) => name !== ''))
  if (relayedBy.length > 0 && !relayedByValidator.Check(relayedBy))
    throw new WireError('invalid list of relaying nodes')
  const isOwn = node === source.node || (epoch === undefined && relayedBy.length === 0)
  if (isOwn) return { node, relayedBy, epoch: messageEpoch(entry), index: entry.sequence }
  return epoch !== undefined && index !== undefined ? { node, relayedBy, epoch, index } : { node, relayedBy }
}

function unpack(data: Uint8Array): Envelope {
  const fault = checkDecodeLimits(data)
  if (fault) throw new WireError(fault)
  let value: unknown
  try {
    value = packr.unpack(data)
  } catch (error) {
    throw new WireError(`not valid MessagePack: ${reasonOf(error)}`)
  }
  if (!envelopeValidator.Check(value) || !writeValidator.Check(value)) throw new WireError('not a valid transaction')
  const { timestamp } = value as Envelope
  if (timestamp !== undefined && Number.isNaN(wallTimeOf(timestamp)))
    throw new WireError(`'${timestamp}' is not a valid timestamp`)
  return value as Envelope
}

const OPERATIONS: ReadonlySet<string> = new Set<Write['operation']>(['insert', 'update', 'upsert', 'delete'])

/** Undefined for operations that write no rows, like define_schema. */
function fromWire(source: RemoteTable, value: WireWrite): Write | undefined {
  const { operation, schema, table, records, hash_values } = value
  if (schema !== source.database || table !== source.table)
    throw new WireError(
      `contains a write to '${schema}.${table}' in the stream of '${source.database}.${source.table}'`,
    )
  if (!OPERATIONS.has(operation)) return undefined
  if (operation === 'delete') return { operation, database: schema, table, ids: (hash_values ?? []) as PrimaryKey[] }
  const kind = operation as RecordWrite['operation']
  return { operation: kind, database: schema, table, records: (records ?? []) as Record<string, unknown>[] }
}

function toWire(write: Write): WireWrite {
  const wire: WireWrite = { operation: write.operation, schema: write.database, table: write.table }
  // Untyped hosts may omit a list; the message then has no field for it.
  if (write.operation === 'delete') {
    if (write.ids) wire.hash_values = write.ids
  } else if (write.records) wire.records = write.records
  return wire
}

const chain = (next: WireWrite | undefined, each: Write): WireWrite => (next ? { ...toWire(each), next } : toWire(each))

/** Joins adjacent writes of the same operation: equivalent, and much smaller than a chain of single rows. */
function joinRuns(writes: readonly Write[]): Write[] {
  if (writes.length === 1) return writes as Write[]
  const runs: Write[] = []
  for (const each of writes) {
    const last = runs.at(-1)
    if (last?.operation !== each.operation) runs.push(copyWrite(each))
    else if (last.operation === 'delete') append(last.ids, (each as DeleteWrite).ids)
    else append(last.records, (each as RecordWrite).records)
  }
  return runs
}

const copyWrite = (write: Write): Write =>
  write.operation === 'delete'
    ? { ...write, ids: [...(write.ids ?? [])] }
    : { ...write, records: [...(write.records ?? [])] }

/** One at a time: as arguments of `push`, a long list would exceed the stack. */
function append<T>(list: T[], more: readonly T[] = []): void {
  for (const each of more) list.push(each)
}
