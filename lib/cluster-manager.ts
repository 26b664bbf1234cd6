// The entry point: a database opens one ClusterManager. This is how a transaction travels from one node to another:
//
// 1. The database commits the transaction together with its timestamp and an outbox entry, and calls `publish`. The publisher
//    reads the outbox in order, splits each transaction by table, and appends each part to the stream of its table on the local
//    leaf server. When the leaf has acknowledged every part, the entry leaves the outbox.
// 2. Every node that subscribes to the table has a subscriber. It reads the stream on the leaf of the origin node, through the hubs
//    of both nodes, from its checkpoint on. It passes batches to `host.apply`, which stores the rows and the new checkpoint in one
//    transaction of the database. Messages are not acknowledged to the server: the checkpoint alone is the position.
//
// When the network between two nodes is cut, both continue: the database commits, and the local leaf stores. On each side, the
// subscribers of the other node wait. When the network is back, they continue after their checkpoints. Nothing is lost: the stream
// keeps all transactions, unless limits are set; a loss by limits is reported as a gap. Nothing is applied twice, because the
// checkpoint was stored together with the rows. While the local leaf is down, transactions stay in the outbox.
//
// A new subscriber has no checkpoint. It begins at the end of the stream, or at `start_time`; existing rows are not copied.
//
// `cluster/service.ts` builds these parts. The manifest is the cluster configuration in the YAML file; when it changes,
// `cluster/reconcile.ts` adapts routes, subscriptions and stream limits.

import type { ClockStatus, RestampOutcome } from './cluster/clock-control.ts'
import { HeldEvents } from './cluster/held-events.ts'
import { Locks } from './cluster/locks.ts'
import { OperationRunner } from './cluster/operation-runner.ts'
import type { OperationMethod, OperationRequest, OperationResponse, UntypedRequest } from './cluster/operation-types.ts'
import { type CheckedOptions, type ClusterOptions, checkOptions } from './cluster/options.ts'
import type { QuarantineControl } from './cluster/quarantine-control.ts'
import { logOpened, storeReports } from './cluster/reports.ts'
import { Service } from './cluster/service.ts'
import { type ClusterState, type ClusterView, viewOf } from './cluster/view.ts'
import { ClusterError, clusterError, clusterErrorFrom, invalidRequest, reasonOf } from './errors.ts'
import { type ClusterEventSource, createEventSource } from './events/event-source.ts'
import { type ClusterEvents, type EventName, eventNames, SafeEmitter } from './events/events.ts'
import type { Timestamp, Transaction } from './host/host.ts'
import type { SlowHostCall } from './host/host-calls.ts'
import { HybridClock } from './host/hybrid-clock.ts'
import { type WatchedHost, watchHost } from './host/watched-host.ts'
import type { Manifest } from './manifest/manifest.ts'
import { ManifestStore } from './manifest/store.ts'
import type { MeshState } from './mesh/mesh.ts'
import { publishToChannel, traced } from './observe/diagnostics.ts'
import type { Logger } from './observe/logger.ts'
import { observeMetrics } from './observe/meter.ts'
import type { Metrics } from './observe/metrics.ts'
import type { Caller, OperationName, OperationOptions, ResponseOf } from './operations/index.ts'
import type { SubscriptionStatus } from './replication/subscribe/subscription-status.ts'
import { transactionIssues } from './replication/wire.ts'
import { type EndStep, runSteps } from './util/run-steps.ts'
import { systemTimers } from './util/timers.ts'

/** ms for each part, after which the next one is closed. */
const CLOSE_TIMEOUT_MS = 10_000

const end = (logger: Logger, steps: readonly EndStep[]): Promise<void> =>
  runSteps(steps, (step, error) => logger.error({ step, reason: error.message }, 'closing failed in part'))

export class ClusterManager extends SafeEmitter {
  /** The same events without `emit`, for plugins. */
  readonly events: ClusterEventSource = createEventSource(this)
  /** A frozen, read-only view of this manager, for plugins. */
  readonly view: ClusterView = viewOf(this)
  /** Messages of remote nodes that could not be applied: unreadable, with a timestamp more than `maxClockDrift` ahead, or refused by the database. */
  readonly quarantine: QuarantineControl = {
    list: (source) => this.#service?.quarantine.list(source) ?? [],
    add: (source) => this.#runner.withService(({ replicator }) => replicator.quarantineRefused(source)),
    replay: (source, sequences) => this.#runner.withService(({ replicator }) => replicator.replay(source, sequences)),
    discard: (source, sequences) => this.#runner.withService(({ replicator }) => replicator.discard(source, sequences)),
  }
  /** `host` is the watched one. */
  readonly #options: CheckedOptions & { host: WatchedHost }
  readonly #store: ManifestStore
  readonly #clock: HybridClock
  readonly #locks: Locks
  readonly #runner: OperationRunner
  /** Undefined while clustering is disabled. */
  #service: Service | undefined
  #state: ClusterState = 'opening'
  readonly #heldEvents = new HeldEvents()
  #closing: Promise<void> | undefined
  #stopMetering: (() => void) | undefined

