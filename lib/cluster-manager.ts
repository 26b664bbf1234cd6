// The one thing a database mounts. It wires the rooms together and holds no logic of its own; read it from top to bottom to
// learn how a transaction travels.
//
// A transaction out: the database commits it with a stamp and an outbox entry, then calls `publish`. The publisher reads the
// outbox in order, splits each transaction by table and appends every part to its table's stream on our own leaf server,
// with the sequence it expects; it is acknowledged when the leaf has stored it, and only then leaves the outbox.
//
// A transaction in: for every remote table that the manifest subscribes to, a subscriber reads the stream on the other
// node's leaf, straight across the mesh of hubs, behind the checkpoint that our database holds. It hands batches to
// `host.apply`, which stores data and checkpoint in one transaction of the database. There is nothing to acknowledge.
//
// When a cable is pulled: commits go on, and our own leaf goes on storing them. Subscribers of the node that is gone wait.
// When it is back they read on behind their checkpoints: nothing is lost, because it lies in the stream; nothing is applied
// twice, because the checkpoint moved with the data. What the leaf itself missed while it was down lies in the outbox.

import { dirname, join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type CheckedOptions, type ClusterOptions, checkOptions } from './cluster/options.ts'
import { type ClusterState, type ClusterView, viewOf } from './cluster/view.ts'
import { ClusterError, clusterError, clusterErrorFrom, invalidRequest, reasonOf } from './errors.ts'
import { type ClusterEventSource, createEventSource } from './events/event-source.ts'
import { type ClusterEvents, type EventName, eventNames, SafeEmitter } from './events/events.ts'
import type { RemoteTable, Timestamp, Transaction } from './host/host.ts'
import { HybridClock } from './host/hybrid-clock.ts'
import { type Problem, problemText } from './manifest/config-text.ts'
import { lock } from './manifest/lock.ts'
import { findNode, type Manifest } from './manifest/manifest.ts'
import { tokenFault } from './manifest/names.ts'
import { type Commit, ManifestStore } from './manifest/store.ts'
import { type Mesh, MeshError, type MeshState, type NameCheck, type StreamLimits } from './mesh/mesh.ts'
import { passwordFault, userFault } from './mesh/nats/credentials.ts'
import { NatsMesh } from './mesh/nats/nats-mesh.ts'
import { publishToChannel, traced } from './observe/diagnostics.ts'
import { observeMetrics } from './observe/meter.ts'
import type { Metrics } from './observe/metrics.ts'
import { type Progress, ProgressReport } from './observe/progress.ts'
import {
  type Caller,
  call,
  execute,
  type OperationContext,
  type OperationName,
  type OperationOptions,
  type RequestOf,
  type ResponseOf,
} from './operations/index.ts'
import { Negotiator, type RevisionOf } from './peers/negotiator.ts'
import { Peers } from './peers/peers.ts'
import { Registers } from './peers/registers.ts'
import { Publisher } from './replication/publish/publisher.ts'
import { Quarantine, type QuarantinedMessage } from './replication/subscribe/quarantine.ts'
import { Replicator } from './replication/subscribe/replicator.ts'
import type { ReplayOutcome, SubscriptionStatus } from './replication/subscribe/subscriber.ts'
import { transactionIssues } from './replication/wire.ts'
import { ensurePrivateDirectory } from './util/private-directory.ts'
import { SerialQueue } from './util/serial-queue.ts'

/** Everything that runs only while clustering is enabled. */
type Service = {
  mesh: Mesh
  /** Why a node, database or table of that name cannot take part in the cluster. */
  nameFault: NameCheck
  publisher: Publisher
  replicator: Replicator
  peers: Peers
  negotiator: Negotiator
  registers: Registers
  quarantine: Quarantine
}

