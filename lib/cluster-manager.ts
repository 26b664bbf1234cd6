// The one object that a database creates. This is how a transaction travels from one node to another:
//
// 1. The database commits the transaction together with its timestamp and an outbox entry, and calls `publish`. The publisher
//    reads the outbox in order, splits each transaction by table, and appends each part to the stream of its table on the local
//    leaf server. When the leaf has acknowledged every part, the entry leaves the outbox.
// 2. Every node that subscribes to the table has a subscriber. It reads the stream on the leaf of the first node, through the hubs
//    of both nodes, and starts behind its checkpoint. It passes batches to `host.apply`, which stores the rows and the new
//    checkpoint in one transaction of the database. The subscriber acknowledges nothing: the checkpoint is its position.
//
// When the network between two nodes is cut, both go on: the database commits, and the local leaf stores. The subscribers of the
// unreachable node wait. When it is reachable again, they continue behind their checkpoints. Nothing is lost, because the stream
// still has it. Nothing is applied twice, because the checkpoint moved together with the rows. When the local leaf is down, the
// outbox keeps what it missed.
//
// `cluster/service.ts` builds the parts named here, `cluster/reconcile.ts` brings commits of the manifest into effect.

import { setTimeout as delay } from 'node:timers/promises'
import type { OperationMethod, OperationRequest, OperationResponse, UntypedRequest } from './cluster/operation-types.ts'
import { type CheckedOptions, type ClusterOptions, checkOptions } from './cluster/options.ts'
import type { QuarantineControl } from './cluster/quarantine-control.ts'
import { reportCommit } from './cluster/reports.ts'
import { Service } from './cluster/service.ts'
import { type ClusterState, type ClusterView, viewOf } from './cluster/view.ts'
import { ClusterError, clusterError, clusterErrorFrom, invalidRequest, reasonOf } from './errors.ts'
import { type ClusterEventSource, createEventSource } from './events/event-source.ts'
import { type ClusterEvents, type EventName, eventNames, SafeEmitter } from './events/events.ts'
import type { Timestamp, Transaction } from './host/host.ts'
import { HybridClock } from './host/hybrid-clock.ts'
import { type Problem, problemText } from './manifest/config-text.ts'
import { lock } from './manifest/lock.ts'
import type { Manifest } from './manifest/manifest.ts'
import { ManifestStore } from './manifest/store.ts'
import { MeshError, type MeshState } from './mesh/mesh.ts'
import { publishToChannel, traced } from './observe/diagnostics.ts'
import { observeMetrics } from './observe/meter.ts'
import type { Metrics } from './observe/metrics.ts'
import {
  type Caller,
  call,
  execute,
  type OperationContext,
  type OperationName,
  type OperationOptions,
  type ResponseOf,
} from './operations/index.ts'
import { Negotiator } from './peers/negotiator.ts'
import { Peers } from './peers/peers.ts'
import { Registers } from './peers/registers.ts'
import { Publisher } from './replication/publish/publisher.ts'
import { Quarantine, type QuarantinedMessage } from './replication/subscribe/quarantine.ts'
import { Replicator } from './replication/subscribe/replicator.ts'
import type { ReplayOutcome, SubscriptionStatus } from './replication/subscribe/subscriber.ts'
import { transactionIssues } from './replication/wire.ts'

export class ClusterManager extends SafeEmitter {
  /** The same events without `emit`, for plugins. */
  readonly events: ClusterEventSource = createEventSource(this)
  /** A frozen, read-only view of this manager, for plugins. */
  readonly view: ClusterView = viewOf(this)
  /** Messages of remote nodes that could not be applied: unreadable, or with a timestamp more than `maxClockDrift` ahead. */
  readonly quarantine: QuarantineControl = {
    list: (source) => this.#service?.quarantine.list(source) ?? [],
    replay: (source, sequences) => this.#withService(({ replicator }) => replicator.replay(source, sequences)),
    discard: (source, sequences) => this.#withService(({ replicator }) => replicator.discard(source, sequences)),
  }
  readonly #options: CheckedOptions
  readonly #store: ManifestStore
  readonly #clock: HybridClock
  readonly #unlock: () => Promise<void>
  /** Undefined while clustering is disabled. */
  #service: Service | undefined
  #state: ClusterState = 'opening'
  readonly #queuedEvents: (() => void)[] = []
  #closing: Promise<void> | undefined
  #stopMetering: (() => void) | undefined

