// Runs one subscriber for every subscribed remote table of the manifest: sets its start, starts it and ends it.

import { clusterError } from '../../errors.ts'
import type { SubscriptionState } from '../../events/events.ts'
import type { Checkpoint, CopyReason, RemoteTable } from '../../host/host.ts'
import type { SlowHostCall } from '../../host/host-calls.ts'
import type { Manifest } from '../../manifest/manifest.ts'
import type { StartRequest } from '../../manifest/start-request.ts'
import type { TableName } from '../../mesh/mesh.ts'
import { type Metrics, replicationCounters, subscriptionGauges } from '../../observe/metrics.ts'
import { KeyedMutex } from '../../util/keyed-mutex.ts'
import { Copies } from '../copy/copies.ts'
import { RestoredTables } from '../copy/restored-tables.ts'
import type { StreamPosition } from '../stream-metadata.ts'
import type { ApplierOptions } from './applier-options.ts'
import { Appliers } from './appliers.ts'
import { CatchUpProgress } from './catch-up-progress.ts'
import { EndingSubscriptions, type PendingChange } from './ending-subscriptions.ts'
import { LocalTables } from './local-tables.ts'
import type { ReplicatorOptions } from './replicator-options.ts'
import { ReturningNodes } from './returning-nodes.ts'
import { sourceKey, sourcesOf } from './sources.ts'
import { Subscriber } from './subscriber.ts'
import type { SubscriberContext } from './subscriber-options.ts'
import { Subscribers } from './subscribers.ts'
import { SubscriptionStarts } from './subscription-starts.ts'
import type { SubscriptionStatus } from './subscription-status.ts'
import { TimedRelease } from './timed-release.ts'

export class Replicator {
  readonly #options: ReplicatorOptions
  readonly #subscribers: Subscribers
  readonly #appliers: Appliers
  /** Subscriptions of the last reconciled manifest. */
  readonly #desired = new Map<string, RemoteTable>()
  readonly #ending: EndingSubscriptions
  readonly #counters = replicationCounters()
  /** The nodes of the last reconciled manifest. */
  #reconciledNodes: Manifest['nodes'] = []
  /** Serializes starts and ends of each subscription: a database that does not answer for one table holds up no other. */
  readonly #mutex = new KeyedMutex()
  #lastReconcile: Promise<unknown> = Promise.resolve()
  #closed = false
  readonly #progress: CatchUpProgress
  readonly #tables: LocalTables
  readonly #copies: Copies
  readonly #restored = new RestoredTables()
  readonly #starts: SubscriptionStarts
  readonly #returningNodes: ReturningNodes
  readonly #timedRelease: TimedRelease
  readonly #context: SubscriberContext