  private constructor(options: CheckedOptions, store: ManifestStore, locks: Locks) {
    super()
    const timers = options.mesh?.timers ?? systemTimers
    const onSlow = (call: SlowHostCall) => {
      this.emit('host:slow', call)
      this.#service?.onHostSlow(call)
    }
    const { hostTimeout: timeout, logger } = options
    this.#options = { ...options, host: watchHost(options.host, { timeout, timers, logger, onSlow }) }
    this.#store = store
    this.#locks = locks
    this.#runner = new OperationRunner({
      options: this.#options,
      store,
      service: () => this.#service,
      state: () => this.#state,
    })
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
   * nats_server_missing, port_taken, tls_invalid, directory_unusable, directory_in_use, host_timeout, server_failed; nothing is left running then.
   */
  static async open(options: ClusterOptions): Promise<ClusterManager> {
    const checked = checkOptions(options)
    const locks = await Locks.open(checked)
    let store: ManifestStore | undefined
    let manager: ClusterManager | undefined
    try {
      store = await ManifestStore.open(checked.configFile, { logger: checked.logger })
      checked.logger.localNode = store.manifest.nodeName
      if (store.manifest.enabled) await locks.lockDirectories(store.settings)
      manager = new ClusterManager(checked, store, locks)
      const timestamp = await manager.#options.host.lastTimestamp()
      if (timestamp) manager.#clock.resume(timestamp)
      await manager.#start()
      return manager
    } catch (error) {
      // What fails meanwhile is logged: the first error is the cause.
      await (manager
        ? manager.close()
        : end(checked.logger, [
            ['closing the file', () => store?.close(), CLOSE_TIMEOUT_MS],
            ['releasing the locks', () => locks.release(), CLOSE_TIMEOUT_MS],
          ])
      ).catch(() => {})
      throw error instanceof ClusterError ? error : clusterErrorFrom(error, 'server_failed', 'cluster', reasonOf(error))
    }
  }

  async #start(): Promise<void> {
    const emit = this.emit.bind(this)
    const reports = storeReports(emit, this.#options)
    this.#store.listen(reports)
    if (this.#store.warnings.length > 0) reports.warned?.(this.#store.warnings)
    if (this.manifest.enabled) {
      const [options, store, clock] = [this.#options, this.#store, this.#clock]
      this.#service = await Service.create({ options, store, clock, emit })
      await this.#service.start()
    }
    const { meter } = this.#options
    this.#stopMetering = meter && observeMetrics(meter, this.manifest.nodeName, () => this.metrics())
    this.#state = 'open'
    logOpened(this.#options, this.#store, this.#service?.mesh)
    this.#heldEvents.release()
  }

  /**
   * Idempotent. Waits for transactions in flight, then ends both servers. Transactions without an acknowledgement stay in the outbox.
   * Rejects internal when a part failed or, usually for a method of the host, did not end in time; everything else is ended then too.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close().finally(() => this.end())
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#state = 'closing'
    const endHostCalls = this.#options.host.beginClose()
    try {
      await end(this.#options.logger, [
        ['ending the meter', () => this.#stopMetering?.(), CLOSE_TIMEOUT_MS],
        ['closing the file', () => this.#store.close(), CLOSE_TIMEOUT_MS],
        // Its own steps are limited.
        ['closing the service', () => this.#service?.close()],
        ['ending calls of the host', endHostCalls, CLOSE_TIMEOUT_MS],
        ['releasing the locks', () => this.#locks.release(), CLOSE_TIMEOUT_MS],
      ])
    } catch (error) {
      throw clusterErrorFrom(error, 'internal', reasonOf(error))
    } finally {
      this.#state = 'closed'
    }
    this.#options.logger.info({}, 'cluster manager closed')
  }

  // --- state --------------------------------------------------------------------------------------------------------------

  get state(): ClusterState {
    return this.#state === 'open' && this.#service?.superseded ? 'superseded' : this.#state
  }

  /** The configured state, frozen: node name, routes, nodes and their subscriptions. */
  get manifest(): Manifest {
    return this.#store.manifest
  }

  /** Undefined while clustering is disabled. */
  get meshState(): MeshState | undefined {
    return this.#service?.mesh.state
  }

  /** How far timestamps of this node are ahead; with `reason` when that is more than `maxClockDrift`. */
  get clock(): ClockStatus {
    return this.#service?.clockControl.status ?? { aheadMs: this.#clock.aheadMs }
  }

  /** The nodes of the manifest, in its order; `up`: heartbeats arrive. */
  peers(): { node: string; up: boolean }[] {
    return this.manifest.nodes.map(({ name }) => ({ node: name, up: this.#service?.peers.isUp(name) ?? false }))
  }

  /** One entry per remote table: state, position, lag, last error, gaps, messages in quarantine. */
  subscriptions(): SubscriptionStatus[] {
    return this.#service?.subscriptions() ?? []
  }

  /** Counters since the manager was opened, and current gauges; undefined while clustering is disabled. */
  metrics(): Metrics | undefined {
    if (!this.#service) return undefined
    const { publisher, replicator } = this.#service
    return { publish: publisher.metrics(), apply: replicator.metrics() }
  }

  /** Events that occur before `open` resolves are queued and delivered right after it, in order. `progress` is not queued. */
  override emit<Name extends EventName>(event: Name, ...args: ClusterEvents[Name]): boolean {
    const deliver = () => {
      publishToChannel(event, this.manifest.nodeName, args[0])
      return super.emit(event, ...args)
    }
    return event === 'progress' ? deliver() : this.#heldEvents.deliver(deliver)
  }

  // --- transactions -------------------------------------------------------------------------------------------------------

  /**
   * Call it inside the database's write transaction, and store the result with the rows. Higher than every timestamp issued or applied
   * before. Throws restamping.
   */
  timestamp(): Timestamp {
    if (this.#service?.clockControl.isRestamping) throw clusterError('restamping')
    return this.#clock.timestamp()
  }

  /**
   * Call it after every commit, in the order of commit. Resolves when the local leaf has acknowledged every part; at once while
   * clustering is disabled. Rejects publish_timeout when that takes longer than `publishTimeout` (`mayStillBeSent` says whether it will
   * be sent; with an outbox always), not_in_outbox when the outbox does not contain the transaction, transaction_too_large,
   * invalid_request, closed. Repeated calls for one id wait for the same transaction and send it once.
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

  /**
   * Call it after a table was dropped, also when it was created again since. The database has deleted the checkpoints of the table
   * together with it; this forgets them in memory. The subscriptions of the table stall until the table exists, then they begin at the
   * first message that the stream has. Has no effect while clustering is disabled.
   */
  tableDropped({ database, table }: { database: string; table: string }): void {
    this.#service?.replicator.onTableDropped({ database, table })
  }

  /**
   * After the clock of this node was ahead and is correct again: rewrites timestamps more than `maxClockDrift` in the future, of rows and
   * of subscriptions, to the present, and brings the rows to the peers, which drop what they had quarantined. Meanwhile `timestamp`
   * throws restamping. Writes that other nodes made to these rows before now are overwritten. Rejects restamp_unsupported,
   * restamping, clock_ahead (the clock is still wrong), clustering_disabled, closed, internal (the host rejected: repeat it).
   */
  restamp(): Promise<RestampOutcome> {
    return this.#runner.withService(({ clockControl }) => clockControl.restamp())
  }

  // --- operations ---------------------------------------------------------------------------------------------------------

  /** `cluster_set_routes`: adds the routes that are in neither list, of the hub or of the leaf. */
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
  /** `purge_stream`: removes transactions from the stream of one local table. */
  purgeStream = this.#operation('purge_stream')

  #operation<Name extends OperationName>(name: Name): OperationMethod<Name> {
    const method = (body: unknown = {}, options: OperationOptions = {}): Promise<ResponseOf<Name>> =>
      this.#runner.call(name, body, options)
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
    return this.#runner.execute(request, caller, options)
  }

  /**
   * Fetches the password again (option `password`, if it is a function). If it differs, both servers restart with it, and
   * transactions wait meanwhile. Resolves when it is in effect. Rejects server_failed when a server does not use it yet, and tries
   * again until both do. Rejects invalid_option when the function fails, and nothing changes; clustering_disabled, closed.
   */
  rotatePassword(): Promise<void> {
    return this.#runner.withService(async ({ mesh }) => mesh.rotatePassword?.())
  }
}