  private constructor(options: CheckedOptions, store: ManifestStore, unlock: () => Promise<void>) {
    super()
    this.#options = options
    this.#store = store
    this.#unlock = unlock
    const now = options.mesh?.timers.now.bind(options.mesh.timers)
    this.#clock = new HybridClock(store.manifest.nodeName || 'local', options.maxClockDrift, now)
    for (const event of eventNames) {
      const listener = options.listeners?.[event]
      if (listener) this.on(event, listener as () => void)
    }
  }

  // --- opening and closing ------------------------------------------------------------------------------------------------

  /**
   * Reads the configuration file and starts the servers if clustering is enabled. Resolves when this node can write its
   * streams and answers requests. Rejects invalid_option, config_rejected, config_locked, config_unwritable, node_name_missing,
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

  async #start(): Promise<void> {
    const emit = this.emit.bind(this)
    this.#store.listen({
      committed: (commit) => reportCommit(emit, commit),
      limitsChanged: () => {},
      rejected: (problems) => this.#reportConfig('config:rejected', problems, 'configuration file rejected'),
      missing: (problems) => this.#reportConfig('config:missing', problems, 'configuration file missing'),
    })
    if (this.manifest.enabled) {
      const [options, store, clock] = [this.#options, this.#store, this.#clock]
      this.#service = await Service.create({ options, store, clock, emit })
      await this.#service.start()
    }
    const { meter } = this.#options
    this.#stopMetering = meter && observeMetrics(meter, this.manifest.nodeName, () => this.metrics())
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
      streams: publisher,
      starts: replicator,
      store: this.#store,
      registers,
      clock: this.#clock,
      nameFault,
      timers: mesh.timers,
      progress: (node, step) => reporting({ task: 'configure', node, step }),
    })
    registers.subscribe(this.#store, (node) => negotiator.scheduleCompare(node))
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
    await this.#service?.close()
    await this.#unlock()
    this.#state = 'closed'
  }

  // --- state --------------------------------------------------------------------------------------------------------------

  get state(): ClusterState {
    return this.#state
  }

  /** The configured state, frozen: node name, routes, nodes and their subscriptions. */
  get manifest(): Manifest {
    return this.#store.manifest
  }