/** Looking after what could not be taken. */
export interface QuarantineControl {
  /** Of one remote table, or of all, in the order of their sequences. */
  list(source?: RemoteTable): QuarantinedMessage[]
  /**
   * Applies what can be taken by now: of these sequences, or of all; the rest is kept. Rejects subscription_not_found,
   * clustering_disabled, closed, internal (the host refused: what was applied before stays applied).
   */
  replay(source: RemoteTable, sequences?: readonly number[]): Promise<ReplayOutcome>
  /** Gives them up: they are lost for this node. Resolves with their sequences. Rejects as `replay`. */
  discard(source: RemoteTable, sequences?: readonly number[]): Promise<number[]>
}

export class ClusterManager extends SafeEmitter {
  /** The same events without `emit`: what plugins are handed. */
  readonly events: ClusterEventSource = createEventSource(this)
  /** What plugins are handed: frozen, it shows and listens, and that is all. */
  readonly view: ClusterView = viewOf(this)
  /** Messages of other nodes that could not be taken: unreadable ones, and stamps more than `maxClockDrift` ahead. */
  readonly quarantine: QuarantineControl = {
    list: (source) => this.#service?.quarantine.list(source) ?? [],
    replay: (source, sequences) => this.#withReplicator((replicator) => replicator.replay(source, sequences)),
    discard: (source, sequences) => this.#withReplicator((replicator) => replicator.discard(source, sequences)),
  }
  readonly #options: CheckedOptions
  readonly #store: ManifestStore
  readonly #clock: HybridClock
  readonly #unlock: () => Promise<void>
  #state: ClusterState = 'opening'
  readonly #queuedEvents: (() => void)[] = []
  #service: Service | undefined
  /** What follows from the commits so far: routes in effect, subscribers started and ended. Never rejects. */
  readonly #reconciling = new SerialQueue()
  /** The manifest that mesh and subscribers follow, or are on their way to. */
  #reconciledManifest: Manifest
  #closing: Promise<void> | undefined
  /** Has the meter forget us. */
  #stopMetering: (() => void) | undefined
  /** Another process of our name was there first: this one takes no part until it is opened again. */
  #stoodDown = false

