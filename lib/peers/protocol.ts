// Messages between nodes: the requests of HarperDB 4.x with additional fields, and heartbeats. Every message is validated.

import { Packr } from 'msgpackr'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { fieldSchemas } from '../manifest/subscription.ts'
import { checkDecodeLimits, MAX_DECODED_VALUES } from '../util/decode-limits.ts'

/**
 * Version of the messages between nodes: heartbeats, requests and answers.
 *
 * 1: the requests of HarperDB 4.x with the fields that are marked below as not in HarperDB, and heartbeats. A request or an answer names
 *    its version in `v`; without it, HarperDB sent it. A heartbeat names the oldest and the current version of its node in `versions`.
 *
 * A node speaks this version and the one before. It sends requests in the highest version that both nodes speak, and answers in the
 * version of the request.
 */
export const PROTOCOL_VERSION = 1

/** Three names must fit into a subject. */
const NameType = Type.String({ minLength: 1, maxLength: 1_000 })
/** It is in the error of an operation that does not exist. */
const OperationType = Type.String({ maxLength: 100 })
/** Per request; enmesh sends pages of 100. */
const MAX_SUBSCRIPTIONS = 10_000
/** Per heartbeat. */
const MAX_STREAMS = 100_000

const SubscriptionType = Type.Object({
  schema: NameType,
  table: NameType,
  hash_attribute: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  ...fieldSchemas,
  start_time: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  /** Not in HarperDB: the receiver copies the rows of the sender, or begins without a copy. */
  copy: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])),
  /** Texts, or objects with a `name` or an `attribute`: see util/attribute-names.ts. */
  attributes: Type.Optional(Type.Array(Type.Unknown())),
})

const VersionType = Type.Integer({ minimum: 1 })

const SystemInfoType = Type.Object({
  hdb_version: Type.Optional(Type.String()),
  node_version: Type.Optional(Type.String()),
  platform: Type.Optional(Type.String()),
})

/** Not in HarperDB: a timestamp, or '' for lower than any. */
const RevisionType = Type.String({ pattern: '^([0-9a-f]{12}-[0-9a-f]{6}-.+)?$' })

/** Not in HarperDB: a register as its receiver holds it. */
const RegisterEntryType = Type.Intersect([
  SubscriptionType,
  Type.Object({
    removed: Type.Boolean(),
    revision: RevisionType,
    /** When the receiver's subscription was made, in ms since 1970: it begins there if it has no position. */
    since: Type.Optional(Type.Number({ minimum: 0 })),
    /** The request that `start_time` and `copy` belong to: the receiver may have met it before. */
    start_id: Type.Optional(RevisionType),
    /** In an answer: why the sender cannot accept this subscription now. */
    refused: Type.Optional(Type.String()),
  }),
])

const BytesType = Type.Unsafe<Uint8Array>(
  Type.Refine(
    Type.Unknown(),
    (value) => value instanceof Uint8Array,
    () => 'must be bytes',
  ),
)

/** Not in HarperDB: a request about the rows of a table. Keys are encoded; replication/copy/row-messages.ts has the meaning. */
const RowsType = Type.Object({
  database: NameType,
  table: NameType,
  after: Type.Optional(BytesType),
  keys: Type.Optional(BytesType),
  limit: Type.Optional(Type.Integer({ minimum: 1 })),
  maxBytes: Type.Optional(Type.Integer({ minimum: 1 })),
  piece: Type.Optional(Type.Integer({ minimum: 0 })),
  version: Type.Optional(Type.String({ maxLength: 64 })),
  buckets: Type.Optional(Type.Integer({ minimum: 1 })),
  selected: Type.Optional(BytesType),
  cut: Type.Optional(Type.String({ maxLength: 512 })),
  values: Type.Optional(Type.Boolean()),
})

const CountType = Type.Integer({ minimum: 0 })
/** Per request; enmesh sends 500. */
const MAX_POSITIONS = 10_000
const TableType = Type.Object({ database: NameType, table: NameType })