  constructor(options: ReplicatorOptions) {
    this.#options = options
    const { host, mesh, begun, sourceTables } = options
    this.#subscribers = new Subscribers(mesh.timers)
    this.#subscribers.startChecks()
    this.#tables = new LocalTables({ host, timers: mesh.timers, begun, sources: sourceTables })
    this.#copies = new Copies({
      host,
      rows: options.rows,
      hashes: options.hashes,
      repair: options.repair ?? true,
      hasOtherSource: (source) => this.#hasOtherSource(source),
      copyFromOthers: async (source) => {
        for (const { source: other } of this.#subscribers.ofTable(source))
          if (other.node !== source.node) await this.#requestCopy(other, 'table_replaced')
      },
    })
    this.#returningNodes = new ReturningNodes(mesh, () => this.#subscribers.values())
    this.#ending = new EndingSubscriptions({
      timers: mesh.timers,
      logger: options.logger,
      mutex: this.#mutex,
      timeout: options.requestTimeout,
      keyOf: sourceKey,
      isRunning: (key) => this.#subscribers.has(key),
      deleteCheckpoint: (source) => this.#deleteCheckpoint(source),
    })
    this.#starts = new SubscriptionStarts({
      ...options,
      copies: this.#copies,
      ending: this.#ending,
      mutex: this.#mutex,
      keyOf: sourceKey,
      applierOf: (source) => this.#appliers.of(source),
      isRunning: (key) => this.#subscribers.has(key),
      isCommitted: (key) => this.#desired.has(key),
      whileStopped: (source, work) => this.#whileStopped(source, work),
    })
    this.#progress = new CatchUpProgress({
      timers: options.mesh.timers,
      status: () => this.status(),
      applied: () => this.#counters.applied,
      report: options.progress,
    })
    this.#timedRelease = new TimedRelease({
      ...options,
      timers: mesh.timers,
      subscriber: (source) => this.#subscribers.get(sourceKey(source)),
      applier: (table) => this.#appliers.of(table),
    })
    this.#appliers = this.#createAppliers()
    this.#context = this.#subscriberContext()
  }

  /**
   * Starts new subscriptions and ends removed ones. Skips nodes that are the same object as before. Resolves when each was
   * tried once; `pending` lists those that have not ended. Never rejects.
   */
  async reconcile({ nodes }: Manifest): Promise<void> {
    const before = new Set(this.#reconciledNodes)
    const unchanged = new Set(nodes.filter((node) => before.has(node)).map(({ name }) => name))
    const desired = new Map(
      sourcesOf(nodes.filter(({ name }) => !unchanged.has(name))).map((source) => [sourceKey(source), source]),
    )
    this.#reconciledNodes = nodes
    const changes: Promise<void>[] = []
    const retries = this.#ending.retryAll()
    for (const [key, source] of [...this.#desired]) {
      if (unchanged.has(source.node) || desired.has(key)) continue
      this.#desired.delete(key)
      changes.push(this.#end(key, source))
    }
    for (const [key, source] of desired) {
      if (this.#desired.has(key) && this.#subscribers.has(key)) continue
      this.#desired.set(key, source)
      changes.push(this.#mutex.run(key, () => this.#start(key, source)))
    }
    this.#lastReconcile = this.#waitLimited([this.#lastReconcile, ...changes])
    await Promise.all([...changes, retries])
  }

  /** Resolves when everything reconciled so far was tried once, or has not ended within `requestTimeout`. Never rejects. */
  async idle(): Promise<void> {
    await this.#lastReconcile
  }

  async #waitLimited(changes: readonly Promise<unknown>[]): Promise<void> {
    const { mesh, requestTimeout } = this.#options
    let cancel = () => {}
    const limit = new Promise<void>((resolve) => {
      cancel = mesh.timers.after(requestTimeout, resolve)
    })
    await Promise.race([Promise.all(changes), limit]).finally(cancel)
  }

  /** Changes that are not in effect yet. */
  pending(): PendingChange[] {
    return this.#ending.list().map(({ source, reason }) => {
      const { error } = this.#subscribers.get(sourceKey(source))?.status() ?? {}
      return { source, reason: error ?? reason }
    })
  }

  /** The database has not answered a call, or has answered it late. */
  onHostSlow({ method, node, database, table, ms, answered }: SlowHostCall): void {
    if (node === undefined) return
    const reason = answered ? undefined : `the database has not answered ${method} for ${Math.round(ms / 1_000)} s`
    for (const { source, subscriber } of this.#subscribers.ofTable({ database, table }))
      subscriber.onHostSlow(reason, source.node === node)
  }

  /** See SubscriptionStarts.set. */
  setStart(source: RemoteTable, start?: StartRequest, since?: number): Promise<() => Promise<void>> {
    return this.#starts.set(source, start, since)
  }

  /** The subscription has a request that it has not begun; if it runs, it begins it now. */
  onStartRequested(source: RemoteTable): void {
    this.#subscribers.get(sourceKey(source))?.restart()
  }

  /** Runs `work` while the subscriber of this source, if there is one, is stopped. */
  async #whileStopped(source: RemoteTable, work: () => Promise<void>): Promise<void> {
    const key = sourceKey(source)
    const running = this.#subscribers.get(key)
    if (running) await this.#stop(key, running)
    try {
      await work()
    } finally {
      if (running) this.#start(key, source, running.requestedCopy)
    }
  }

  /** Whether the subscription is paused has changed. Resolves when that is in effect. */
  onPausedChanged(source: RemoteTable): Promise<void> {
    const key = sourceKey(source)
    return this.#mutex.run(key, async () => {
      const running = this.#subscribers.get(key)
      if (!running) return
      await this.#stop(key, running, 'pending')
      this.#start(key, running.source, running.requestedCopy)
    })
  }

  /** A remote node reports the positions of its streams. */
  onPeerPositions(node: string, streams: readonly (TableName & StreamPosition)[]): void {
    for (const { database, table, ...position } of streams)
      this.#subscribers.get(sourceKey({ node, database, table }))?.onPeerPosition(position)
  }

  /** See ReturningNodes.restart. */
  restart(): void {
    this.#returningNodes.restart()
  }

  /** See ReturningNodes.onPeerReturned. */
  onPeerReturned(node: string, how: { restarted: boolean; silence: number }): void {
    this.#returningNodes.onPeerReturned(node, how)
  }

  status(): SubscriptionStatus[] {
    return this.#subscribers.status()
  }

  /** What is asked for every second, at little cost. */
  get summaries(): Pick<Subscribers, 'troubled' | 'pending' | 'readNodes'> {
    return this.#subscribers
  }

  /** Undefined without a subscription. */
  statusOf(source: RemoteTable): SubscriptionStatus | undefined {
    return this.#subscribers.get(sourceKey(source))?.status()
  }

  metrics(): Metrics['apply'] {
    return { ...this.#counters, ...subscriptionGauges(this.status()), quarantined: this.#options.quarantine.size }
  }

  /** All subscriptions of the last reconciled manifest. */
  get sources(): RemoteTable[] {
    return [...this.#desired.values()]
  }

  /** As last read or stored. */
  checkpointOf(source: RemoteTable): Checkpoint | undefined {
    return this.#appliers.find(source)?.checkpointOf(source)
  }

  /** After `close`: the next `reconcile` starts all subscriptions again. */
  reopen(): void {
    this.#closed = false
    this.#timedRelease.start()
    this.#subscribers.startChecks()
    this.#ending.reopen()
    this.#reconciledNodes = []
  }

  /**
   * Copies all rows of a source again; with `replace`, the local table is emptied first. Resolves when that is stored. Rejects
   * subscription_not_found, rows_not_served, replace_unsupported, and as the host does.
   */
  async requestCopy(source: RemoteTable, { replace = false }: { replace?: boolean } = {}): Promise<void> {
    const { rows, host } = this.#options
    const { source: known } = this.requireSubscriber(source)
    if (rows?.serves(known) === false) throw clusterError('rows_not_served', source.node)
    if (replace && !host.emptyTable) throw clusterError('replace_unsupported')
    await this.#requestCopy(known, 'requested', replace)
  }

  async #requestCopy(source: RemoteTable, reason: CopyReason, replace = false): Promise<void> {
    await this.#appliers.of(source).requestCopy(source, reason, replace)
    this.#subscribers.get(sourceKey(source))?.onCopyRequested()
  }

  /** The local database is an older copy: it gets back from every source what it has lost. */
  onDatabaseRestored(table: TableName): void {
    if (!(this.#options.repair ?? true)) return
    this.#restored.add(table)
    for (const { subscriber } of this.#subscribers.ofTable(table)) this.#copyIfRestored(subscriber)
  }

  #copyIfRestored(subscriber: Subscriber, requested?: CopyReason): void {
    const reason = this.#restored.takeCopy(subscriber.source) ? 'database_restored' : requested
    if (reason) subscriber.requestCopy(reason)
  }

  /** A negotiation created a local table. */
  onTableCreated(table: TableName): void {
    this.#copies.onTableCreated(table)
  }

  /** A local table was dropped, and perhaps created again: the checkpoints of its sources are void. */
  onTableDropped(table: TableName): void {
    const ofTable = this.#subscribers.ofTable(table)
    this.#tables.invalidate()
    this.#copies.onTableDropped(table)
    this.#appliers.of(table).onTableDropped(ofTable.map(({ source }) => source.node))
    for (const { subscriber } of ofTable) subscriber.restart()
  }

  /** The primary keys of a remote node's tables are known: stalls the subscriptions whose local tables differ. */
  onSourceKeys(node: string): void {
    for (const subscriber of this.#subscribers.values())
      if (subscriber.source.node === node && this.#tables.hasOtherKey(subscriber.source)) subscriber.restart()
  }

  /** Calls into the host end in time, because the manager closes. */
  async close(): Promise<void> {
    this.#closed = true
    this.#progress.stop()
    this.#timedRelease.close()
    this.#subscribers.stopChecks()
    this.#ending.close()
    await Promise.all(
      [...this.#subscribers].map(([key, subscriber]) => this.#mutex.run(key, () => this.#stop(key, subscriber))),
    )
  }

  /** Throws subscription_not_found. */
  requireSubscriber(source: RemoteTable): Subscriber {
    const subscriber = this.#subscribers.get(sourceKey(source))
    if (!subscriber) throw clusterError('subscription_not_found', source.node, `${source.database}.${source.table}`)
    return subscriber
  }

  #start(key: string, source: RemoteTable, requestedCopy?: CopyReason): void {
    if (this.#closed || this.#subscribers.has(key)) return
    this.#ending.cancel(key)
    const subscriber = new Subscriber(this.#context, { source, applier: this.#appliers.of(source) })
    this.#subscribers.set(key, subscriber)
    if (this.#options.isPaused?.(source)) subscriber.startPaused()
    else subscriber.start()
    this.#copyIfRestored(subscriber, requestedCopy)
  }

  async #stop(key: string, subscriber: Subscriber, state?: SubscriptionState): Promise<void> {
    await subscriber.stop(state)
    this.#subscribers.delete(key)
  }

  #end(key: string, source: RemoteTable): Promise<void> {
    this.#ending.begin(source, 'the subscription is ending')
    return this.#mutex.run(key, async () => {
      const subscriber = this.#subscribers.get(key)
      if (subscriber) await this.#stop(key, subscriber)
      await this.#ending.finish(source)
    })
  }

  async #deleteCheckpoint(source: RemoteTable): Promise<void> {
    const { host, quarantine } = this.#options
    // A copy may have ended half-way with the subscription.
    await this.#appliers.of(source).announceChanges(source)
    this.#appliers.of(source).dropCheckpoint(source.node)
    await quarantine.reconcile(source, undefined)
    await host.deleteCheckpoint(source)
  }

  #subscriberContext(): SubscriberContext {
    const options = this.#options
    const { state } = options.events
    return {
      ...options,
      mesh: this.#returningNodes.streams,
      timers: options.mesh.timers,
      events: {
        ...options.events,
        state: (source, current, ...more) => {
          if (current === 'catching-up') this.#progress.start()
          state(source, current, ...more)
        },
      },
      counters: this.#counters,
      tables: this.#tables,
      copies: this.#copies,
      isSubscribed: (table) => this.#desired.has(sourceKey(table)),
      onTableDropped: (table) => this.onTableDropped(table),
    }
  }

  #createAppliers(): Appliers {
    const { events } = this.#options
    const options: ApplierOptions = {
      ...this.#options,
      counters: this.#counters,
      validate: (source, transactions) => this.#tables.validate(source, transactions),
      onRecovered: (...recovered) => events.applied(...recovered),
      onCommitted: (source, _, { ignoredWrites = 0 }) => {
        if (ignoredWrites > 0) events.refusedOld(source, ignoredWrites)
      },
      onSourceChanged: (source, copy) => this.#copies.afterSourceChange(source, copy),
    }
    return new Appliers(options, (source) => this.#options.onCheckpoint?.(source))
  }

  /** By the manifest, or by a start that is to be committed. */
  #hasOtherSource({ node, ...table }: RemoteTable): boolean {
    if (this.#appliers.of(table).checkpointsOfOthers(node).length > 0) return true
    return this.#reconciledNodes.some(
      ({ name }) => name !== node && this.#desired.has(sourceKey({ ...table, node: name })),
    )
  }
}
