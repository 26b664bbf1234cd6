// Transactions as messages and back: HarperDB 4.x's MessagePack map and headers, our own additions as extra keys.

import { createHash } from 'node:crypto'
import { Packr } from 'msgpackr'
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
import { tableKey } from '../manifest/manifest.ts'
import { isToken } from '../manifest/names.ts'
import type { Entry, Headers, TableName } from '../mesh/mesh.ts'
import { type TraceContext, traceContext } from '../observe/trace-context.ts'
import { checkDecodeLimits } from '../util/decode-limits.ts'
import { makeTimestamp, wallTimeOf } from '../util/hybrid-clock.ts'

/** What arrived is no transaction of this table. */
export class WireError extends Error {
  override readonly name = 'WireError'
}

const HEADER = { id: 'Nats-Msg-Id', origin: 'origin', relayedBy: 'transacted_nodes', epoch: 'epoch' } as const
/** Writes beyond this depth of `next` lie in a list: a chain of thousands would overflow the stack of who packs it. */
const MAX_CHAIN = 32

const packr = new Packr({
  useRecords: false,
  mapsAsObjects: true,
  // Pointers of others may go in circles.
  structuredClone: false,
  useBigIntExtension: true,
  copyBuffers: true,
  encodeUndefinedAsNil: false,
  // Without it a typed array of anything but bytes is written element by element into as many bytes, and then what lay there.
  moreTypes: true,
})

const KeyType = Type.Union([Type.String(), Type.Number(), Type.BigInt()])
const WriteType = Type.Object({
  operation: Type.String(),
  schema: Type.String(),
  table: Type.String(),
  records: Type.Optional(Type.Array(Type.Object({}))),
  hash_values: Type.Optional(Type.Array(KeyType)),
})
/** They become headers when the transaction is handed on: `HEADER_RESERVE_BYTES` in the publisher has room for the longest. */
const MAX_ID_LENGTH = 1_024
const MAX_EPOCH_LENGTH = 64
const MAX_RELAYS = 64
const oneLine = (maxLength: number) => `^[^\\r\\n]{1,${maxLength}}$`
const NodeType = Type.String({ pattern: '^[^\\s,]{1,255}$' })
const RelayedByType = Type.Array(NodeType, { maxItems: MAX_RELAYS })
const EnvelopeType = Type.Object({
  __origin: Type.Object({
    timestamp: Type.Number(),
    node_name: NodeType,
    user: Type.Optional(Type.Union([Type.String(), Type.Null()])),
    epoch: Type.Optional(Type.String({ pattern: oneLine(MAX_EPOCH_LENGTH) })),
    sequence: Type.Optional(Type.Integer({ minimum: 1 })),
    relayedBy: Type.Optional(RelayedByType),
  }),
  id: Type.Optional(Type.String({ pattern: oneLine(MAX_ID_LENGTH) })),
  timestamp: Type.Optional(Type.String()),
  more: Type.Optional(Type.Array(Type.Object({}))),
})
const writeValidator = Compile(WriteType)
const envelopeValidator = Compile(EnvelopeType)
const relayedByValidator = Compile(RelayedByType)

type WireWrite = Type.Static<typeof WriteType> & { next?: unknown }
type Envelope = WireWrite & Type.Static<typeof EnvelopeType>

/** The subject tokens that NATS allows: a name with any of these cannot be replicated. */
export const isReplicable = ({ database, table }: TableName): boolean => isToken(database) && isToken(table)

/** The writes of a transaction by table, in the order in which the tables first occur. */
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

/** One table's part of a transaction; `node` is ours, the origin unless the transaction says otherwise. */
export function encode(transaction: Transaction, writes: readonly Write[], node: string): Uint8Array {
  const { id, timestamp, user = null, origin } = transaction
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
        sequence: origin.sequence,
        relayedBy: origin.relayedBy,
      }
    : { timestamp: time, user, node_name: node }
  message.id = id
  message.timestamp = timestamp
  if (runs.length > 1 + MAX_CHAIN) message.more = runs.slice(1 + MAX_CHAIN).map(toWire)
  return packr.pack(message)
}

type MessageIdentity = {
  readonly id: string
  readonly origin?: Origin | undefined
  /** Valid. */
  readonly trace?: TraceContext | undefined
}

export function encodeHeaders({ id, origin, trace }: MessageIdentity, node: string, epoch: string): Headers {
  // Those of `HEADER`, as a literal: this happens for each message.
  if (!origin && !trace) return { 'Nats-Msg-Id': id, origin: node, epoch }
  const headers = { 'Nats-Msg-Id': id, origin: origin?.node ?? node, epoch, ...trace }
  return origin ? { ...headers, transacted_nodes: [...origin.relayedBy, node].join(',') } : headers
}

