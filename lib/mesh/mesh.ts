// The port to the network between nodes: requests, announcements, and one append-only stream per table on each node.
// Its names are nodes and tables; subjects, domains and servers belong to the implementation.

import type { RemoteTable, TableName } from '../host/host.ts'
import type { Route, Routes } from '../manifest/manifest.ts'
import type { NameCheck } from '../manifest/names.ts'
import type { Timers } from '../util/timers.ts'
import type { ReadBudget } from './read-budget.ts'

export type { NameCheck, RemoteTable, Route, Routes, TableName }

/**
 * `connecting`: opening; `connected`: local streams are writable and remote nodes can be asked; `disconnected`: neither, recovering;
 * `stopped`: closed.
 */
export type MeshState = 'connecting' | 'connected' | 'disconnected' | 'stopped'

/** As the manager shows it: `isolated` if local streams are writable and no node of the manifest is reached. */
export type ClusterMeshState = MeshState | 'isolated'

export type MeshErrorCode =
  /** No node of that name listens. */
  | 'no_responders'
  | 'timeout'
  | 'aborted'
  /** The local connection is down. */
  | 'disconnected'
  /** No such stream. */
  | 'not_found'
  /** The stream's last sequence is not the expected one. */
  | 'wrong_sequence'
  | 'too_large'
  /** The reader cannot continue; open a new one. */
  | 'reader_lost'
  /** Any other error that the remote side answered. */
  | 'rejected'

