// Decodes a message that is one transaction: the MessagePack map and headers of HarperDB 4.x, with additional keys.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../../errors.ts'
import type { PrimaryKey, RecordWrite, RemoteTable, Write } from '../../host/host.ts'
import { makeTimestamp, wallTimeOf } from '../../host/hybrid-clock.ts'
import { traceContext } from '../../host/trace-context.ts'
import type { Entry } from '../../mesh/mesh.ts'
import { checkDecodeLimits } from '../../util/decode-limits.ts'
import { packr } from '../packr.ts'
import { MAX_ID_LENGTH, MAX_RELAYS, NODE_PATTERN, oneLine, TIMESTAMP_PATTERN, WireError } from './names.ts'
import type { DecodedPart } from './part.ts'

const HEADER = { id: 'Nats-Msg-Id', relayedBy: 'transacted_nodes' } as const

const KeyType = Type.Union([Type.String(), Type.Number(), Type.BigInt()])
const WriteType = Type.Object({
  operation: Type.String(),
  schema: Type.String(),
  table: Type.String(),
  records: Type.Optional(Type.Array(Type.Object({}))),
  hash_values: Type.Optional(Type.Array(KeyType)),
})
const NodeType = Type.String({ pattern: NODE_PATTERN })
const RelayedByType = Type.Array(NodeType, { maxItems: MAX_RELAYS })
const TimestampType = Type.String({ pattern: TIMESTAMP_PATTERN })
const EnvelopeType = Type.Object({
  __origin: Type.Object({
    timestamp: Type.Number(),
    node_name: NodeType,
    user: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  }),
  id: Type.Optional(Type.String({ pattern: oneLine(MAX_ID_LENGTH) })),
  timestamp: Type.Optional(TimestampType),
})
const writeValidator = Compile(WriteType)
const envelopeValidator = Compile(EnvelopeType)
const relayedByValidator = Compile(RelayedByType)

type WireWrite = Type.Static<typeof WriteType> & { next?: unknown }
type Envelope = WireWrite & Type.Static<typeof EnvelopeType>

/** The id in the headers of a single message; '' when it is missing or too long. */
export function idOfMessage({ headers }: Pick<Entry, 'headers'>): string {
  const id = headers[HEADER.id]
  return id !== undefined && id.length <= MAX_ID_LENGTH ? id : ''
}

/** Throws WireError. */
export function decodeSingleMessage(source: RemoteTable, entry: Entry): DecodedPart {
  const message = unpack(entry.data)
  const writes: Write[] = []
  for (let each: unknown = message; each !== undefined && each !== null; each = (each as WireWrite).next) {
    // `unpack` has checked the first write.
    if (each !== message && !writeValidator.Check(each)) throw new WireError('contains an invalid write')
    const found = fromWire(source, each as WireWrite)
    if (found) writes.push(found)
  }
  const { user, timestamp, node_name } = message.__origin
  return {
    id: message.id ?? (idOfMessage(entry) || `${source.node}:${entry.sequence}`),
    timestamp: message.timestamp ?? makeTimestamp(Math.max(0, Math.trunc(timestamp)), 0, node_name),
    user: user ?? undefined,
    writes,
    node: node_name,
    epoch: undefined,
    index: undefined,
    relayedBy: relayedByOf(entry),
    voids: undefined,
    trace: traceContext(entry.headers),
  }
}

function relayedByOf({ headers }: Entry): string[] {
  const relayedBy = (headers[HEADER.relayedBy] ?? '').split(',').filter((name) => name !== '')
  if (relayedBy.length > 0 && !relayedByValidator.Check(relayedBy))
    throw new WireError('invalid list of relaying nodes')
  return relayedBy
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