  private constructor(options: CheckedOptions, store: ManifestStore, unlock: () => Promise<void>) {
    super()
    this.#options = options
    this.#store = store
    this.#unlock = unlock
    this.#reconciledManifest = store.manifest
    this.#clock = new HybridClock(
      store.manifest.nodeName || 'local',
      options.maxClockDrift,
      options.mesh?.timers.now.bind(options.mesh.timers),
    )
    for (const event of eventNames) {
      const listener = options.listeners?.[event]
      if (listener) this.on(event, listener as () => void)
    }
  }

  /**
   * Reads the configuration file, starts the servers if clustering is enabled, and resolves when this node can write its
   * streams and be asked by others. Rejects invalid_option, config_rejected, config_locked, config_unwritable, node_name_missing,
   * nats_server_missing, port_taken, tls_invalid, directory_unusable, server_failed; nothing is left running then.
   */
  static async open(options: ClusterOptions): Promise<ClusterManager> {
    const checked = checkOptions(options)
    const unlock = await lock(checked.configFile)
    let store: ManifestStore | undefined
    let manager: ClusterManager | undefined
    try {
      store = await ManifestStore.open(checked.configFile, { logger: checked.logger })
      manager = new ClusterManager(checked, store, unlock)
      const timestamp = await checked.host.lastTimestamp()
      if (timestamp) manager.#clock.resume(timestamp)
      await manager.#start()
      return manager
    } catch (error) {
      await (manager?.close() ?? store?.close())
      await unlock()
      throw error instanceof ClusterError ? error : clusterErrorFrom(error, 'server_failed', 'cluster', reasonOf(error))
    }
  }

  get state(): ClusterState {
    return this.#state
  }

  /** The wanted state, frozen: node name, routes, nodes and their subscriptions. */
  get manifest(): Manifest {
    return this.#store.manifest
  }

  /** Nobody can listen before `open` has resolved: what happens until then is told right after it, in order, but for how far it is. */
  override emit<Name extends EventName>(event: Name, ...args: ClusterEvents[Name]): boolean {
    const deliver = () => {
      publishToChannel(event, this.manifest.nodeName, args[0])
      return super.emit(event, ...args)
    }
    if (event === 'progress' || (this.#state !== 'opening' && this.#queuedEvents.length === 0)) return deliver()
    this.#queuedEvents.push(deliver)
    return false
  }

  // --- transactions -----------------------------------------------------------------------------------------------------

  /** To be taken inside the database's write transaction, and stored with the rows; higher than every stamp given or applied before. */
  timestamp(): Timestamp {
    return this.#clock.timestamp()
  }

  /**
   * Call it after every commit, in the order of commit. Resolves when our leaf has acknowledged every part; at once when
   * clustering is disabled. Rejects publish_timeout when that takes longer than `publishTimeout` (the outbox still has it and
   * it will be sent), transaction_too_large, invalid_request, closed.
   */
  publish(transaction: Transaction): Promise<void> {
    if (this.#state !== 'open') return Promise.reject(clusterError('closed'))
    const issues = transactionIssues(transaction)
    if (issues) return Promise.reject(invalidRequest(issues))
    return traced(
      'publish',
      () => ({ node: this.manifest.nodeName, transaction }),
      () => this.#service?.publisher.publish(transaction) ?? Promise.resolve(),
    )
  }

  /** Of the mesh; undefined while clustering is disabled. */
  get meshState(): MeshState | undefined {
    return this.#service?.mesh.state
  }

  /** The nodes of the manifest, in its order, and whether each is heard. */
  peers(): { node: string; up: boolean }[] {
    return this.manifest.nodes.map(({ name }) => ({ node: name, up: this.#service?.peers.isUp(name) ?? false }))
  }

  /** One entry a remote table: state, position, lag, last error, gaps, messages in quarantine. */
  subscriptions(): SubscriptionStatus[] {
    return this.#service?.replicator.status() ?? []
  }

  /** Counters since the manager was opened and gauges of now; undefined while clustering is disabled. */
  metrics(): Metrics | undefined {
    if (!this.#service) return undefined
    const { publisher, replicator } = this.#service
    return { publish: publisher.metrics(), apply: replicator.metrics() }
  }

  /**
   * Asks for the cluster's password again (option `password`, a function then) and takes up another one: both servers are
   * started anew, transactions wait meanwhile. Resolves when it is in effect. Rejects clustering_disabled, invalid_option, closed.
   */
  rotatePassword(): Promise<void> {
    return this.#run(async () => {
      if (!this.#service) throw clusterError('clustering_disabled')
      await this.#service.mesh.rotatePassword?.()
    })
  }

  #withReplicator<T>(work: (replicator: Replicator) => Promise<T>): Promise<T> {
    return this.#run(async () => {
      if (!this.#service) throw clusterError('clustering_disabled')
      return work(this.#service.replicator)
    })
  }

  // --- operations -------------------------------------------------------------------------------------------------------

  /** An operation as JSON, forwarded by the host with who asks for it. Rejects with a ClusterError. */
  execute(request: unknown, caller?: Caller, options: OperationOptions = {}): Promise<object> {
    const { operation } = (request ?? {}) as { operation?: unknown }
    return this.#run(() => this.#traced(String(operation), () => execute(this.#context(), request, caller, options)))
  }

  /** `cluster_set_routes`: adds what neither list has; in effect when it resolves. */
  setRoutes = this.#operation('cluster_set_routes')
  /** `cluster_get_routes` */
  getRoutes = this.#operation('cluster_get_routes')
  /** `cluster_delete_routes`: from whichever list has them; in effect when it resolves. */
  deleteRoutes = this.#operation('cluster_delete_routes')
  /** `add_node`: subscriptions with a node that is not in the manifest yet. */
  addNode = this.#operation('add_node')
  /** `update_node`: the tables named, leaving the others; adds the node when it is not there yet. */
  updateNode = this.#operation('update_node')
  /** `set_node_replication`: the same as `update_node`. */
  setNodeReplication = this.#operation('set_node_replication')
  /** `remove_node` */
  removeNode = this.#operation('remove_node')
  /** `configure_cluster`: afterwards the manifest holds these connections and no others. */
  configureCluster = this.#operation('configure_cluster')
  /** `cluster_status`: every node of the manifest, asked at once. */
  status = this.#operation('cluster_status')
  /** `cluster_network`: every node whose hub answers. */
  network = this.#operation('cluster_network')
  /** `purge_stream`: of one of our own tables. */
  purgeStream = this.#operation('purge_stream')

  #operation<Name extends OperationName>(name: Name) {
    return (body: RequestOf<Name> = {} as RequestOf<Name>, options: OperationOptions = {}): Promise<ResponseOf<Name>> =>
      this.#run(() => this.#traced(name, () => call(this.#context(), name, body, options)))
  }

  #traced<T>(operation: string, work: () => Promise<T>): Promise<T> {
    return traced('operation', () => ({ node: this.manifest.nodeName, operation }), work)
  }

  /** Answers when what the operation changed is in effect. */
  async #run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#state !== 'open') throw clusterError('closed')
    try {
      const answer = await work()
      // A server that does not come back is repaired for as long as we are open: nobody waits for that.
      const expiry = new AbortController()
      const expired = delay(this.#options.requestTimeout, undefined, { signal: expiry.signal }).catch(() => {})
      await Promise.race([this.#reconciling.idle(), expired])
      expiry.abort()
      return answer
    } catch (error) {
      if (error instanceof ClusterError) throw error
      if (error instanceof MeshError) throw clusterErrorFrom(error, 'mesh_unavailable', error.message)
      this.#options.logger.error({ reason: reasonOf(error) }, 'an operation failed')
      throw clusterErrorFrom(error, 'internal', reasonOf(error))
    }
  }

  #context(): OperationContext {
    const { host, logger } = this.#options
    const store = this.#store
    // The operations check that clustering is enabled before they touch what runs only then.
    const { mesh, nameFault, negotiator, peers, publisher, replicator } = this.#service ?? ({} as Service)
    const streams = publisher && {
      purge: (database: string, table: string, options: { keep?: number; before?: number }) =>
        publisher.purge({ database, table }, options),
      losses: (source: RemoteTable) => replicator.losses(source),
    }
    return { store, host, logger, mesh, nameFault, negotiator, peers, streams }
  }

  // --- life -------------------------------------------------------------------------------------------------------------

  async #start(): Promise<void> {
    this.#store.listen({
      committed: (commit) => this.#onCommit(commit),
      limitsChanged: ({ streams }) => this.#applyLimits(streams),
      rejected: (problems) => {
        this.#logConfigProblems('an edit of the configuration file is not taken in', problems)
        this.emit('config:rejected', { problems })
      },
      missing: (problems) => {
        this.#logConfigProblems('the configuration file is gone', problems)
        this.emit('config:missing', { problems })
      },
    })
    if (this.manifest.enabled) await this.#startService()
    this.#stopMetering =
      this.#options.meter && observeMetrics(this.#options.meter, this.manifest.nodeName, () => this.metrics())
    this.#state = 'open'
    setImmediate(() => {
      for (const deliver of this.#queuedEvents.splice(0)) deliver()
    })
  }

  async #startService(): Promise<void> {
    const { host, logger, requestTimeout, maxBatch, maxBatchBytes } = this.#options
    const { settings, manifest } = this.#store
    const node = manifest.nodeName
    this.#reconciledManifest = manifest
    const step = (step: string, done: number) => this.emit('progress', { task: 'open', step, done, total: 3 })
    step('state', 0)
    const mesh = this.#options.mesh ?? this.#createNatsMesh()
    const unsupported = await mesh.nameCheck?.()
    const nameFault: NameCheck = (name) => tokenFault(name) ?? unsupported?.(name)
    this.#store.restrictNames(nameFault)
    const reporting = (task: Pick<Progress, 'task' | 'step' | 'node'>) => {
      const report = new ProgressReport(mesh.timers, (progress) => this.emit('progress', progress), task)
      return (done: number, total: number) => report.update(done, total)
    }
    await ensurePrivateDirectory(this.#directory)
    const quarantine = await Quarantine.open({
      directory: join(this.#directory, 'quarantine'),
      maxMessages: this.#options.maxQuarantined,
      maxBytes: this.#options.maxQuarantinedBytes,
      logger,
    })
    const registers = await Registers.open(join(this.#directory, 'agreements.json'), manifest, this.#clock, logger)
    const publisher = new Publisher({
      mesh,
      host,
      node,
      logger,
      window: this.#options.publishWindow,
      maxInFlight: this.#options.maxInFlight,
      maxInFlightBytes: this.#options.maxInFlightBytes,
      timeout: this.#options.publishTimeout,
      requestTimeout,
    })
    const replicator: Replicator = new Replicator({
      mesh,
      host,
      node,
      clock: this.#clock,
      quarantine,
      logger,
      progress: () => reporting({ task: 'catch-up' }),
      requestTimeout,
      maxBatch,
      maxBatchBytes,
      relayEnabled: settings.republishMessages,
      relay: (transactions) => publisher.relay(transactions),
      restoreTable: (source) => negotiator.restoreTable(source),
      events: {
        state: (source, state, previous, error) =>
          this.emit('subscription:state', { source, state, previous, ...(error ? { error } : {}) }),
        applied: (source, transactions, sequence) =>
          this.emit('replication:applied', { source, transactions, sequence }),
        gap: (source, from, to, reason) => {
          logger.warn({ ...source, from, to, reason }, 'transactions are gone from the source, unread')
          this.emit('replication:gap', { source, from, to, reason })
        },
        stalled: (source, sequence, error, attempts) => {
          logger.warn({ ...source, sequence, reason: error, attempts }, 'the database refused a batch, trying again')
          this.emit('replication:stalled', { source, sequence, error, attempts })
        },
        quarantined: (source, sequence, error) => {
          logger.error({ ...source, sequence, reason: error }, 'a transaction could not be taken')
          this.emit('replication:quarantined', { source, sequence, error })
        },
      },
    })
    const peers: Peers = new Peers({
      mesh,
      host,
      node,
      logger,
      requestTimeout,
      clusteringPort: settings.ports.cluster,
      operationsApiPort: settings.operationsApiPort,
      negotiate: (request) => negotiator.handleRequest(request),
      positions: () => publisher.recentPositions(),
      listener: {
        up: (name) => this.#onPeerUp(name),
        down: (name) => this.#ifInManifest(name, () => this.emit('peer:down', { node: name, reason: 'no heartbeat' })),
        returned: (name, restarted) => {
          replicator.restart(name, restarted)
          negotiator.onPeerUp(name)
        },
        duplicate: (name) => this.#reportRejected(name, 'two processes take part in the cluster under this name'),
        superseded: () => void this.#standDown(),
        streams: (name, positions) => replicator.onPeerPositions(name, positions),
      },
    })
    const negotiator: Negotiator = new Negotiator({
      node,
      host,
      logger,
      peers,
      starts: {
        ensureStream: (table) => publisher.ensure(table),
        setStart: (source, startTime) => replicator.setStart(source, startTime),
        clearStart: (source) => replicator.clearStart(source),
      },
      registers,
      timestamp: () => this.#clock.timestamp(),
      observe: (revision) => {
        this.#clock.merge(revision)
        return revision === '' || this.#clock.accepts(revision)
      },
      manifest: () => this.manifest,
      commit: (change, cause, revisionOf) => this.#store.commit(change, cause, revisionOf),
      nameFault,
      timers: mesh.timers,
      progress: (node, step) => reporting({ task: 'configure', node, step }),
    })
    this.#service = { mesh, nameFault, publisher, replicator, peers, negotiator, registers, quarantine }
    step('servers', 1)
    await mesh.setLimits(settings.streams)
    await mesh.open(node, manifest.routes, {
      state: (state, reason) => {
        this.emit('mesh:state', { state, ...(reason ? { reason } : {}) })
        if (state !== 'connected') return
        // The first time too: what was committed and not acknowledged before we were opened.
        publisher.resume()
        replicator.restart()
        peers.sendHeartbeat()
      },
      linked: () => peers.sendHeartbeat(),
      rejected: (peer, reason) => {
        logger.error({ peer, reason }, 'somebody was kept out of the mesh, or we were')
        this.emit('connection:rejected', { node: peer, reason })
      },
    })
    step('subscriptions', 2)
    peers.start()
    await replicator.reconcile(this.manifest)
    step('subscriptions', 3)
  }

  /** Whoever edits the file by hand hears no events: they look in the log. */
  #logConfigProblems(message: string, problems: readonly Problem[]): void {
    const { configFile: file, logger } = this.#options
    logger.warn({ file, problems: problems.map(problemText) }, message)
  }

  /** Where the servers' state and the revisions lie. */
  get #directory(): string {
    const { rootPath = '.' } = this.#store.settings
    return join(resolve(dirname(this.#options.configFile), rootPath), 'clustering')
  }

  #createNatsMesh(): Mesh {
    const { configFile, natsServer, serverEnvironment, logger } = this.#options
    const { settings } = this.#store
    const { user, tls } = settings
    if (!user)
      throw clusterError(
        'config_rejected',
        this.#store.file,
        "'clustering.user' is required while clustering is enabled",
      )
    const fault = userFault(user)
    if (fault) throw clusterError('config_rejected', this.#store.file, `'clustering.user' ${fault}`)
    const fromConfigDirectory = (path: string) => resolve(dirname(configFile), path)
    return new NatsMesh({
      user,
      password: () => this.#password(),
      clusterName: settings.clusterName,
      // Without certificates nobody from outside is let in, unless the file says so.
      listen: settings.clusterHost ?? (tls ? '0.0.0.0' : '127.0.0.1'),
      ports: settings.ports,
      tls: tls && {
        ...tls,
        certificate: fromConfigDirectory(tls.certificate),
        certificateAuthority: fromConfigDirectory(tls.certificateAuthority),
        privateKey: fromConfigDirectory(tls.privateKey),
      },
      logLevel: settings.logLevel,
      directory: this.#directory,
      storeDirectory: settings.streams.path && fromConfigDirectory(settings.streams.path),
      sync: settings.streams.sync,
      routeCompression: settings.routeCompression,
      natsServer,
      serverEnvironment,
      logger,
    })
  }

  async #password(): Promise<string> {
    let password: unknown = this.#options.password
    if (typeof password === 'function')
      try {
        password = await password()
      } catch (error) {
        throw clusterErrorFrom(error, 'invalid_option', `option 'password' could not be fetched: ${reasonOf(error)}`)
      }
    if (typeof password === 'string' && password !== '') {
      const fault = passwordFault(password)
      if (fault) throw clusterError('invalid_option', `option 'password' ${fault}`)
      return password
    }
    // An empty one is an unset variable of the environment, and would open the mesh to everybody.
    const received = password === '' ? 'an empty one' : typeof password
    throw clusterError(
      'invalid_option',
      `option 'password' is required while clustering is enabled, received ${received}`,
    )
  }

  /** Idempotent. Waits for what is in flight, then ends both servers. What was not acknowledged stays in the outbox. */
  close(): Promise<void> {
    this.#closing ??= this.#close().finally(() => this.end())
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#state = 'closing'
    this.#stopMetering?.()
    await this.#store.close()
    if (this.#service) {
      await this.#service.publisher.close()
      await this.#endService(this.#service)
      await this.#service.registers.flush()
    }
    await this.#reconciling.idle()
    await this.#unlock()
    this.#state = 'closed'
  }

  async #endService({ negotiator, peers, replicator, mesh }: Service): Promise<void> {
    negotiator.close()
    peers.close()
    await replicator.close()
    await mesh.close()
  }

  // --- what follows from a commit, and from other nodes coming and going -------------------------------------------------

  /** Events first, the whole before its parts; then the mesh and the subscribers follow. */
  #onCommit({ previous, current, changes, cause, note }: Commit): void {
    this.emit('manifest:changed', { previous, current, changes, cause })
    for (const change of changes) {
      if (change.type === 'route:added') this.emit(change.type, { server: change.server, route: change.route, cause })
      else if (change.type === 'route:removed')
        this.emit(change.type, { server: change.server, route: change.route, cause })
      else if (change.type === 'node:added') this.emit(change.type, { node: change.node, cause })
      else if (change.type === 'node:updated')
        this.emit(change.type, { node: change.node, previous: change.previous, cause })
      else if (change.type === 'node:removed') this.emit(change.type, { node: change.node, cause })
    }
    const service = this.#stoodDown ? undefined : this.#service
    if (!service) return
    const failed = (error: unknown) =>
      this.#options.logger.error({ reason: reasonOf(error) }, 'a change of the manifest did not take effect yet')
    void this.#reconciling.run(async () => {
      // The newest: what was committed while others took effect comes with it.
      const { manifest } = this
      const { routes, nodes } = this.#reconciledManifest
      this.#reconciledManifest = manifest
      if (manifest.routes !== routes) await service.mesh.setRoutes(manifest.routes).catch(failed)
      if (manifest.nodes !== nodes) await service.replicator.reconcile(manifest).catch(failed)
    })
    for (const change of changes) {
      if (change.type === 'node:added' && service.peers.isUp(change.node.name))
        this.emit('peer:up', { node: change.node.name })
    }
    // What the other node has agreed to has its revision; anything else is a change made here, now, that it has yet to learn.
    const revisionOf = note as RevisionOf | undefined
    const changedNodes = service.registers.sync(current, revisionOf ?? (() => this.#clock.timestamp()))
    if (!revisionOf) for (const node of changedNodes) service.negotiator.scheduleCompare(node)
  }

  /** Not part of the manifest, so no event: what they delete, subscribers report as gaps. */
  #applyLimits(limits: StreamLimits): void {
    const { logger } = this.#options
    logger.info({ ...limits }, 'the limits of streams are others now')
    const service = this.#stoodDown ? undefined : this.#service
    const failed = (error: unknown) =>
      logger.error({ reason: reasonOf(error) }, 'the limits of streams did not all take effect yet')
    void this.#reconciling.run(() => service?.mesh.setLimits(limits).catch(failed))
  }

  #onPeerUp(node: string): void {
    this.#ifInManifest(node, () => {
      this.emit('peer:up', { node })
    })
  }

  #ifInManifest(name: string, callback: () => void): void {
    if (findNode(this.manifest, name)) callback()
  }

  #reportRejected(node: string, reason: string): void {
    this.#options.logger.error({ node }, reason)
    this.emit('connection:rejected', { node, reason })
  }

  /** No requests, no subscriptions, no servers. What is committed stays in the outbox; the manifest goes on. */
  async #standDown(): Promise<void> {
    if (this.#stoodDown || !this.#service) return
    this.#stoodDown = true
    const reason = 'another process of this name was there first: this one takes no part until it is opened again'
    this.#reportRejected(this.manifest.nodeName, reason)
    await this.#endService(this.#service)
  }
}
