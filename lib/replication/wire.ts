// Transactions as messages and back: HarperDB 4.x's MessagePack map and headers, our own additions as extra keys.

import { createHash } from 'node:crypto'
import { Packr } from 'msgpackr'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { decodingFault } from '../decoding-cost.ts'
import { type Issue, reasonOf } from '../errors.ts'
import type { Key, Origin, RemoteTransaction, Source, Transaction, Write } from '../host.ts'
import { tableKey } from '../manifest/manifest.ts'
import { isToken } from '../manifest/names.ts'
import type { Entry, Headers, TableName } from '../mesh/mesh.ts'
import { type TraceContext, traceContext } from '../trace-context.ts'
import { makeStamp, stampTime } from './clock.ts'

/** What arrived is no transaction of this table. */
export class WireError extends Error {
  override readonly name = 'WireError'
}

const HEADER = { id: 'Nats-Msg-Id', origin: 'origin', passed: 'transacted_nodes', epoch: 'epoch' } as const
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
/** They become headers when the transaction is handed on: `HEADER_ROOM` in the publisher has room for the longest. */
const MOST_ID = 1_024
const MOST_EPOCH = 64
const MOST_PASSED = 64
const oneLine = (most: number) => `^[^\\r\\n]{1,${most}}$`
const NodeType = Type.String({ pattern: '^[^\\s,]{1,255}$' })
const PathType = Type.Array(NodeType, { maxItems: MOST_PASSED })
const EnvelopeType = Type.Object({
  __origin: Type.Object({
    timestamp: Type.Number(),
    node_name: NodeType,
    user: Type.Optional(Type.Union([Type.String(), Type.Null()])),
    epoch: Type.Optional(Type.String({ pattern: oneLine(MOST_EPOCH) })),
    sequence: Type.Optional(Type.Integer({ minimum: 1 })),
    path: Type.Optional(PathType),
  }),
  id: Type.Optional(Type.String({ pattern: oneLine(MOST_ID) })),
  stamp: Type.Optional(Type.String()),
  more: Type.Optional(Type.Array(Type.Object({}))),
})
const write = Compile(WriteType)
const envelope = Compile(EnvelopeType)
const passed = Compile(PathType)

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
  const { id, stamp, user = null, origin } = transaction
  const runs = joinRuns(writes)
  const message: Record<string, unknown> = toWire(runs[0]!)
  if (runs.length > 1) message.next = runs.slice(1, 1 + MAX_CHAIN).reduceRight<WireWrite | undefined>(linked, undefined)
  const timestamp = stampTime(stamp)
  message.__origin = origin
    ? { timestamp, user, node_name: origin.node, epoch: origin.epoch, sequence: origin.sequence, path: origin.path }
    : { timestamp, user, node_name: node }
  message.id = id
  message.stamp = stamp
  if (runs.length > 1 + MAX_CHAIN) message.more = runs.slice(1 + MAX_CHAIN).map(toWire)
  return packr.pack(message)
}

type Identity = {
  readonly id: string
  readonly origin?: Origin | undefined
  /** Valid. */
  readonly trace?: TraceContext | undefined
}

export function encodeHeaders({ id, origin, trace }: Identity, node: string, epoch: string): Headers {
  // Those of `HEADER`, as a literal: this happens for each message.
  if (!origin && !trace) return { 'Nats-Msg-Id': id, origin: node, epoch }
  const headers = { 'Nats-Msg-Id': id, origin: origin?.node ?? node, epoch, ...trace }
  return origin ? { ...headers, transacted_nodes: [...origin.path, node].join(',') } : headers
}

const bounded = (value: string | undefined, most: number): string =>
  value !== undefined && value.length <= most ? value : ''

/** The transaction's id as the message's headers tell it; '' when they do not, or it is no id of ours. */
export const idOf = ({ headers }: Entry): string => bounded(headers[HEADER.id], MOST_ID)

const transactionId = new RegExp(oneLine(MOST_ID))
/** What keeps a host's transaction from being one, before its writes are looked at; undefined when nothing does. */
export function transactionIssues(transaction: Transaction): Issue[] | undefined {
  const { id, stamp, writes } = (transaction ?? {}) as { id?: unknown; stamp?: unknown; writes?: unknown }
  const hasId = typeof id === 'string' && id !== ''
  const hasStamp = typeof stamp === 'string' && !Number.isNaN(stampTime(stamp))
  if (hasId && hasStamp && Array.isArray(writes)) return undefined
  const issues = []
  if (!hasId) issues.push({ path: 'id', message: "'id' must be a text that is unique for ever" })
  if (!hasStamp) issues.push({ path: 'stamp', message: "'stamp' must be one that cluster.stamp() gave" })
  if (!Array.isArray(writes)) issues.push({ path: 'writes', message: "'writes' must be an array" })
  return issues
}

