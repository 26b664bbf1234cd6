// The mesh on NATS: a hub and a leaf of our own, our connections to them, and the streams on the leaf.

import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../../errors.ts'
import { type Logger, silentLogger } from '../../observe/logger.ts'
import { ensurePrivateDirectory } from '../../util/private-directory.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { systemTimers } from '../../util/timers.ts'
import {
  type ExpectedLast,
  type Member,
  type Mesh,
  MeshError,
  type MeshListener,
  type MeshState,
  type Message,
  type NameCheck,
  type Reader,
  type RemoteTable,
  type RequestOptions,
  type Route,
  type Routes,
  type StreamLimits,
  type StreamState,
  type TableName,
} from '../mesh.ts'
import { ExposureReport } from './advisories.ts'
import { Appender } from './appender.ts'
import { findBinary } from './binary.ts'
import { Certificates } from './certificates.ts'
import {
  address,
  adminOf,
  hubConfiguration,
  hubName,
  leafConfiguration,
  leafName,
  localHubRoute,
  MAX_PAYLOAD_BYTES,
  MAX_STORED_BYTES,
  meshUserOf,
  type ServerSettings,
} from './configuration.ts'
import { Connection, parseJson } from './connection.ts'
import { Consumers } from './consumers.ts'
import { FailBack } from './fail-back.ts'
import { HubRoutes } from './hub-routes.ts'
import { JetStream, streamName, subjectOf } from './jetstream.ts'
import { Links } from './links.ts'
import { LogWatch } from './log-watch.ts'
import { members } from './members.ts'
import { unsupportedName } from './name-support.ts'
import { PullReader } from './pull-reader.ts'
import { serve } from './request-handler.ts'
import { type Configuration, NatsServer } from './server.ts'
import {
  checkStore,
  diskFullReason,
  dropIndexes,
  findStreamFault,
  isStoreError,
  moveDamagedStream,
} from './store-health.ts'
import { ignoredSettings, isAtLeast, versionText } from './versions.ts'

export type NatsMeshOptions = Omit<ServerSettings, 'node' | 'storeDirectory' | 'password'> & {
  /** Where the servers' configuration and, unless `storeDirectory` is set, the leaf's store lie. */
  directory: string
  storeDirectory?: string | undefined
  password(): Promise<string>
  natsServer?: string | undefined
  /** Variables for both servers, beside PATH. */
  serverEnvironment?: Readonly<Record<string, string>> | undefined
  logger?: Logger
}

const ADMIN_TIMEOUT_MS = 5_000
/** ms that `open` waits for the leaf to be linked with its hub: without that the node runs, alone. */
const LINK_TIMEOUT_MS = 3_000
const PROBE_TIMEOUT_MS = 2_000
/** ms between two looks at a leaf that is there and not yet fit for use. */
const RECOVERY_INTERVAL_MS = 20
/** The same while its disk is full. */
const DISK_FULL_INTERVAL_MS = 500
/** What other nodes may ask of us at once. */
const PENDING_REQUEST_LIMITS = { requests: 1_000, bytes: 2 * MAX_PAYLOAD_BYTES }
const portKeys = {
  cluster: 'clustering.hubServer.cluster.network.port',
  leafNodes: 'clustering.hubServer.leafNodes.network.port',
  hub: 'clustering.hubServer.network.port',
  leaf: 'clustering.leafServer.network.port',
} as const