/** Not in HarperDB: how far a subscriber has applied tables of the receiver. replication/positions/position-report.ts has the meaning. */
const PositionsType = Type.Object({
  instance: NameType,
  order: CountType,
  tables: Type.Array(
    Type.Object({
      ...TableType.properties,
      epoch: Type.String({ maxLength: 1_000 }),
      sequence: CountType,
      index: CountType,
      missing: Type.Optional(
        Type.Array(Type.Tuple([Type.String({ maxLength: 1_000 }), CountType, CountType]), { maxItems: MAX_POSITIONS }),
      ),
      copying: Type.Optional(Type.Array(Type.Tuple([CountType, CountType]), { maxItems: MAX_POSITIONS })),
      isCopying: Type.Optional(Type.Boolean()),
      paused: Type.Optional(Type.Boolean()),
      session: Type.Optional(Type.String({ maxLength: 1_000 })),
    }),
    { maxItems: MAX_POSITIONS },
  ),
})

const FlowType = Type.Object({
  tables: CountType,
  /** Transactions applied so far by the subscriber, as the sum of their running numbers. */
  applied: CountType,
  lag: CountType,
  lagSeconds: Type.Number({ minimum: 0 }),
})
/** Per answer. */
const MAX_LINKS = 10_000
/** Not in HarperDB: how the sender replicates with one of its peers. cluster/peer-links.ts has the meaning. */
const LinkType = Type.Object({
  node: NameType,
  up: Type.Boolean(),
  received: Type.Optional(Type.Object({ ...FlowType.properties, state: Type.String({ maxLength: 32 }) })),
  sent: Type.Optional(FlowType),
})

const RequestType = Type.Object({
  operation: OperationType,
  v: Type.Optional(VersionType),
  node_name: Type.Optional(NameType),
  subscriptions: Type.Optional(Type.Array(SubscriptionType, { maxItems: MAX_SUBSCRIPTIONS })),
  system_info: Type.Optional(SystemInfoType),
  /** Not in HarperDB: higher than the revisions of the subscriptions to change. */
  revision: Type.Optional(RevisionType),
  entries: Type.Optional(Type.Array(RegisterEntryType, { maxItems: MAX_SUBSCRIPTIONS })),
  /** Not in HarperDB: the table keys that a comparison covers; `from` is inclusive, `to` exclusive. */
  range: Type.Optional(Type.Object({ from: Type.String(), to: Type.Optional(Type.String()) })),
  /** Not in HarperDB: the request names all subscriptions; others are removed. */
  replace: Type.Optional(Type.Boolean()),
  rows: Type.Optional(RowsType),
  positions: Type.Optional(PositionsType),
  /** Not in HarperDB: the receiver reports its positions in these tables at once. */
  tables: Type.Optional(Type.Array(TableType, { maxItems: MAX_POSITIONS })),
})

const ResponseType = Type.Object({
  status: Type.String(),
  v: Type.Optional(VersionType),
  message: Type.Unknown(),
  system_info: Type.Optional(SystemInfoType),
})

const StatusType = Type.Object({
  uptime: Type.Optional(Type.String()),
  ports: Type.Optional(
    Type.Object({ clustering: Type.Optional(Type.Number()), operations_api: Type.Optional(Type.Number()) }),
  ),
  system_info: Type.Optional(SystemInfoType),
})

/** What a heartbeat of any version has. */
const HeartbeatHeadType = Type.Object({
  node: NameType,
  /** The oldest and the current version that the node speaks. */
  versions: Type.Optional(Type.Tuple([VersionType, VersionType])),
})

const HeartbeatType = Type.Object({
  ...HeartbeatHeadType.properties,
  /** Random for each process: a copied directory does not copy it. */
  instance: NameType,
  /** When the process started, in ms since 1970. */
  started: Type.Optional(Type.Number()),
  /** Wall time of the node, in ms since 1970. */
  time: Type.Optional(Type.Number({ minimum: 0 })),
  /** Relayed by a third node to a process with the same name that does not receive the original. */
  relayed: Type.Optional(Type.Boolean()),
  /** Session of the server that holds the node's streams. */
  session: Type.String({ maxLength: 1_000 }),
  /** Database, table, epoch, last sequence and last index of each stream that grew recently. */
  streams: Type.Array(
    Type.Tuple([
      Type.String(),
      Type.String(),
      Type.String(),
      Type.Integer({ minimum: 0 }),
      Type.Integer({ minimum: 0 }),
    ]),
    { maxItems: MAX_STREAMS },
  ),
})

