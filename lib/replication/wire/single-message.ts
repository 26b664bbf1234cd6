// Decodes a message that is one transaction: the MessagePack map or record and the headers of HarperDB 4.x, with additional keys.
//
// The first write has `records` and `hash_values`. Further ones follow as a chain in `next`, one row in each, without `schema` and with
// `record` and `id`; they may write other tables of the database. A chain link of enmesh has `schema` and lists as well.

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
import { MAX_ID_LENGTH, MAX_RELAYS, NODE_PATTERN, oneLine, TIMESTAMP_PATTERN, WireError } from './names.ts'
import type { DecodedPart } from './part.ts'

/** `relayedBy`: separated by commas; HarperDB writes one header line for each node. */
const HEADER = { id: 'Nats-Msg-Id', relayedBy: 'transacted_nodes' } as const

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
  id: Type.Optional(Type.String({ pattern: oneLine(MAX_ID_LENGTH) })),
  timestamp: Type.Optional(TimestampType),
})
const linkValidator = Compile(ChainLinkType)
const envelopeValidator = Compile(EnvelopeType)
const relayedByValidator = Compile(RelayedByType)

type Envelope = ChainLink & Type.Static<typeof EnvelopeType>

/**
 * Parts of a millisecond that a time of HarperDB tells apart: those of a 64-bit floating-point number of ms until the year 2039. So the
 * counter of a timestamp holds them without loss.
 */
const PARTS_OF_MS = 4_096

/** `time`: ms since 1970. */
const toTimestamp = (time: number, node: string): string => {
  const ms = Math.max(0, Math.floor(time))
  return makeTimestamp(ms, Math.max(0, Math.floor((time - ms) * PARTS_OF_MS)), node)
}

/** The id in the headers of a single message; '' when it is missing or too long. */
export function idOfMessage({ headers }: Pick<Entry, 'headers'>): string {
  const id = headers[HEADER.id]
  return id !== undefined && id.length <= MAX_ID_LENGTH ? id : ''
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
  const { writes, ...extras } = resolveChain(source, linksOf(message), tables)
  const { user, timestamp, node_name } = message.__origin
  return {
    id: message.id ?? (idOfMessage(entry) || `${source.node}:${entry.sequence}`),
    timestamp: message.timestamp ?? toTimestamp(timestamp, node_name),
    user: user ?? undefined,
    writes,
    node: node_name,
    epoch: undefined,
    index: undefined,
    relayedBy: relayedByOf(entry),
    voids: undefined,
    trace: traceContext(entry.headers),
    extras,
  }
}

function linksOf(message: Envelope): ChainLink[] {
  // The id of the message is that of the transaction.
  const links: ChainLink[] = [{ ...message, id: undefined }]
  for (let link = message.next; link !== undefined && link !== null; link = (link as ChainLink).next) {
    if (!linkValidator.Check(link)) throw new WireError('contains an invalid write')
    links.push(link as ChainLink)
  }
  return links
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
  if (!envelopeValidator.Check(value) || !linkValidator.Check(value)) throw new WireError('not a valid transaction')
  const { timestamp } = value as Envelope
  if (timestamp !== undefined && Number.isNaN(wallTimeOf(timestamp)))
    throw new WireError(`'${timestamp}' is not a valid timestamp`)
  return value as Envelope
}
