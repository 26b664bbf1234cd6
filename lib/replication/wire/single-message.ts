// Decodes a message that is one transaction: see single-message-format.ts.
//
// The first write has `records` and `hash_values`. Further ones follow as a chain in `next`, one row in each, without `schema` and with
// `record` and `id`; they may write other tables of the database.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../../errors.ts'
import type { RemoteTable } from '../../host/host.ts'
import { makeTimestamp, wallTimeOf } from '../../host/hybrid-clock.ts'
import { traceContext } from '../../host/trace-context.ts'
import type { Entry } from '../../mesh/mesh.ts'
import { checkDecodeLimits } from '../../util/decode-limits.ts'
import { packr } from '../packr.ts'
import { type ChainLink, ChainLinkType, type MessageExtras, resolveChain, type TableLookup } from './message-chain.ts'
import {
  MAX_EPOCH_LENGTH,
  MAX_ID_LENGTH,
  MAX_RELAYS,
  NODE_PATTERN,
  oneLine,
  TIMESTAMP_PATTERN,
  WireError,
} from './names.ts'
import { type DecodedPart, decodePart } from './part.ts'
import { HEADER, isForwarded, PARTS_OF_MS, transactedNodes } from './single-message-format.ts'

const NodeType = Type.String({ pattern: NODE_PATTERN })
const RelayedByType = Type.Array(NodeType, { maxItems: MAX_RELAYS })
const TimestampType = Type.String({ pattern: TIMESTAMP_PATTERN })
const EnvelopeType = Type.Object({
  schema: Type.String(),
  __origin: Type.Object({
    /** ms since 1970; the fraction tells transactions within a millisecond apart. */
    timestamp: Type.Number({ exclusiveMaximum: 2 ** 48 }),
    node_name: NodeType,
    user: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  }),
  /** Not in HarperDB. */
  __enmesh: Type.Optional(
    Type.Object({
      id: Type.String({ pattern: oneLine(MAX_ID_LENGTH) }),
      timestamp: TimestampType,
      /** Of the origin, for a relayed transaction. */
      epoch: Type.Optional(Type.String({ pattern: oneLine(MAX_EPOCH_LENGTH) })),
      index: Type.Optional(Type.Integer({ minimum: 1 })),
      voids: Type.Optional(Type.Object({ node: NodeType, from: TimestampType, to: TimestampType })),
      trace: Type.Optional(Type.Object({})),
      /** The transaction as in a frame, when the message cannot hold its rows in the form of HarperDB. */
      part: Type.Optional(Type.Unsafe<Uint8Array>(Type.Unknown())),
    }),
  ),
})
const linkValidator = Compile(ChainLinkType)
const envelopeValidator = Compile(EnvelopeType)
const relayedByValidator = Compile(RelayedByType)

type Envelope = ChainLink & Type.Static<typeof EnvelopeType>

/** `time`: ms since 1970. */
const toTimestamp = (time: number, node: string): string => {
  const ms = Math.max(0, Math.floor(time))
  return makeTimestamp(ms, Math.max(0, Math.floor((time - ms) * PARTS_OF_MS)), node)
}

/** The id of a single message; '' when it is missing, too long or unreadable. */
export function idOfMessage({ data, headers }: Pick<Entry, 'data' | 'headers'>): string {
  const id = headers[HEADER.id]
  if (headers.v === undefined) return id !== undefined && id.length <= MAX_ID_LENGTH ? id : ''
  try {
    return unpack(data).__enmesh?.id ?? ''
  } catch {
    return ''
  }
}

/** Throws WireError, and MissingTableError as `resolveChain`. */
export function decodeSingleMessage(
  source: RemoteTable,
  entry: Entry,
  tables?: TableLookup,
): DecodedPart & { extras: MessageExtras } {
  const message = unpack(entry.data)
  const { schema, table } = message
  if (schema !== source.database || table !== source.table)
    throw new WireError(
      `contains a write to '${schema}.${table}' in the stream of '${source.database}.${source.table}'`,
    )
  const { writes: all, ...extras } = resolveChain(source, linksOf(message), tables)
  const { user, timestamp, node_name } = message.__origin
  const { __enmesh: own } = message
  const place = { node: node_name, ...placeOf(message, entry), relayedBy: relayedByOf(entry, node_name) }
  if (own?.part instanceof Uint8Array) return { ...decodePart(source, node_name, own.part), ...place, extras }
  // The rows that it has for HarperDB are in the transaction that follows.
  const writes = isForHarperOnly(message, entry) ? [] : all
  return {
    id: own?.id ?? (idOfMessage(entry) || `${source.node}:${entry.sequence}`),
    timestamp: own?.timestamp ?? toTimestamp(timestamp, node_name),
    user: user ?? undefined,
    writes,
    ...place,
    voids: own?.voids,
    trace: traceContext(own?.trace ?? entry.headers),
    extras,
  }
}

/** In the stream of the node that wrote it: a HarperDB node that forwards it may not forward the transaction. */
const isForHarperOnly = ({ __enmesh: own }: Envelope, { headers }: Pick<Entry, 'headers'>): boolean =>
  own !== undefined && own.id === headers[HEADER.id] && !isForwarded(headers)

/** Where the origin has the transaction in its stream, if it does not come from there and that is known. */
function placeOf({ __enmesh: own, __origin }: Envelope, { headers }: Entry): Pick<DecodedPart, 'epoch' | 'index'> {
  const none = { epoch: undefined, index: undefined }
  if (own?.epoch !== undefined && own.index !== undefined) return { epoch: own.epoch, index: own.index }
  const { epoch, first, origin } = headers
  // HarperDB has forwarded the message with the headers that it had in the stream of its origin.
  const isOfOrigin = isForwarded(headers) && headers[HEADER.nodeCount] === '1' && origin === __origin.node_name
  const index = Number(first)
  return isOfOrigin && epoch && Number.isSafeInteger(index) && index > 0 ? { epoch, index } : none
}

function linksOf(message: Envelope): ChainLink[] {
  const links: ChainLink[] = [message]
  for (let link = message.next; link !== undefined && link !== null; link = (link as ChainLink).next) {
    if (!linkValidator.Check(link)) throw new WireError('contains an invalid write')
    links.push(link as ChainLink)
  }
  return links
}

function relayedByOf({ headers }: Entry, committedBy: string): string[] {
  const nodes = transactedNodes(headers)
  const relayedBy = nodes[0] === committedBy ? nodes.slice(1) : nodes
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
  if (!envelopeValidator.Check(value) || !linkValidator.Check(value)) throw new WireError('not a valid transaction')
  const { __enmesh: own } = value as Envelope
  if (own && Number.isNaN(wallTimeOf(own.timestamp))) throw new WireError(`'${own.timestamp}' is not a valid timestamp`)
  return value as Envelope
}