export type WireSubscription = Type.Static<typeof SubscriptionType>
export type RegisterEntry = Type.Static<typeof RegisterEntryType>
export type PeerRequest = Type.Static<typeof RequestType>
export type RowsPeerRequest = Type.Static<typeof RowsType> & { operation: string }
export type PositionsPeerRequest = Pick<PeerRequest, 'operation' | 'positions' | 'tables'> & { node: string }
export type PeerResponse = Type.Static<typeof ResponseType>
export type PeerLink = Type.Static<typeof LinkType>
export type SystemInfo = Type.Static<typeof SystemInfoType>
export type StatusMessage = Type.Static<typeof StatusType>
export type Heartbeat = Type.Static<typeof HeartbeatType>
type HeartbeatHead = Type.Static<typeof HeartbeatHeadType>

const packr = new Packr({ useRecords: false, mapsAsObjects: true, structuredClone: false })
/** As HarperDB packs what it sends, which every node reads. */
const recordPackr = new Packr({ structuredClone: false })

export const encode = (value: PeerRequest | PeerResponse | Heartbeat): Uint8Array => packr.pack(value)
/** A request or an answer to a node that may be one of HarperDB. */
export const encodeForHarper = (value: PeerRequest | PeerResponse): Uint8Array => recordPackr.pack(value)

/** Returns a function that returns undefined for an invalid value. */
const createReader = <T>(validator: { Check(value: unknown): boolean }) => {
  return (value: unknown): T | undefined => (validator.Check(value) ? (value as T) : undefined)
}
/** Unpacked, a message takes several times as much memory. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024

const createDecoder = <T>(read: (value: unknown) => T | undefined, maxValues = MAX_DECODED_VALUES) => {
  return (data: Uint8Array): T | undefined => {
    if (data.byteLength > MAX_MESSAGE_BYTES || checkDecodeLimits(data, maxValues)) return undefined
    try {
      return read(packr.unpack(data))
    } catch {
      return undefined
    }
  }
}

export const decodeRequest = createDecoder(createReader<PeerRequest>(Compile(RequestType)))
/** An answer may hold the attributes of all tables of a large node. */
export const decodeResponse = createDecoder(createReader<PeerResponse>(Compile(ResponseType)), 4 * MAX_DECODED_VALUES)
const heartbeatHeadValidator = Compile(HeartbeatHeadType)
const heartbeatValidator = Compile(HeartbeatType)
/** `heartbeat` is absent when only the head is readable, for example because the node speaks a later version. */
export const decodeHeartbeat = createDecoder((value): { head: HeartbeatHead; heartbeat?: Heartbeat } | undefined => {
  if (!heartbeatHeadValidator.Check(value)) return undefined
  const head = value as HeartbeatHead
  return heartbeatValidator.Check(value) ? { head, heartbeat: value as Heartbeat } : { head }
})
export const readStatus = createReader<StatusMessage>(Compile(StatusType))
export const readLinks = createReader<PeerLink[]>(Compile(Type.Array(LinkType, { maxItems: MAX_LINKS })))
export const readEntries = createReader<RegisterEntry[]>(Compile(Type.Array(RegisterEntryType)))
/** The sender of a request about rows, and the request. Throws when one of them is missing. */
export function rowsRequestOf({ operation, node_name: node, rows }: PeerRequest): [string, RowsPeerRequest] {
  if (!node) throw new Error("'node_name' is required")
  if (!rows) throw new Error("'rows' is required")
  return [node, { operation, ...rows }]
}

/** Throws when the sender is missing. */
export function positionsRequestOf({
  operation,
  node_name: node,
  positions,
  tables,
}: PeerRequest): PositionsPeerRequest {
  if (!node) throw new Error("'node_name' is required")
  return { operation, node, ...(positions && { positions }), ...(tables && { tables }) }
}

const readRefused = createReader<{ refused: Type.Static<typeof TableType>[] }>(
  Compile(Type.Object({ refused: Type.Array(TableType, { maxItems: MAX_POSITIONS }) })),
)
/** Of the answer to a report: the tables that the node does not publish to the sender. Undefined if it is invalid. */
export const readRefusedTables = (value: unknown) => readRefused(value)?.refused
