// The entry point: a database opens one ClusterManager. This is how a transaction travels from one node to another:
//
// 1. The database commits rows, timestamp and outbox entry together, and calls `publish`. The publisher reads the outbox in order,
//    splits each transaction by table, and appends each part to the stream of its table on the local leaf server. When the leaf has
//    acknowledged every part, the entry leaves the outbox.
// 2. Each node that subscribes to the table reads that stream through the hubs, from its checkpoint on. `host.apply` stores the rows
//    and the new checkpoint in one database transaction. The checkpoint alone is the position: the server gets no acknowledgements.
//
// When the network between two nodes is cut, the databases still commit and the local leaves still store. When it is back, each
// subscriber continues after its checkpoint. What limits or a purge removed from the stream meanwhile is reported as a gap, and the
// rows are copied from the source (`replication/copy`). While the local leaf is down, transactions stay in the outbox.
//
// A new subscriber has no checkpoint: it begins at the end of the stream, or at `start_time`. If its table is empty, it also copies the
// rows of the source, while it reads the stream: each row is an old write with its own timestamp.
//
// `cluster/lifecycle.ts` has the order of opening and closing, and `cluster/service.ts` builds the parts. When the manifest (the
// cluster configuration in the YAML file) changes, `cluster/reconcile.ts` adapts routes, subscriptions and stream limits.

import type { ClockStatus, RestampOutcome } from './cluster/clock-control.ts'
import { HeldEvents } from './cluster/held-events.ts'
import { closeParts, type OpenParts, openManager } from './cluster/lifecycle.ts'
import type { Locks } from './cluster/locks.ts'
import { OperationMethods } from './cluster/operation-methods.ts'
import { OperationRunner } from './cluster/operation-runner.ts'
import type { CheckedOptions, ClusterOptions } from './cluster/options.ts'
import { createQuarantineControl, type QuarantineControl } from './cluster/quarantine-control.ts'
import { logOpened, storeReports } from './cluster/reports.ts'
import { Service } from './cluster/service.ts'
import { noteUnrecorded } from './cluster/unrecorded-commits.ts'
import { type ClusterState, type ClusterView, viewOf } from './cluster/view.ts'
import type { CaughtUpOptions, ReplicatedOptions } from './cluster/waiting-options.ts'
import { clusterError, invalidRequest } from './errors.ts'
import { type ClusterEventSource, createEventSource } from './events/event-source.ts'
import { type ClusterEvents, type EventName, eventNames } from './events/events.ts'
import type { RemoteTable, TableName, Timestamp, Transaction } from './host/host.ts'
import type { SlowHostCall } from './host/host-calls.ts'
import { HybridClock, makeTimestamp } from './host/hybrid-clock.ts'
import { checkedTimestamp, type TimestampSource } from './host/timestamp-source.ts'
import type { VerifyResult } from './host/verify-result.ts'
import { type WatchedHost, watchHost } from './host/watched-host.ts'
import type { Manifest } from './manifest/manifest.ts'
import type { ManifestStore } from './manifest/store.ts'
import type { ClusterMeshState } from './mesh/mesh.ts'
import { publishToChannel, traced } from './observe/diagnostics.ts'
import { type Health, healthOf } from './observe/health.ts'
import { observeMetrics } from './observe/meter.ts'
import type { Metrics } from './observe/metrics.ts'
import type { VerifyOptions } from './replication/copy/verifier.ts'
import type { Replica } from './replication/positions/replica-positions.ts'
import type { SubscriptionStatus } from './replication/subscribe/subscription-status.ts'
import { checkTransaction, transactionIssues } from './replication/wire/names.ts'
import { systemTimers, type Timers } from './util/timers.ts'

/** In timestamps of a node that has no name, because clustering was never enabled. */
const LOCAL = 'local'

