// The port to the network between nodes: requests, announcements, and one append-only stream a table on each node.
// Names are nodes and tables; subjects, domains and servers are the business of whoever implements this.

import type { RemoteTable } from '../host/host.ts'
import type { Route, Routes } from '../manifest/manifest.ts'
import type { NameCheck } from '../manifest/names.ts'
import type { Timers } from '../util/timers.ts'

export type { NameCheck, RemoteTable, Route, Routes }
export type TableName = { database: string; table: string }

/**
 * `connecting`: not there yet; `connected`: own streams can be written and other nodes asked; `disconnected`: neither, being
 * repaired; `stopped`: closed.
 */
export type MeshState = 'connecting' | 'connected' | 'disconnected' | 'stopped'

export type MeshErrorCode =
  /** Nobody of that name listens. */
  | 'no_responders'
  | 'timeout'
  | 'aborted'
  /** Our own connection is down. */
  | 'disconnected'
  /** No such stream. */
  | 'not_found'
  /** The stream's last sequence is not the expected one. */
  | 'wrong_sequence'
  | 'too_large'
  /** A reader that cannot go on; open another. */
  | 'reader_lost'
  /** Anything else the other side answered. */
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

/** What a stream stores. */
export type Message = { data: Uint8Array; headers: Headers }

/** What a stream's last message is to be: its sequence, 0 for none, and its `Nats-Msg-Id` header. */
export type ExpectedLast = { sequence: number; id?: string }

/** A stored message. `delivery` numbers what this reader was sent, from 1: a jump in it is a loss on the way, a jump in `sequence` alone a hole in the stream. */
export type Entry = Message & { sequence: number; delivery: number; time: number }

export type StreamState = {
  /** Free text of the stream's owner. */
  description: string
  /** When this stream was created, as the store tells it; changes when it is made anew. */
  created: string
  /** The oldest sequence still there; last + 1 when empty. */
  firstSequence: number
  /** The sequence given last, 0 when none ever was. */
  lastSequence: number
  messages: number
}

/** What a stream keeps at most: age in seconds, size in bytes, number of messages; absent: no limit. What is oldest goes first. */
export type StreamLimits = {
  readonly maxAge?: number | undefined
  readonly maxBytes?: number | undefined
  readonly maxMsgs?: number | undefined
}

export interface Reader {
  /** At least one entry, at most `maxMessages`; waits for as long as it takes. Rejects with `reader_lost` once it cannot go on or is closed. */
  next(): Promise<Entry[]>
  close(): void
}

/** A member of the network as `cluster_network` shows it. */
export type Member = { node: string; responseTime: number; connectedNodes: string[]; routes: Route[] }

/** What the network tells whoever opened it. None of these may throw. */
export type MeshListener = {
  /** The same state again when the reason is another; `connected` with a reason: own streams can be written, other nodes not reached. */
  state(state: MeshState, reason?: string): void
  /** Somebody was kept out, or we were: wrong credentials, a second node of one name, a bad certificate. */
  rejected(peer: string, reason: string): void
  /** The way to the other nodes was made anew: what was asked of them before is forgotten. */
  linked(): void
}

export type RequestOptions = { timeout: number; signal?: AbortSignal | undefined }

export interface Mesh {
  readonly state: MeshState
  /** Another text whenever the server of our streams was started anew: what others asked of it before is forgotten. */
  readonly session: string
  /** Largest message that a stream can store, in bytes, headers included. */
  readonly maxPayload: number
  /** The time that everybody who uses this mesh goes by. */
  readonly timers: Timers

  /** Names that this network cannot carry although they are valid; absent: it carries all. May be called before `open`, and rejects as that does. */
  nameCheck?(): Promise<NameCheck>
  /** Resolves when connected. Rejects with a ClusterError when that cannot be: missing binary, taken port. */
  open(node: string, routes: Routes, listener: MeshListener): Promise<void>
  /** Idempotent; ends everything this mesh started. */
  close(): Promise<void>
  /** Where there is a password: asks for it again. Resolves when another one is in effect. */
  rotatePassword?(): Promise<void>
  /** Resolves when the new routes are in effect. */
  setRoutes(routes: Routes): Promise<void>

  /** Ask a node. Rejects with no_responders, timeout, aborted or disconnected. */
  request(node: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array>
  /** Answer what other nodes ask; the latest handler alone does. */
  serve(handler: (data: Uint8Array) => Promise<Uint8Array>): void
  /** Tell every node, without an answer; lost when disconnected. */
  announce(data: Uint8Array): void
  listen(handler: (data: Uint8Array) => void): void

  /**
   * Of each of our own streams, those there are and those to come; none until it is called, which may be before `open`.
   * Resolves when all have them, or at once while disconnected: then they get them when it is connected again.
   */
  setLimits(limits: StreamLimits): Promise<void>
  /** Our own stream of this table, created with `description` when missing. */
  ensureStream(table: TableName, description: string): Promise<StreamState>
  describeStream(table: TableName, description: string): Promise<void>
  /**
   * Append to our own stream if its last message is the expected one, by sequence and, where given, by id. `done` is called once: with the sequence, or with the
   * error when it is known that, or not known whether, the message was stored. Never throws. Calls keep their order.
   */
  append(
    table: TableName,
    message: Message,
    expected: ExpectedLast,
    done: (error: MeshError | undefined, sequence: number) => void,
  ): void
  /** Remove all but the last `keep` messages, or all before `before`, or all. No stream: nothing happens. */
  purgeStream(table: TableName, options: { keep?: number | undefined; before?: number | undefined }): Promise<void>

  /** State of any node's stream, undefined when that node has none of this table. Rejects as `request`. */
  streamState(source: RemoteTable, options: RequestOptions): Promise<StreamState | undefined>
  /** The sequence of the first message at or after `time` (ms since 1970); last + 1 when there is none. */
  sequenceAt(source: RemoteTable, time: number, options: RequestOptions): Promise<number>
  /** Read a stream from `sequence` on, holding at most `maxMessages` unread. Rejects as `request`, or not_found. */
  read(source: RemoteTable, sequence: number, options: RequestOptions & { maxMessages: number }): Promise<Reader>

  /** Every node whose hub answers within `timeout`, ours first, then by name. */
  members(options: RequestOptions): Promise<Member[]>
}