  /** Events first, the whole before its parts; then the mesh and the subscribers follow. */
  #onCommit({ previous, current, changes, cause }: Commit): void {
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
  }

  #reportConfig(event: 'config:rejected' | 'config:missing', problems: readonly Problem[], message: string): void {
    const { configFile: file, logger } = this.#options
    logger.warn({ file, problems: problems.map(problemText) }, message)
    this.emit(event, { problems })
  }

  // --- transactions -------------------------------------------------------------------------------------------------------

  /** Take it inside the database's write transaction and store it with the rows. Higher than every timestamp issued or applied before. */
  timestamp(): Timestamp {
    return this.#clock.timestamp()
  }

  /**
   * Call it after every commit, in the order of commit. Resolves when the local leaf has acknowledged every part; at once while
   * clustering is disabled. Rejects publish_timeout when that takes longer than `publishTimeout` (the outbox keeps the transaction
   * and it will be sent), transaction_too_large, invalid_request, closed.
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

  // --- operations ---------------------------------------------------------------------------------------------------------

  /** `cluster_set_routes`: adds the routes that neither list has. */
  setRoutes = this.#operation('cluster_set_routes')
  /** `cluster_get_routes` */
  getRoutes = this.#operation('cluster_get_routes')
  /** `cluster_delete_routes`: deletes the routes from both lists. */
  deleteRoutes = this.#operation('cluster_delete_routes')
  /** `add_node`: subscriptions with a node that is not in the manifest yet. */
  addNode = this.#operation('add_node')
  /** `update_node`: changes the named tables only; adds the node if the manifest does not have it. */
  updateNode = this.#operation('update_node')
  /** `set_node_replication`: the same as `update_node`. */
  setNodeReplication = this.#operation('set_node_replication')
  /** `remove_node` */
  removeNode = this.#operation('remove_node')
  /** `configure_cluster`: replaces all connections of the manifest by these. */
  configureCluster = this.#operation('configure_cluster')
  /** `cluster_status`: requests the status of every node of the manifest at the same time. */
  status = this.#operation('cluster_status')
  /** `cluster_network`: every node whose hub answers. */
  network = this.#operation('cluster_network')
  /** `purge_stream`: of one local table. */
  purgeStream = this.#operation('purge_stream')

  #operation<Name extends OperationName>(name: Name): OperationMethod<Name> {
    const method = (body: unknown = {}, options: OperationOptions = {}): Promise<ResponseOf<Name>> =>
      this.#run(() => this.#traceOperation(name, () => call(this.#context(), name, body, options)))
    return method as OperationMethod<Name>
  }

  /** Runs an operation as JSON, `{ operation, ... }`, for a caller that the host has authenticated. Rejects with a ClusterError. */
  execute<Name extends OperationName>(
    request: OperationRequest<Name>,
    caller?: Caller,
    options?: OperationOptions,
  ): Promise<OperationResponse<Name>>
  execute<const Body>(
    request: Body & UntypedRequest<Body>,
    caller?: Caller,
    options?: OperationOptions,
  ): Promise<OperationResponse>
  execute(request: unknown, caller?: Caller, options: OperationOptions = {}): Promise<object> {
    const { operation } = (request ?? {}) as { operation?: unknown }
    return this.#run(() =>
      this.#traceOperation(String(operation), () => execute(this.#context(), request, caller, options)),
    )
  }

  /**
   * Fetches the password again (option `password`, if it is a function). If it differs, both servers restart with it, and
   * transactions wait meanwhile. Resolves when it is in effect. Rejects clustering_disabled, invalid_option, closed.
   */
  rotatePassword(): Promise<void> {
    return this.#withService(async ({ mesh }) => mesh.rotatePassword?.())
  }

  #withService<T>(work: (service: Service) => Promise<T>): Promise<T> {
    return this.#run(async () => {
      if (!this.#service) throw clusterError('clustering_disabled')
      return work(this.#service)
    })
  }

  /** Resolves when what `work` changed is in effect, or after `requestTimeout`: a server that is down may take longer. */
  async #run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#state !== 'open') throw clusterError('closed')
    try {
      const answer = await work()
      const expiry = new AbortController()
      const expired = delay(this.#options.requestTimeout, undefined, { signal: expiry.signal }).catch(() => {})
      await Promise.race([this.#service?.reconciled(), expired])
      expiry.abort()
      return answer
    } catch (error) {
      if (error instanceof ClusterError) throw error
      if (error instanceof MeshError) throw clusterErrorFrom(error, 'mesh_unavailable', error.message)
      this.#options.logger.error({ reason: reasonOf(error) }, 'operation failed')
      throw clusterErrorFrom(error, 'internal', reasonOf(error))
    }
  }

  #traceOperation<T>(operation: string, work: () => Promise<T>): Promise<T> {
    return traced('operation', () => ({ node: this.manifest.nodeName, operation }), work)
  }

  #context(): OperationContext {
    const { host, logger } = this.#options
    // Operations check that clustering is enabled before they use a part of the service.
    const parts = this.#service?.operationParts() ?? ({} as ReturnType<Service['operationParts']>)
    return { store: this.#store, host, logger, ...parts }
  }
}