export class NatsMesh implements Mesh {
  readonly maxPayload = MAX_STORED_BYTES
  readonly timers = systemTimers
  readonly #options: NatsMeshOptions
  readonly #logger: Logger
  readonly #failBack: FailBack
  readonly #jetStream = new JetStream((node) => this.#connectionTo(node))
  readonly #consumers = new Consumers({
    node: () => this.#node,
    jetStream: this.#jetStream,
    mesh: () => this.#connected(this.#meshConnection),
  })
  readonly #readers = new Set<PullReader>()
  #node = ''
  #routes: Routes = { hub: [], leaf: [] }
  #state: MeshState = 'stopped'
  #reason: string | undefined
  /** Why the hub cannot be started, while that is so. */
  #hubFailure: string | undefined
  #listener: MeshListener | undefined
  readonly #exposure: ExposureReport
  #settings: ServerSettings | undefined
  #certificates: Certificates | undefined
  #hub: NatsServer | undefined
  #leaf: NatsServer | undefined
  #hubRoutes: HubRoutes | undefined
  #hubConnection: Connection | undefined
  /** Both to our leaf: to our streams, and to other nodes. */
  #storeConnection: Connection | undefined
  #meshConnection: Connection | undefined
  #appender: Appender | undefined
  #log: LogWatch | undefined
  #limits: StreamLimits = {}
  #recovering = false
  /** The leaf's store is not what the leaf believes: its next start is to find out what is there. */
  #suspect = false
  /** By stream, the session in which it was last found sound, or at fault; and names of those that are to be set aside. */
  readonly #verified = new Map<string, string>()
  readonly #faulty = new Map<string, string>()
  readonly #damaged = new Set<string>()
  #requestSubscription: { unsubscribe(): void } | undefined
  /** Route changes one after the other. */
  readonly #routeChanges = new SerialQueue()

  constructor(options: NatsMeshOptions) {
    this.#options = options
    this.#logger = options.logger ?? silentLogger
    this.#failBack = new FailBack({
      home: () => localHubRoute(this.#settings!),
      remote: () => this.#log?.leafRemote,
      isHubUp: () => this.#state !== 'stopped' && this.#hubFailure === undefined,
      restart: () => this.#restartLeaf(),
      logger: this.#logger,
    })
    this.#exposure = new ExposureReport(this.#logger)
  }

  get state(): MeshState {
    return this.#state
  }

  get session(): string {
    return this.#storeConnection?.serverId ?? ''
  }

  // --- life -------------------------------------------------------------------------------------------------------------

  async nameCheck(): Promise<NameCheck> {
    const { version } = await findBinary(this.#options.natsServer)
    return (name) => unsupportedName(name, version)
  }

  async open(node: string, routes: Routes, listener: MeshListener): Promise<void> {
    this.#node = node
    this.#routes = routes
    this.#listener = listener
    this.#setState('connecting')
    const { version } = await findBinary(this.#options.natsServer)
    for (const { key, since } of ignoredSettings(version, this.#options))
      this.#logger.warn(
        { key, version: versionText(version), since },
        'this version of nats-server ignores a configuration key',
      )
    const { directory, storeDirectory = join(directory, 'leaf') } = this.#options
    await ensurePrivateDirectory(directory)
    await ensurePrivateDirectory(storeDirectory)
    this.#settings = { ...this.#options, node, storeDirectory, password: await this.#options.password() }
    const { tls } = this.#settings
    if (tls)
      this.#certificates = await Certificates.open({
        tls,
        logger: this.#logger,
        replaced: () => this.#reloadCertificates(),
      })
    let linked = () => {}
    const firstLink = new Promise<void>((resolve) => {
      linked = resolve
    })
    this.#log = new LogWatch(
      (peer, reason) => listener.rejected(peer, reason),
      () => {
        linked()
        this.#onLinked()
      },
      this.#logger,
    )
    this.#hub = this.#server('hub', (signal) => this.#probeHub(signal))
    this.#leaf = this.#server('leaf', (signal) => this.#probeLeaf(signal))
    const stopped = () => this.#state === 'stopped'
    const links = new Links({
      node,
      connection: () => this.#connected(this.#meshConnection),
      members: (options) => this.members(options),
      stopped,
      logger: this.#logger,
    })
    this.#hubRoutes = new HubRoutes({
      hub: this.#hub,
      links,
      configuration: (desired) => this.#hubText(desired),
      loadTime: (signal) => this.#hubLoadTime(signal),
      logger: this.#logger,
      stopped,
    })
    try {
      // The hub first: a leaf that finds none tries again only a second later.
      await this.#hub.start(this.#hubText(routes.hub))
      await this.#leaf.start(this.#leafText())
      await Promise.race([firstLink, delay(LINK_TIMEOUT_MS, undefined, { ref: false })])
      this.#appender = new Appender(this.#connected(this.#storeConnection), node)
      links.serve()
      this.#consumers.serve(this.#logger)
    } catch (error) {
      await this.close()
      throw error
    }
    // On a full disk this node runs, and cannot write.
    const full = await diskFullReason(this.#settings.storeDirectory)
    if (!full) return this.#onConnected()
    this.#setState('disconnected', full)
    void this.#recoverLeaf()
  }

  async close(): Promise<void> {
    if (this.#state === 'stopped') return
    this.#setState('stopped')
    this.#failBack.close()
    this.#certificates?.close()
    for (const reader of this.#readers) reader.fail('the mesh is closed')
    this.#appender?.close()
    await Promise.all([this.#hubConnection, this.#storeConnection, this.#meshConnection].map((each) => each?.close()))
    // The leaf first: it would look for another hub.
    await this.#leaf?.stop()
    await this.#hub?.stop()
  }

  #setState(state: MeshState, reason?: string): void {
    if (state !== this.#state) this.#report(state, reason)
  }

  #report(state: MeshState, reason?: string): void {
    this.#state = state
    this.#reason = reason
    this.#listener?.state(state, reason)
  }

  #server(kind: 'hub' | 'leaf', probe: (signal: AbortSignal) => Promise<void>): NatsServer {
    const { directory, ports } = this.#options
    return new NatsServer({
      kind,
      probe,
      findBinary: () => findBinary(this.#options.natsServer),
      environment: this.#options.serverEnvironment,
      prepare: async () => {
        if (kind === 'leaf' && this.#suspect) await this.#repairStore(this.#settings!.storeDirectory)
      },
      configFile: join(directory, `${kind}.json`),
      portKey: (port) =>
        Object.entries(portKeys).find(([name]) => ports[name as keyof typeof ports] === port)?.[1] ?? 'unknown',
      logger: this.#logger,
      events: {
        // Once we end both, one may find the other's connection gone: no news to anybody.
        line: (level, text) => {
          this.#log?.line(kind, this.#state === 'stopped' ? 'INF' : level, text)
          if (kind === 'leaf' && isStoreError(level, text)) this.#markSuspect(text)
        },
        died: (reason) => {
          if (kind === 'leaf') this.#leafDown(`the leaf server ended: ${reason}`)
        },
        failed: (reason) => {
          if (kind === 'leaf') this.#reportDown(reason)
          else this.#reportHubFailure(`the hub server cannot be started: ${reason}`)
        },
        returned: () => {
          this.#alignVersions()
          if (kind === 'hub') {
            this.#reportHubFailure(undefined)
            return this.#failBack.schedule()
          }
          this.#suspect = false
          void this.#recoverLeaf()
        },
      },
    })
  }

  #connect(port: number, user: string, onChange: (up: boolean) => void): Promise<Connection> {
    const password = () => this.#settings!.password
    return Connection.open({ port, user, password, name: `enmesh ${this.#node}`, onChange })
  }

  async #probeHub(signal: AbortSignal): Promise<void> {
    const { ports, user } = this.#settings!
    this.#hubConnection ??= await this.#connect(ports.hub, adminOf(user), () => {})
    await this.#hubLoadTime(signal)
  }

  async #probeLeaf(signal: AbortSignal): Promise<void> {
    const { ports, user } = this.#settings!
    const changed = (up: boolean) => {
      if (!up) this.#leafDown('our connection to the leaf server was lost')
      else if (this.#appender) this.#recoverLeaf()
    }
    this.#storeConnection ??= await this.#connect(ports.leaf, user, changed)
    this.#meshConnection ??= await this.#connect(ports.leaf, meshUserOf(user), changed)
    await this.#checkStore({ timeout: PROBE_TIMEOUT_MS, signal })
    if (this.#state !== 'connected') return
    const full = await diskFullReason(this.#settings!.storeDirectory)
    if (!full) return
    // Not ended: others may go on reading what it has.
    this.#leafDown(full)
    void this.#recoverLeaf()
  }

  #markSuspect(reason: string): void {
    if (this.#state === 'stopped') return
    this.#suspect = true
    this.#leaf?.replace(reason)
  }

  async #repairStore(directory: string): Promise<void> {
    await dropIndexes(directory)
    for (const stream of this.#damaged) {
      this.#logger.error({ stream, directory }, 'a stream is damaged beyond repair: it is set aside, and begun anew')
      await moveDamagedStream(directory, stream).catch((error) =>
        this.#logger.error({ stream, reason: reasonOf(error) }, 'it could not be'),
      )
    }
    this.#damaged.clear()
  }

  async #checkStore(options: RequestOptions): Promise<void> {
    this.#connected(this.#meshConnection)
    await checkStore(this.#jetStream, this.#node, this.#appender?.writtenTable, options)
  }

  #leafDown(reason: string): void {
    if (this.#state !== 'connected') return
    this.#setState('disconnected', reason)
    this.#appender?.fail(new MeshError('disconnected', reason))
    this.#failReaders(reason)
  }

  /** Connected only when the store answers and has room: the client is back before the store is. */
  async #recoverLeaf(): Promise<void> {
    if (this.#recovering) return
    this.#recovering = true
    while (this.#state === 'disconnected') {
      const full = await diskFullReason(this.#settings!.storeDirectory)
      if (full) this.#reportDown(full)
      const ready =
        !full &&
        (await this.#checkStore({ timeout: PROBE_TIMEOUT_MS }).then(
          () => true,
          () => false,
        ))
      // It may have been closed meanwhile.
      if (ready && this.#isDown) this.#onConnected()
      else await delay(full ? DISK_FULL_INTERVAL_MS : RECOVERY_INTERVAL_MS)
    }
    this.#recovering = false
  }

  get #isDown(): boolean {
    return this.#state === 'disconnected'
  }

  /** Our streams can be written without it; other nodes cannot be reached. News only when it is for another reason than before. */
  #reportHubFailure(reason: string | undefined): void {
    if (reason === this.#hubFailure) return
    this.#hubFailure = reason
    if (this.#state === 'connected') this.#report('connected', reason)
  }

  #onConnected(): void {
    this.#setState('connected', this.#hubFailure)
    this.#limitStreams().catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'the limits of streams did not all take effect yet')
    })
  }

  /** News only when it is for another reason than before. */
  #reportDown(reason: string): void {
    if (!this.#isDown || reason === this.#reason) return
    this.#logger.warn({ reason }, 'the leaf server cannot be written to yet')
    this.#report('disconnected', reason)
  }

  /** What other nodes' servers held for us went with the link; our readers ask anew. */
  #onLinked(): void {
    this.#failBack.schedule()
    if (this.#state !== 'connected') return
    this.#failReaders('the leaf server was linked anew')
    this.#listener?.linked()
  }

  #failReaders(reason: string): void {
    for (const reader of [...this.#readers]) reader.fail(reason)
  }

  async #restartLeaf(): Promise<void> {
    await this.#leaf?.restart(this.#leafText()).catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'the leaf server could not be restarted')
    })
  }

  /** After an upgrade of the binary the server that was restarted first has another version: the other one follows. */
  #alignVersions(): void {
    const turn = this.#routeChanges.run(async () => {
      const [hub, leaf] = [this.#hub?.version, this.#leaf?.version]
      if (this.#state === 'stopped' || !hub || !leaf || versionText(hub) === versionText(leaf)) return
      this.#logger.info(
        { hub: versionText(hub), leaf: versionText(leaf) },
        'restarting the server of the older version',
      )
      if (isAtLeast(hub, leaf)) await this.#restartLeaf()
      else await this.#hub?.restart(this.#hubText(this.#routes.hub))
    })
    turn.catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'the hub server could not be restarted')
    })
  }

  // --- routes -----------------------------------------------------------------------------------------------------------

  setRoutes(routes: Routes): Promise<void> {
    return this.#routeChanges.run(() => this.#applyRoutes(routes))
  }

  async #applyRoutes(routes: Routes): Promise<void> {
    const previous = this.#routes
    this.#routes = routes
    if (this.#state === 'stopped') return
    const changed = (server: 'hub' | 'leaf') =>
      previous[server].map(address).join() !== routes[server].map(address).join()
    if (changed('hub')) await this.#hubRoutes?.change(previous.hub, routes.hub)
    // A running leaf refuses new remotes.
    if (changed('leaf')) await this.#leaf?.restart(this.#leafText())
  }

  /** Both servers take new ones while running: whoever connects from now on is met with them. */
  async #reloadCertificates(): Promise<void> {
    const turn = this.#routeChanges.run(async () => {
      if (this.#state === 'stopped') return
      const { hub } = this.#routes
      await this.#hubRoutes?.change(hub, hub)
      await this.#leaf?.reload(this.#leafText())
    })
    await turn.catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'the new certificates may not be in use yet')
    })
  }

  /** Another one than before holds from now on: both servers are started anew with it, one after the other. */
  async rotatePassword(): Promise<void> {
    return this.#routeChanges.run(async () => {
      const password = await this.#options.password()
      if (this.#state === 'stopped' || password === this.#settings!.password) return
      this.#settings = { ...this.#settings!, password }
      await this.#hub?.restart(this.#hubText(this.#routes.hub))
      await this.#leaf?.restart(this.#leafText())
      this.#logger.info({}, 'the password of the cluster was renewed')
    })
  }

  async #hubLoadTime(signal: AbortSignal): Promise<string> {
    const connection = this.#connected(this.#hubConnection)
    const subject = `$SYS.REQ.SERVER.${connection.serverId}.VARZ`
    const answer = await connection.request(subject, '', { timeout: PROBE_TIMEOUT_MS, signal })
    return parseJson<{ data: { config_load_time: string } }>(answer).data.config_load_time
  }

  #hubText(routes: readonly Route[]): Configuration {
    const pidFile = join(this.#options.directory, 'hub.pid')
    return (version) => {
      const text = hubConfiguration(this.#settings!, routes, pidFile, version)
      this.#exposure.update(version, this.#settings!)
      return text
    }
  }

  #leafText(): Configuration {
    const pidFile = join(this.#options.directory, 'leaf.pid')
    const { leaf } = this.#routes
    return (version) => leafConfiguration(this.#settings!, leaf, pidFile, version)
  }

  // --- messages between nodes -------------------------------------------------------------------------------------------

  #connected(connection: Connection | undefined): Connection {
    if (!connection?.up) throw new MeshError('disconnected', 'our own server is not connected')
    return connection
  }

  /** To our own streams, or to those of other nodes. */
  #connectionTo(node: string): Connection {
    return this.#connected(node === this.#node ? this.#storeConnection : this.#meshConnection)
  }

  async request(node: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    return (await this.#connected(this.#meshConnection).request(requestSubject(node), data, options)).data
  }

  serve(handler: (data: Uint8Array) => Promise<Uint8Array>): void {
    // In no queue group: a hub (2.9.10) that drops a route while it reads its configuration anew keeps the route's members for
    // ever, and hands every second request to the dead one.
    const before = this.#requestSubscription
    this.#requestSubscription = serve({
      connection: this.#connected(this.#meshConnection),
      subject: requestSubject(this.#node),
      handler,
      limits: PENDING_REQUEST_LIMITS,
      logger: this.#logger,
    })
    // After it, so that others find somebody at any moment.
    before?.unsubscribe()
  }

  announce(data: Uint8Array): void {
    if (this.#state === 'connected') this.#meshConnection?.publish(ANNOUNCE, data)
  }

  listen(handler: (data: Uint8Array) => void): void {
    this.#connected(this.#meshConnection).subscribe(ANNOUNCE, (message) => handler(message.data))
  }

  // --- our own streams --------------------------------------------------------------------------------------------------

  /** Our stream of this table. The connection is up before the store is: until then a request would get no answer. */
  #localStream(table: TableName): RemoteTable {
    if (this.#state !== 'connected') throw new MeshError('disconnected', 'our own leaf server is not ready')
    return { node: this.#node, ...table }
  }

  async setLimits(limits: StreamLimits): Promise<void> {
    this.#limits = limits
    await this.#limitStreams()
  }

  /** What cannot be reached has its turn when it is connected again. */
  async #limitStreams(): Promise<void> {
    if (this.#state !== 'connected') return
    await this.#jetStream.limitStreams(this.#node, this.#limits, { timeout: ADMIN_TIMEOUT_MS })
  }

  async ensureStream(table: TableName, description: string): Promise<StreamState> {
    const source = this.#localStream(table)
    const options = { timeout: ADMIN_TIMEOUT_MS }
    const state = await this.#jetStream.ensureStream(source, description, this.#limits, options)
    await this.#verifyStream(source, state, options)
    return state
  }

  /** Before anything is written to it: a stream that cannot be read would lose that too. */
  async #verifyStream(source: RemoteTable, state: StreamState, options: RequestOptions): Promise<void> {
    const { session } = this
    const name = subjectOf(this.#node, source)
    if (this.#verified.get(name) === session) return
    const fault = await findStreamFault(this.#jetStream, source, state, options)
    const before = this.#faulty.get(name)
    if (!fault) {
      this.#faulty.delete(name)
      this.#verified.set(name, session)
      return
    }
    // When a start that read all of it did not help, the next one is to begin it anew.
    if (before !== undefined && before !== session) this.#damaged.add(streamName(source))
    this.#faulty.set(name, session)
    this.#markSuspect(fault)
    throw new MeshError('disconnected', fault)
  }

  async describeStream(table: TableName, description: string): Promise<void> {
    await this.#jetStream.describeStream(this.#localStream(table), description, { timeout: ADMIN_TIMEOUT_MS })
  }

  append(
    table: TableName,
    message: Message,
    expected: ExpectedLast,
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
    // Beyond the end, 2.9 would number the next message differently from what it says its last is.
    const seq = before === undefined ? undefined : Math.min(before, state.lastSequence + 1)
    // The server takes a 1 for no sequence at all, and would empty the stream.
    if (seq !== undefined && seq <= 1) return
    const body = { ...(keep !== undefined && keep > 0 ? { keep } : {}), ...(seq === undefined ? {} : { seq }) }
    await this.#jetStream.purge(this.#localStream(table), body, options)
  }

  // --- any node's streams -----------------------------------------------------------------------------------------------

  streamState(source: RemoteTable, options: RequestOptions): Promise<StreamState | undefined> {
    return this.#jetStream.stream(source, options)
  }

  async sequenceAt(source: RemoteTable, time: number, options: RequestOptions): Promise<number> {
    const { name, before } = await this.#consumers.create(source, { time }, options)
    this.#jetStream.deleteConsumer(source, name, options).catch(() => {})
    return before + 1
  }

  async read(
    source: RemoteTable,
    sequence: number,
    options: RequestOptions & { maxMessages: number },
  ): Promise<Reader> {
    const access = {
      connection: this.#connectionTo(source.node),
      jetStream: this.#jetStream,
      consumers: this.#consumers,
    }
    const closed = (reader: PullReader) => this.#readers.delete(reader)
    const reader = await PullReader.open(access, source, sequence, { ...options, closed })
    if (!reader.failed) this.#readers.add(reader)
    return reader
  }

  members(options: RequestOptions): Promise<Member[]> {
    return members(this.#connected(this.#hubConnection), this.#node, options)
  }

  /** Known security holes of the nats-server in use that this configuration exposes, one sentence each. */
  get warnings(): readonly string[] {
    return this.#exposure.warnings
  }

  /** Process ids of our two servers, for tests that kill them. */
  get pids(): { hub: number | undefined; leaf: number | undefined } {
    return { hub: this.#hub?.pid, leaf: this.#leaf?.pid }
  }
}

const requestSubject = (node: string) => `${node}.__request__`
const ANNOUNCE = 'enmesh.heartbeat'

export { hubName, leafName }
