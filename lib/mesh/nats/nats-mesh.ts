// The mesh port on NATS: streams and messages over the local pair of servers.

import { reasonOf } from '../../errors.ts'
import { type Logger, silentLogger } from '../../observe/logger.ts'
import { runSteps } from '../../util/run-steps.ts'
import { queueMicrotask, systemTimers } from '../../util/timers.ts'
import {
  type Entry,
  type ExpectedLast,
  type Member,
  type Mesh,
  MeshError,
  type MeshListener,
  type MeshProblem,
  type MeshState,
  type Message,
  type NameCheck,
  type Reader,
  type ReaderAdmission,
  type ReadOptions,
  type RemoteTable,
  type RequestOptions,
  type Routes,
  type StreamLimits,
  type StreamState,
  type TableName,
} from '../mesh.ts'
import { Appender } from './appender.ts'
import { findBinary } from './binary.ts'
import { MAX_PAYLOAD_BYTES, MAX_STORED_BYTES } from './configuration.ts'
import { Consumers } from './consumers.ts'
import { HarperGate, reviewHarperReaders } from './harper-gate.ts'
import { HeaderReader, parseHeaders } from './header-reader.ts'
import { JetStream } from './jetstream.ts'
import { LeafHealth } from './leaf-health.ts'
import type { LocalConnections } from './local-connections.ts'
import { unsupportedName } from './name-support.ts'
import { PullReader } from './pull-reader.ts'
import { serve } from './request-handler.ts'
import { ServerPair, type ServerPairOptions } from './server-pair.ts'
import type { ServerPairListener } from './server-pair-listener.ts'
import { serverProblems } from './server-problems.ts'

export type NatsMeshOptions = ServerPairOptions & { logger?: Logger }

const ADMIN_TIMEOUT_MS = 5_000
/** For each part. */
const CLOSE_TIMEOUT_MS = 10_000
/** Requests of remote nodes that are handled at once. */
const PENDING_REQUEST_LIMITS = { requests: 1_000, bytes: 2 * MAX_PAYLOAD_BYTES }
const HEARTBEAT_SUBJECT = 'enmesh.heartbeat'
const requestSubject = (node: string) => `${node}.__request__`