export class MeshError extends Error {
  override readonly name = 'MeshError'
  readonly code: MeshErrorCode
  constructor(code: MeshErrorCode, message: string = code, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

export type Headers = Readonly<Record<string, string>>

/** A message as a stream stores it. */
export type Message = { data: Uint8Array; headers: Headers }

/** The expected last message of a stream: its sequence (0: empty stream) and its `Nats-Msg-Id` header. */
export type ExpectedLast = { sequence: number; id?: string }

/**
 * A stored message. `delivery` numbers the messages sent to this reader, from 1: a jump in it is a loss in transit, a jump in
 * `sequence` alone a hole in the stream. `time`: ms since 1970.
 */
export type Entry = Message & { sequence: number; delivery: number; time: number }

export type StreamState = {
  /** Text of the stream's owner, not interpreted by the mesh. */
  description: string
  /** Creation time as the store reports it; differs after the stream was created again. */
  created: string
  /** The oldest stored sequence; last + 1 when empty. */
  firstSequence: number
  /** The last assigned sequence; 0 when there was never a message. */
  lastSequence: number
  messages: number
}

/** Maximum age in seconds, size in bytes and number of messages of a stream; absent: no limit. The oldest messages are deleted first. */
export type StreamLimits = {
  readonly maxAge?: number | undefined
  readonly maxBytes?: number | undefined
  readonly maxMsgs?: number | undefined
}

export interface Reader {
  /** Waits without limit for at least one entry, at most `maxMessages`. The entries of the previous call count as done. Rejects `reader_lost` when the reader failed or is closed. */
  next(): Promise<Entry[]>
  close(): void
}

/** A member of the network as `cluster_network` shows it. */
export type Member = { node: string; responseTime: number; connectedNodes: string[]; routes: Route[] }

/** Callbacks of the mesh to its owner. They must not throw. */
export type MeshListener = {
  /** Also called when only the reason changes. `connected` with a reason: local streams are writable, remote nodes are not reached. */
  state(state: MeshState, reason?: string): void
  /** A connection was rejected, by this node or by the peer: wrong credentials, a duplicate node name, an invalid certificate. */
  rejected(peer: string, reason: string): void
  /** New certificates are in use; with a reason: those on disk are not usable, and the previous ones stay in use. */
  certificatesChanged?(rejection?: string): void
  /** The link to the remote nodes is a new one: their state of earlier requests is lost. */
  linked(): void
}

/**
 * What an operator should know of the local servers, which work in spite of it. `hub_failed`: the hub cannot be started.
 * `no_route_linked`: the hub has routes, and no link. `disk_low`: the disk of the streams is nearly full. `certificate_expires`: in less
 * than 14 days, or it has expired. `server_exposed`: the version of the servers has known security holes.
 */
export type MeshProblem = {
  readonly code: 'hub_failed' | 'no_route_linked' | 'disk_low' | 'certificate_expires' | 'server_exposed'
  readonly message: string
}

export type RequestOptions = { timeout: number; signal?: AbortSignal | undefined }

/**
 * `maxMessages`: unread in memory. `budget`: bytes that several readers hold together; without it, some megabytes for each. `isSilent`: the source
 * reports no positions, so the reader has to notice by itself, within seconds, that its request was lost.
 */
export type ReadOptions = RequestOptions & {
  maxMessages: number
  budget?: ReadBudget | undefined
  isSilent?: boolean | undefined
}

/** Which nodes of HarperDB may read which local streams. */
export type ReaderAdmission = {
  /**
   * The subscriptions with the node: it may read the tables with `publish`. The same object while nothing changes. `isAsked`: the node is only
   * asked to agree. Of two with one table the later one counts.
   */
  subscriptionsOf(node: string): readonly (TableName & { publish: boolean; isAsked?: boolean })[]
  /**
   * Where the node may begin in the stream of such a table: the first message that it can read, and the time of its subscription, in ms
   * since 1970. Undefined if it can read none. May reject.
   */
  startOf(node: string, table: TableName): Promise<{ sequence: number; since?: number | undefined } | undefined>
}

export interface Mesh {
  readonly state: MeshState
  /** Id of the current run of the local streams' server. When it changes, the server's state of earlier requests is lost. */
  readonly session: string
  /** Largest message that a stream can store, in bytes, headers included. */
  readonly maxPayload: number
  /** Version of the local servers, such as `2.10.27`; absent while none runs, and for networks without servers. */
  readonly serverVersion?: string | undefined
  /** The clock for all users of this mesh. */
  readonly timers: Timers
  /** Present problems, at most one of each code; absent: this network has none to report. */
  problems?(): readonly MeshProblem[]

  /** A check for valid names that this network cannot carry; absent: it carries all. May be called before `open`, and rejects as `open` does. */
  nameCheck?(): Promise<NameCheck>
  /**
   * Resolves when connected. Rejects with a ClusterError, for example for a missing binary or a taken port. A closed mesh can be
   * opened again.
   */
  open(node: string, routes: Routes, listener: MeshListener): Promise<void>
  /** Idempotent; ends all that this mesh started. */
  close(): Promise<void>
  /**
   * Another mesh of the same network, to watch it under another name while this one is closed. Absent: a node whose name another
   * process uses cannot see when that one is gone, and tries to take part again from time to time.
   */
  observer?(): Mesh
  /** For networks with a password: reads it again. Resolves when a changed one is in effect. */
  rotatePassword?(): Promise<void>
  /** Resolves when the new routes are in effect. */
  setRoutes(routes: Routes): Promise<void>

  /** Sends a request to a node. Rejects no_responders, timeout, aborted or disconnected. */
  request(node: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array>
  /** Answers requests of remote nodes; a new handler replaces the previous one. */
  serve(handler: (data: Uint8Array) => Promise<Uint8Array>): void
  /** Sends to every node, without an answer; lost when disconnected. */
  announce(data: Uint8Array): void
  listen(handler: (data: Uint8Array) => void): void

  /**
   * Sets the limits of all local streams, present and future; without a call there are no limits. May be called before `open`. Resolves
   * when all streams have them; while disconnected at once, and the streams get them after the next connection.
   */
  setLimits(limits: StreamLimits): Promise<void>
  /** State of the local stream of this table, created with `description` when missing. */
  ensureStream(table: TableName, description: string): Promise<StreamState>
  describeStream(table: TableName, description: string): Promise<void>
  /**
   * Appends to the local stream if its last message is the expected one, by sequence and, if given, by id; without `expected` in any case.
   * Calls `done` once: with the sequence, or with an error when the message was not stored or its fate is unknown. Never throws. Calls keep
   * their order.
   */
  append(
    table: TableName,
    message: Message,
    expected: ExpectedLast | undefined,
    done: (error: MeshError | undefined, sequence: number) => void,
  ): void
  /** Removes all but the last `keep` messages, or all before `before`, or all. Does nothing without a stream. */
  purgeStream(table: TableName, options: { keep?: number | undefined; before?: number | undefined }): Promise<void>

  /** State of a stream of any node; undefined when the node has no stream of this table. Rejects as `request`. */
  streamState(source: RemoteTable, options: RequestOptions): Promise<StreamState | undefined>
  /** The sequence of the first message at or after `time` (ms since 1970); last + 1 when there is no such message. */
  sequenceAt(source: RemoteTable, time: number, options: RequestOptions): Promise<number>
  /** The stored message with this sequence; undefined when the stream does not have it. Its `delivery` is 0. Rejects as `request`. */
  messageAt(source: RemoteTable, sequence: number, options: RequestOptions): Promise<Entry | undefined>
  /** Reads a stream from `sequence` on. Rejects as `request`, or not_found. */
  read(source: RemoteTable, sequence: number, options: ReadOptions): Promise<Reader>

  /**
   * Lets nodes of HarperDB read local streams with consumers that they make themselves. Without a call none may. Call it before `open`.
   * Absent: on this network they read as all nodes do.
   */
  admitReaders?(admission: ReaderAdmission): void
  /** Removes the consumers that are not admitted any more; all of them without an admission. Rejects as `streamState`. */
  reviewReaders?(): Promise<void>

  /** Every node whose hub answers within `timeout`: the local one first, then by name. */
  members(options: RequestOptions): Promise<Member[]>
}