export class ClusterManager extends OperationMethods {
  /** The same events without `emit`, for plugins. */
  readonly events: ClusterEventSource = createEventSource(this)
  /** A frozen, read-only view of this manager, for plugins. */
  readonly view: ClusterView = viewOf(this, (node, options) =>
    this.#runner.useService(({ peers }) => peers.links(node, options)),
  )
  /** Messages of remote nodes that are invalid, that the database refused, or whose timestamp is more than `maxClockDrift` ahead. */
  readonly quarantine: QuarantineControl
  /** `host` is the watched one. */
  readonly #options: CheckedOptions & { host: WatchedHost }
  readonly #store: ManifestStore
  readonly #clock: HybridClock
  readonly #timers: Timers
  readonly #locks: Locks
  readonly #runner: OperationRunner
  /** Undefined while clustering is disabled. */
  #service: Service | undefined
  #state: ClusterState = 'opening'
  readonly #heldEvents = new HeldEvents()
  #closing: Promise<void> | undefined
  #stopMetering: (() => void) | undefined
  #notingUnrecorded: Promise<void> | undefined

  private constructor({ options, store, locks }: OpenParts) {
    super(() => this.#runner)
    this.#timers = options.mesh?.timers ?? systemTimers
    const timers = this.#timers
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
    this.quarantine = createQuarantineControl(this.#runner, () => this.#service)
    this.#clock = new HybridClock(store.manifest.nodeName || LOCAL, options.maxClockDrift, () => timers.now())
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
  static open(options: ClusterOptions): Promise<ClusterManager> {
    return openManager(
      options,
      (parts) => new ClusterManager(parts),
      (manager) => manager.#start(),
    )
  }

  async #start(): Promise<void> {
    const timestamp = await this.#options.host.lastTimestamp()
    if (timestamp) this.#clock.resume(timestamp)
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
    const sources = { metrics: () => this.metrics(), tables: () => this.#service?.replicator.status() ?? [] }
    this.#stopMetering = meter && observeMetrics(meter, this.manifest.nodeName, sources)
    this.#state = 'open'
    logOpened(this.#options, this.#store, this.#service?.mesh)
    this.#heldEvents.release()
  }

  /**
   * Idempotent. Waits for transactions in flight, then ends both servers; the outbox keeps what was not acknowledged. Rejects
   * internal when a part, usually a method of the host, failed or did not end in time; everything else is ended all the same.
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
    this.#clock.stopThreads('closed')
    const { host, logger } = this.#options
    const endHostCalls = host.beginClose()
    const [store, locks, service, stopMetering] = [this.#store, this.#locks, this.#service, this.#stopMetering]
    try {
      await closeParts(logger, { store, locks, service, stopMetering, endHostCalls })
    } finally {
      this.#state = 'closed'
    }
    logger.info({}, 'cluster manager closed')
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
  get meshState(): ClusterMeshState | undefined {
    return this.#service?.health.meshState
  }

  /** Why `meshState` is `isolated` or `disconnected`. */
  get meshReason(): string | undefined {
    return this.#service?.health.meshReason
  }

  /**
   * What is wrong now, computed when it is called. `ready`: this node takes part, and its streams store what is committed. While
   * clustering is disabled, an open node is ready.
   */
  health(): Health {
    if (this.#state !== 'open') return healthOf([{ code: 'not_open', message: `the manager is ${this.#state}` }])
    return this.#service?.health.status() ?? healthOf([])
  }

  /** How far timestamps of this node are ahead; with `reason` when that is more than `maxClockDrift`. */
  get clock(): ClockStatus {
    return this.#service?.clockControl.status ?? { aheadMs: this.#clock.aheadMs }
  }

  /** The nodes of the manifest, in its order; `up`: heartbeats arrive, or the node runs HarperDB, which sends none, and is read. */
  peers(): { node: string; up: boolean }[] {
    return this.#service?.peerStates() ?? this.manifest.nodes.map(({ name }) => ({ node: name, up: false }))
  }

  /** One entry per remote table: state, position, lag, last error, gaps, messages in quarantine. */
  subscriptions(): SubscriptionStatus[] {
    return this.#service?.subscriptions() ?? []
  }

  /**
   * One entry per node that subscribes to this local table: how far it is, by its last report. A node reports about a second after it has
   * applied something, and at once while `replicated` waits.
   */
  replicas(table: TableName): Replica[] {
    return this.#service?.positions.replicas(table) ?? []
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
   * Call it inside the write transaction of the database, and store the result with the rows. It is higher than every timestamp
   * issued or applied before, and than `after`: the highest timestamp in the database, if other processes commit into it too
   * (`timestampAfter`). Throws restamping, and a TypeError for an invalid `after`.
   */
  timestamp(after?: Timestamp): Timestamp {
    this.#checkRestamping()
    if (after !== undefined) this.#clock.resume(checkedTimestamp(after))
    return this.#clock.timestamp()
  }

  /** For `timestampsFrom` in other threads, until this manager closes. Throws restamping, closed. */
  timestampSource(): TimestampSource {
    this.#checkRestamping()
    if (this.#closing) throw clusterError('closed')
    return { node: this.manifest.nodeName || LOCAL, memory: this.#clock.share() }
  }

  #checkRestamping(): void {
    if (this.#service?.clockControl.isRestamping) throw clusterError('restamping')
  }

  /**
   * The database may drop tombstones with lower timestamps, if it stores the highest of them as the horizon of their table
   * (`Host.horizon`): the lowest wall time of this node and its peers, less `tombstoneAge`. Undefined while timestamps of this node
   * are too far in the future (`clock:ahead`): no tombstone may be dropped.
   */
  tombstoneLimit(): Timestamp | undefined {
    const time = this.#service ? this.#service.clockControl.lowestTime() : this.#timers.now()
    if (time === undefined) return undefined
    return makeTimestamp(Math.max(0, Math.floor(time - this.#options.tombstoneAge)), 0, this.manifest.nodeName || LOCAL)
  }

  /**
   * Call it after every commit, in the order of commit. Resolves when the local leaf has acknowledged every part; at once while
   * clustering is disabled. Calls with the same id wait for one transaction and send it once. Rejects publish_timeout after
   * `publishTimeout` (`mayStillBeSent`: always true with an outbox), not_in_outbox when the outbox does not contain the transaction,
   * transaction_too_large, invalid_request, closed.
   */
  publish(transaction: Transaction): Promise<void> {
    if (this.#state !== 'open') return Promise.reject(clusterError('closed'))
    const issues = transactionIssues(transaction)
    if (issues) return Promise.reject(invalidRequest(issues))
    return traced(
      'publish',
      () => ({ node: this.manifest.nodeName, transaction }),
      () => this.#service?.publisher.publish(transaction) ?? this.#noteUnrecorded(),
    )
  }

  /**
   * Resolves when so many other nodes, or these, have applied the transaction; also when `publish` was called for it before. Rejects as
   * `publish`, but not not_in_outbox (it was confirmed before); too_few_replicas at once, not_applied when a node has passed it without
   * applying it, replication_timeout, aborted (by `signal`), invalid_request, mesh_unavailable, clustering_disabled, closed. The transaction
   * stays committed and is replicated in any case.
   */
  async replicated(transaction: Transaction, options?: ReplicatedOptions): Promise<void> {
    checkTransaction(transaction)
    return this.#runner.useService(({ positions }) => positions.replicated(transaction, options))
  }

  /**
   * A string of at most 4 KB that stands for this transaction: `caughtUp` of another node waits for it. Resolves and rejects as `publish`
   * does; rejects token_too_large, mesh_unavailable and clustering_disabled too.
   */
  async token(transaction: Transaction): Promise<string> {
    checkTransaction(transaction)
    return this.#runner.useService(({ positions }) => positions.token(transaction))
  }

  /**
   * Resolves when this node has the transaction of a token, by whatever path: reads then see it. Rejects token_invalid, token_expired,
   * subscription_not_found, not_applied, replication_timeout, aborted (by `signal`), invalid_request, clustering_disabled, closed; for a
   * token of this node, mesh_unavailable while its stream is not known yet after the start.
   */
  caughtUp(token: string, options?: CaughtUpOptions): Promise<void> {
    return this.#runner.useService(({ positions }) => positions.caughtUp(token, options))
  }

  #noteUnrecorded(): Promise<void> {
    this.#notingUnrecorded ??= noteUnrecorded(this.#options, this.#store.settings)
    return this.#notingUnrecorded
  }

  /**
   * Call it after a table was dropped, even if it exists again. The database deletes the checkpoints with the table; this call deletes
   * those in memory. The subscriptions of the table stall until it exists, then begin at the first message of their streams.
   */
  tableDropped({ database, table }: { database: string; table: string }): void {
    this.#service?.replicator.onTableDropped({ database, table })
  }

  /**
   * Call it when the clock of this node was ahead and is correct again. Rewrites timestamps of rows and subscriptions more than
   * `maxClockDrift` in the future to the present, and sends the rows to the peers, which drop what they had quarantined. Meanwhile
   * `timestamp` throws restamping. The rows win over earlier writes of other nodes. Rejects restamp_unsupported, restamping,
   * clock_ahead (the clock is still wrong), clustering_disabled, closed, internal (the host rejected: repeat it).
   */
  restamp(): Promise<RestampOutcome> {
    return this.#runner.withService(({ clockControl }) => clockControl.restamp())
  }

  /**
   * Compares a table with that of a remote node of the manifest, by the keys and timestamps of the rows, with `values` also by their
   * values, while both are written to. Resolves with what differs; with `repair` those rows are copied. One comparison at a time for
   * each table; a request that does not reach the node is repeated once. Rejects subscription_not_found, rows_not_served,
   * table_not_found, aborted (by `signal`), node_not_listening, node_timeout, peer_rejected, mesh_unavailable, clustering_disabled,
   * closed, internal.
   */
  verify(source: RemoteTable, options: VerifyOptions = {}): Promise<VerifyResult> {
    return this.#runner.withService(({ rows }) => rows.verify(source, options))
  }

  /**
   * Copies all rows of a subscribed remote table again. With `replace`, all rows and tombstones of the local table are removed first,
   * as soon as the source answers: the way back for a stale subscription. Resolves when that is stored, then goes on also after a
   * restart, until `replication:copied`. Rejects subscription_not_found, rows_not_served, replace_unsupported, clustering_disabled,
   * closed, internal.
   */
  copy(source: RemoteTable, options: { replace?: boolean } = {}): Promise<void> {
    return this.#runner.withService(({ replicator }) => replicator.requestCopy(source, options))
  }

  /**
   * Applies nothing of a subscribed remote table until `resume`, also after a restart; copies stop too. Its stream keeps what arrives, within
   * its limits. Resolves when nothing is being applied any more. Rejects subscription_not_found, state_unwritable, clustering_disabled,
   * closed, internal.
   */
  pause(source: RemoteTable): Promise<void> {
    return this.#runner.withService((service) => service.pauses.set(source, true))
  }

  /** Ends a pause: the subscription continues where it stopped. Rejects as `pause`. */
  resume(source: RemoteTable): Promise<void> {
    return this.#runner.withService((service) => service.pauses.set(source, false))
  }

  // --- credentials -------------------------------------------------------------------------------------------------------

  /**
   * Fetches the password again (option `password`, if it is a function). If it differs, both servers restart with it; transactions
   * wait meanwhile. Rejects server_failed when a server does not use it yet, and retries until both do. Rejects invalid_option when
   * the function fails, and nothing changes; clustering_disabled, closed.
   */
  rotatePassword(): Promise<void> {
    return this.#runner.withService(async ({ mesh }) => mesh.rotatePassword?.())
  }
}