export class NatsMesh implements Mesh {
  readonly maxPayload = MAX_STORED_BYTES
  readonly timers = systemTimers
  readonly #options: NatsMeshOptions
  readonly #logger: Logger
  readonly #headers: HeaderReader
  readonly #jetStream = new JetStream((node) => this.#connections.toStreamsOf(node))
  readonly #consumers = new Consumers({
    node: () => this.#node,
    jetStream: this.#jetStream,
    mesh: () => this.#connections.mesh,
  })
  readonly #readers = new Set<PullReader>()
  #node = ''
  #state: MeshState = 'stopped'
  #listener: MeshListener | undefined
  #servers: ServerPair | undefined
  #health: LeafHealth | undefined
  #appender: Appender | undefined
  /** Why the hub cannot be started. */
  #hubFailure: string | undefined
  #limits: StreamLimits = {}
  #admission: ReaderAdmission | undefined
  /** Those of an earlier run are removed once; without an admission no others come. */
  #hasNoReaders = false
  #requestSubscription: { unsubscribe(): void } | undefined
  #closing: Promise<void> | undefined

  constructor(options: NatsMeshOptions) {
    this.#options = options
    this.#logger = options.logger ?? silentLogger
    this.#headers = new HeaderReader(this.#logger)
  }

  get state(): MeshState {
    return this.#state
  }

  get serverVersion(): string | undefined {
    return this.#servers?.version
  }

  get session(): string {
    return this.#servers?.connections.leafSession ?? ''
  }

  // --- life cycle -------------------------------------------------------------------------------------------------------

  async nameCheck(): Promise<NameCheck> {
    const { version } = await findBinary(this.#options.natsServer)
    return (name) => unsupportedName(name, version)
  }

  async open(node: string, routes: Routes, listener: MeshListener): Promise<void> {
    if (this.#state !== 'stopped') throw new MeshError('rejected', 'the mesh is open')
    this.#node = node
    this.#listener = listener
    this.#closing = undefined
    this.#hubFailure = undefined
    this.#requestSubscription = undefined
    this.#report('connecting')
    const servers = await ServerPair.open(node, this.#options, this.#logger)
    this.#servers = servers
    const health = new LeafHealth({
      node,
      storeDirectory: servers.storeDirectory,
      jetStream: this.#jetStream,
      connections: servers.connections,
      writtenTable: () => this.#appender?.writtenTable,
      replaceLeaf: (reason) => servers.replaceLeaf(reason),
      changed: (state, reason) => (state === 'up' ? this.#onLeafUp() : this.#onLeafDown(reason)),
      logger: this.#logger,
    })
    this.#health = health
    try {
      await servers.start(routes, this.#serverListener(health, listener))
      this.#appender = new Appender(servers.connections.store, node)
      this.#consumers.serve(this.#logger)
      this.#openGate(servers.connections)
      await health.started()
    } catch (error) {
      await this.close().catch(() => {})
      throw error
    }
  }

  async close(): Promise<void> {
    if (this.#state !== 'stopped') this.#closing ??= this.#close()
    await this.#closing
  }

  async #close(): Promise<void> {
    await runSteps([
      ['reporting the state', () => this.#report('stopped'), CLOSE_TIMEOUT_MS],
      ['ending the checks of the leaf', () => this.#health?.close(), CLOSE_TIMEOUT_MS],
      ['ending the readers', () => this.#failReaders('the mesh is closed'), CLOSE_TIMEOUT_MS],
      ['ending the writer', () => this.#appender?.close(), CLOSE_TIMEOUT_MS],
      // Its own steps are limited.
      ['ending the servers', () => this.#servers?.close()],
    ])
  }

  observer(): Mesh {
    return new NatsMesh(this.#options)
  }

  #serverListener(health: LeafHealth, listener: MeshListener): ServerPairListener {
    return {
      rejected: (peer, reason) => listener.rejected(peer, reason),
      certificatesChanged: (rejection) => listener.certificatesChanged?.(rejection),
      linked: () => this.#onLinked(),
      hubFailed: (reason) => {
        // The local streams are writable without a hub; remote nodes are not reached.
        this.#hubFailure = reason
        if (this.#state === 'connected') this.#report('connected', reason)
      },
      leaf: {
        prepare: () => health.prepare(),
        probe: (signal) => health.probe(signal),
        connectionChanged: (up) => {
          if (up) void health.recover()
          else health.markDown('the connection to the leaf server was lost')
        },
        logLine: (level, text) => health.onLogLine(level, text),
        died: (reason) => health.markDown(`the leaf server ended: ${reason}`),
        startFailed: (reason) => health.reportDown(reason),
        returned: () => health.returned(),
      },
    }
  }

  #report(state: MeshState, reason?: string): void {
    this.#state = state
    this.#listener?.state(state, reason)
  }

  #onLeafUp(): void {
    this.#report('connected', this.#hubFailure)
    this.#limitStreams().catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'stream limits not applied to all streams')
    })
  }

  #onLeafDown(reason: string | undefined): void {
    const wasConnected = this.#state === 'connected'
    this.#report('disconnected', reason)
    if (!wasConnected) return
    this.#appender?.fail(new MeshError('disconnected', reason))
    this.#failReaders(reason ?? 'the leaf server is down')
  }

  /** Remote servers dropped the consumers of the earlier link: all readers open again. */
  #onLinked(): void {
    if (this.#state !== 'connected') return
    this.#failReaders('the leaf server has a new link')
    this.#listener?.linked()
  }

  #failReaders(reason: string): void {
    for (const reader of [...this.#readers]) reader.fail(reason)
  }

  async setRoutes(routes: Routes): Promise<void> {
    await this.#servers?.setRoutes(routes)
  }

  async rotatePassword(): Promise<void> {
    await this.#servers?.rotatePassword()
  }

  // --- messages between nodes -------------------------------------------------------------------------------------------

  get #connections(): LocalConnections {
    if (!this.#servers) throw new MeshError('disconnected', 'the mesh is not open')
    return this.#servers.connections
  }

  async request(node: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    return (await this.#connections.mesh.request(requestSubject(node), data, options)).data
  }

  serve(handler: (data: Uint8Array) => Promise<Uint8Array>): void {
    // Without a queue group: a hub (2.9.10) that loses a route during a configuration reload keeps the route's group members and
    // sends every second request to the dead one.
    const before = this.#requestSubscription
    this.#requestSubscription = serve({
      connection: this.#connections.mesh,
      subject: requestSubject(this.#node),
      handler,
      limits: PENDING_REQUEST_LIMITS,
      logger: this.#logger,
    })
    // Last, so that there is a subscription at any moment.
    before?.unsubscribe()
  }

  announce(data: Uint8Array): void {
    if (this.#state === 'connected') this.#connections.mesh.publish(HEARTBEAT_SUBJECT, data)
  }

  listen(handler: (data: Uint8Array) => void): void {
    this.#connections.mesh.subscribe(HEARTBEAT_SUBJECT, (message) => handler(message.data))
  }

  members(options: RequestOptions): Promise<Member[]> {
    if (!this.#servers) throw new MeshError('disconnected', 'the mesh is not open')
    return this.#servers.members(options)
  }

  // --- nodes of HarperDB --------------------------------------------------------------------------------------------------

  admitReaders(admission: ReaderAdmission): void {
    this.#admission = admission
  }

  async reviewReaders(): Promise<void> {
    if (this.#state !== 'connected') throw new MeshError('disconnected', 'the local leaf server is not ready')
    if (this.#hasNoReaders) return
    await reviewHarperReaders(this.#node, this.#jetStream, this.#admission, this.#logger)
    this.#hasNoReaders = this.#admission === undefined
  }

  #openGate({ mesh, store }: LocalConnections): void {
    if (!this.#admission) return
    const parts = { node: this.#node, jetStream: this.#jetStream, mesh, store, logger: this.#logger }
    new HarperGate({ ...parts, admission: this.#admission }).open()
  }

  // --- local streams ----------------------------------------------------------------------------------------------------

  /** The connection is up before the store is: until then a request would get no answer. */
  #localStream(table: TableName): RemoteTable {
    if (this.#state !== 'connected') throw new MeshError('disconnected', 'the local leaf server is not ready')
    return { node: this.#node, ...table }
  }

  async setLimits(limits: StreamLimits): Promise<void> {
    this.#limits = limits
    await this.#limitStreams()
  }

  async #limitStreams(): Promise<void> {
    if (this.#state !== 'connected') return
    await this.#jetStream.limitStreams(this.#node, this.#limits, { timeout: ADMIN_TIMEOUT_MS })
  }

  async ensureStream(table: TableName, description: string): Promise<StreamState> {
    const source = this.#localStream(table)
    const options = { timeout: ADMIN_TIMEOUT_MS }
    const state = await this.#jetStream.ensureStream(source, description, this.#limits, options)
    await this.#health?.verify(source, state, options)
    return state
  }

  async describeStream(table: TableName, description: string): Promise<void> {
    await this.#jetStream.describeStream(this.#localStream(table), description, { timeout: ADMIN_TIMEOUT_MS })
  }

  append(
    table: TableName,
    message: Message,
    expected: ExpectedLast | undefined,
    done: (error: MeshError | undefined, sequence: number) => void,
  ): void {
    if (!this.#appender || this.#state !== 'connected')
      return queueMicrotask(() => done(new MeshError('disconnected'), 0))
    if (message.data.byteLength > MAX_STORED_BYTES) return queueMicrotask(() => done(new MeshError('too_large'), 0))
    this.#appender.append(table, message, expected, done)
  }

  async purgeStream(table: TableName, { keep, before }: { keep?: number; before?: number }): Promise<void> {
    const options = { timeout: ADMIN_TIMEOUT_MS }
    const state = await this.#jetStream.stream(this.#localStream(table), options)
    if (!state) return
    // With a sequence beyond the end, 2.9 gives the next message another number than its last sequence implies.
    const seq = before === undefined ? undefined : Math.min(before, state.lastSequence + 1)
    // The server reads 1 as no sequence at all and would remove all messages.
    if (seq !== undefined && seq <= 1) return
    const body = { ...(keep !== undefined && keep > 0 ? { keep } : {}), ...(seq === undefined ? {} : { seq }) }
    await this.#jetStream.purge(this.#localStream(table), body, options)
  }

  // --- streams of any node ----------------------------------------------------------------------------------------------

  streamState(source: RemoteTable, options: RequestOptions): Promise<StreamState | undefined> {
    return this.#jetStream.stream(source, options)
  }

  async sequenceAt(source: RemoteTable, time: number, options: RequestOptions): Promise<number> {
    const { name, before } = await this.#consumers.create(source, { time }, options)
    this.#jetStream.deleteConsumer(source, name, options).catch(() => {})
    return before + 1
  }

  async messageAt(source: RemoteTable, sequence: number, options: RequestOptions): Promise<Entry | undefined> {
    const message = await this.#jetStream.message(source, sequence, options)
    if (!message) return undefined
    const { hdrs = '', data = '', time } = message
    const headers = parseHeaders(Buffer.from(hdrs, 'base64'))
    return { headers, data: Buffer.from(data, 'base64'), sequence, time: Date.parse(time), delivery: 0 }
  }

  async read(source: RemoteTable, sequence: number, options: ReadOptions): Promise<Reader> {
    const access = {
      connection: this.#connections.toStreamsOf(source.node),
      jetStream: this.#jetStream,
      consumers: this.#consumers,
      headers: this.#headers,
    }
    const reader = await PullReader.open(access, source, sequence, options, this.#onReaderClosed)
    if (!reader.failed) this.#readers.add(reader)
    return reader
  }

  readonly #onReaderClosed = (reader: PullReader) => void this.#readers.delete(reader)

  // --- inspection -------------------------------------------------------------------------------------------------------

  problems(): readonly MeshProblem[] {
    return this.#servers ? serverProblems({ ...this.#servers.facts, lowDisk: this.#health?.lowDisk }) : []
  }

  /** Process ids of the two local servers, for tests that kill them. */
  get pids(): { hub: number | undefined; leaf: number | undefined } {
    return this.#servers?.pids ?? { hub: undefined, leaf: undefined }
  }
}