export const isTransactionId = (text: string): boolean => transactionId.test(text)

/** The first node that hands on a part of a transaction gives it an id of its own, which must not be longer than any. */
export function idOfPart(id: string, { database, table }: TableName): string {
  const whole = `${id}:${database}.${table}`
  return whole.length <= MOST_ID ? whole : createHash('sha256').update(whole).digest('hex')
}

/** The epoch a message was stored in; '' when its writer has none. */
export const epochOf = ({ headers }: Entry): string => bounded(headers[HEADER.epoch], MOST_EPOCH)

/** Throws WireError for what is no transaction of the source's table. */
export function decode(source: Source, entry: Entry): RemoteTransaction {
  const message = unpack(entry.data)
  const writes: Write[] = []
  const add = (value: unknown) => {
    // The first was checked with its envelope.
    if (value !== message && !write.Check(value)) throw new WireError('one of its writes is none')
    const found = fromWire(source, value as WireWrite)
    if (found) writes.push(found)
  }
  for (let each: unknown = message; each !== undefined && each !== null; each = (each as WireWrite).next) add(each)
  if (message.more) for (const each of message.more) add(each)
  const { user, timestamp, node_name } = message.__origin
  const transaction: RemoteTransaction = {
    id: message.id ?? (idOf(entry) || `${source.node}:${entry.sequence}`),
    stamp: message.stamp ?? makeStamp(Math.max(0, Math.trunc(timestamp)), 0, node_name),
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
function originOf(source: Source, entry: Entry, { __origin: from }: Envelope): Origin {
  const { node_name: node, epoch, sequence } = from
  const header = entry.headers[HEADER.passed]
  const path = from.path ?? (header === undefined ? [] : header.split(',').filter((name) => name !== ''))
  if (path.length > 0 && !passed.Check(path)) throw new WireError('the nodes it passed are none')
  if (node === source.node) return { node, path, epoch: epochOf(entry), sequence: entry.sequence }
  return epoch !== undefined && sequence !== undefined ? { node, path, epoch, sequence } : { node, path }
}

function unpack(data: Uint8Array): Envelope {
  const fault = decodingFault(data)
  if (fault) throw new WireError(fault)
  let value: unknown
  try {
    value = packr.unpack(data)
  } catch (error) {
    throw new WireError(`it is no MessagePack: ${reasonOf(error)}`)
  }
  if (!envelope.Check(value) || !write.Check(value)) throw new WireError('it is no transaction')
  const { stamp } = value as Envelope
  if (stamp !== undefined && Number.isNaN(stampTime(stamp))) throw new WireError(`'${stamp}' is no stamp`)
  return value as Envelope
}

const OPERATIONS: ReadonlySet<string> = new Set<Write['operation']>(['insert', 'update', 'upsert', 'delete'])

/** Undefined for what is no write of rows (define_schema and the like). */
function fromWire(source: Source, value: WireWrite): Write | undefined {
  const { operation, schema, table, records, hash_values } = value
  if (schema !== source.database || table !== source.table)
    throw new WireError(`it is for '${schema}.${table}', in the stream of '${source.database}.${source.table}'`)
  if (!OPERATIONS.has(operation)) return undefined
  if (operation === 'delete') return { operation, database: schema, table, ids: (hash_values ?? []) as Key[] }
  const kind = operation as Exclude<Write['operation'], 'delete'>
  return { operation: kind, database: schema, table, records: (records ?? []) as Record<string, unknown>[] }
}

function toWire({ operation, database, table, records, ids }: Write): WireWrite {
  const wire: WireWrite = { operation, schema: database, table }
  if (records) wire.records = records as object[]
  if (ids) wire.hash_values = ids as Key[]
  return wire
}

const linked = (next: WireWrite | undefined, each: Write): WireWrite =>
  next ? { ...toWire(each), next } : toWire(each)

/** Neighbouring writes of one kind become one: the same in effect, and much smaller than a chain of single rows. */
function joinRuns(writes: readonly Write[]): Write[] {
  if (writes.length === 1) return writes as Write[]
  const runs: Write[] = []
  for (const each of writes) {
    const last = runs.at(-1)
    if (last?.operation !== each.operation) runs.push({ ...each, ...copyRows(each) })
    else {
      if (each.records) for (const record of each.records) last.records!.push(record)
      if (each.ids) for (const id of each.ids) last.ids!.push(id)
    }
  }
  return runs
}

const copyRows = ({ operation, records, ids }: Write) =>
  operation === 'delete' ? { ids: [...(ids ?? [])] } : { records: [...(records ?? [])] }