const bounded = (value: string | undefined, maxLength: number): string =>
  value !== undefined && value.length <= maxLength ? value : ''

/** The transaction's id as the message's headers tell it; '' when they do not, or it is no id of ours. */
export const messageId = ({ headers }: Entry): string => bounded(headers[HEADER.id], MAX_ID_LENGTH)

const transactionIdPattern = new RegExp(oneLine(MAX_ID_LENGTH))
/** What keeps a host's transaction from being one, before its writes are looked at; undefined when nothing does. */
export function transactionIssues(transaction: Transaction): Issue[] | undefined {
  const { id, timestamp, writes } = (transaction ?? {}) as { id?: unknown; timestamp?: unknown; writes?: unknown }
  const hasId = typeof id === 'string' && id !== ''
  const hasTimestamp = typeof timestamp === 'string' && !Number.isNaN(wallTimeOf(timestamp))
  if (hasId && hasTimestamp && Array.isArray(writes)) return undefined
  const issues = []
  if (!hasId) issues.push({ path: 'id', message: "'id' must be a text that is unique for ever" })
  if (!hasTimestamp)
    issues.push({ path: 'timestamp', message: "'timestamp' must be one that cluster.timestamp() gave" })
  if (!Array.isArray(writes)) issues.push({ path: 'writes', message: "'writes' must be an array" })
  return issues
}

export const isValidTransactionId = (text: string): boolean => transactionIdPattern.test(text)

/** The first node that hands on a part of a transaction gives it an id of its own, which must not be longer than any. */
export function partId(id: string, { database, table }: TableName): string {
  const whole = `${id}:${database}.${table}`
  return whole.length <= MAX_ID_LENGTH ? whole : createHash('sha256').update(whole).digest('hex')
}

/** The epoch a message was stored in; '' when its writer has none. */
export const messageEpoch = ({ headers }: Entry): string => bounded(headers[HEADER.epoch], MAX_EPOCH_LENGTH)

/** Throws WireError for what is no transaction of the source's table. */
export function decode(source: RemoteTable, entry: Entry): RemoteTransaction {
  const message = unpack(entry.data)
  const writes: Write[] = []
  const add = (value: unknown) => {
    // The first was checked with its envelope.
    if (value !== message && !writeValidator.Check(value)) throw new WireError('one of its writes is none')
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
  }
  if (user) transaction.user = user
  const trace = entry.headers.traceparent === undefined ? undefined : traceContext(entry.headers)
  if (trace) transaction.trace = trace
  return transaction
}

/** Of what comes from its origin itself, the stream tells the place. */
function originOf(source: RemoteTable, entry: Entry, { __origin: from }: Envelope): Origin {
  const { node_name: node, epoch, sequence } = from
  const header = entry.headers[HEADER.relayedBy]
  const relayedBy = from.relayedBy ?? (header === undefined ? [] : header.split(',').filter((name) => name !== ''))
  if (relayedBy.length > 0 && !relayedByValidator.Check(relayedBy)) throw new WireError('the nodes it passed are none')
  if (node === source.node) return { node, relayedBy, epoch: messageEpoch(entry), sequence: entry.sequence }
  return epoch !== undefined && sequence !== undefined ? { node, relayedBy, epoch, sequence } : { node, relayedBy }
}

function unpack(data: Uint8Array): Envelope {
  const fault = checkDecodeLimits(data)
  if (fault) throw new WireError(fault)
  let value: unknown
  try {
    value = packr.unpack(data)
  } catch (error) {
    throw new WireError(`it is no MessagePack: ${reasonOf(error)}`)
  }
  if (!envelopeValidator.Check(value) || !writeValidator.Check(value)) throw new WireError('it is no transaction')
  const { timestamp } = value as Envelope
  if (timestamp !== undefined && Number.isNaN(wallTimeOf(timestamp))) throw new WireError(`'${timestamp}' is no stamp`)
  return value as Envelope
}

const OPERATIONS: ReadonlySet<string> = new Set<Write['operation']>(['insert', 'update', 'upsert', 'delete'])

/** Undefined for what is no write of rows (define_schema and the like). */
function fromWire(source: RemoteTable, value: WireWrite): Write | undefined {
  const { operation, schema, table, records, hash_values } = value
  if (schema !== source.database || table !== source.table)
    throw new WireError(`it is for '${schema}.${table}', in the stream of '${source.database}.${source.table}'`)
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

/** Neighbouring writes of one kind become one: the same in effect, and much smaller than a chain of single rows. */
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
