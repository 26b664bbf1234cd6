// Runs one subscriber for every subscribed remote table of the manifest: sets its start, starts it and ends it.

import { clusterError, reasonOf } from '../../errors.ts'
import type { Host, RemoteTable, Transaction } from '../../host/host.ts'
import type { SlowHostCall } from '../../host/host-calls.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { type Manifest, tableKey } from '../../manifest/manifest.ts'
import type { Mesh, TableName } from '../../mesh/mesh.ts'
import type { ReadBudget } from '../../mesh/read-budget.ts'
import type { Logger } from '../../observe/logger.ts'
import { type Metrics, replicationCounters } from '../../observe/metrics.ts'
import { Backoff } from '../../util/backoff.ts'
import { KeyedMutex } from '../../util/keyed-mutex.ts'
import { ANNOUNCE_FOR_MS } from '../publish/local-streams.ts'
import type { StreamPosition } from '../publish/stream-writer.ts'
import { Applier, type ApplierOptions } from './applier.ts'
import { CatchUpProgress } from './catch-up-progress.ts'
import type { BegunSubscriptions } from './cursor.ts'
import { LocalTables, type SourceTables } from './local-tables.ts'
import { NodeGates } from './node-gates.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'
import { type Ending, gaugesOf, keyOf, type PendingChange, sourcesOf } from './sources.ts'
import { Starts } from './starts.ts'
import { type ReplayOutcome, Subscriber, type SubscriberEvents, type SubscriptionStatus } from './subscriber.ts'

export type ReplicatorOptions = {
  mesh: Mesh
  host: Host
  node: string
  clock: HybridClock
  quarantine: Quarantine
  events: SubscriberEvents
  logger: Logger
  relayEnabled: boolean
  /** Publishes transactions of other nodes, which the host's outbox contains now. */
  relay(transactions: Transaction[]): void
  /** When a subscription was made, in ms since 1970; undefined if that is not known. */
  subscribedSince?(source: RemoteTable): number | undefined
  begun: BegunSubscriptions
  sourceTables: SourceTables
  /** Starts a progress report of catching up; the returned function updates it. */
  progress(): (done: number, total: number) => void
  requestTimeout: number
  maxBatch: number
  maxBatchBytes: number
  maxApplyAttempts: number
  /** The memory for messages of all subscriptions; see ReadOptions. */
  budget?: ReadBudget
}

/** ms. Heartbeats carry a position for `ANNOUNCE_FOR_MS` after the last message; some of them may be lost. */
const POSITIONS_KNOWN_FOR_MS = ANNOUNCE_FOR_MS - 5_000

const DELETE_BACKOFF_MS = { first: 1_000, max: 30_000 }

export class Replicator {
  readonly #options: ReplicatorOptions
  readonly #subscribers = new Map<string, Subscriber>()
  readonly #appliers = new Map<string, Applier>()
  /** Subscriptions of the last reconciled manifest. */
  readonly #desired = new Map<string, RemoteTable>()
  /** Removed subscriptions that still run, or whose checkpoint the host has not deleted yet. */
  readonly #ending = new Map<string, Ending>()
  readonly #counters = replicationCounters()
  /** The nodes of the last reconciled manifest. */
  #reconciledNodes: Manifest['nodes'] = []
  /** Serializes starts and ends of each subscription: a database that does not answer for one table holds up no other. */
  readonly #mutex = new KeyedMutex()
  #lastReconcile: Promise<unknown> = Promise.resolve()
  #closed = false
  readonly #progress: CatchUpProgress
  readonly #starts: Starts
  readonly #tables: LocalTables
  readonly #gates: NodeGates

  constructor(options: ReplicatorOptions) {
    this.#options = options
    const { host, mesh, begun, sourceTables } = options
    this.#tables = new LocalTables({ host, timers: mesh.timers, begun, sources: sourceTables })
    this.#gates = new NodeGates(mesh, (node) => this.#onReachable(node))
    this.#starts = new Starts({
      ...options,
      applierOf: (source) => this.#applierOf(source),
      isRunning: (source) => this.#subscribers.has(keyOf(source)),
      isDesired: (source) => this.#desired.has(keyOf(source)),
      whileStopped: (source, work) => this.#whileStopped(source, work),
      deleteCheckpoint: (source) => this.#deleteCheckpoint(source),
    })
    this.#progress = new CatchUpProgress({
      timers: options.mesh.timers,
      status: () => this.status(),
      applied: () => this.#counters.applied,
      report: options.progress,
    })
  }

  /**
   * Starts new subscriptions and ends removed ones. Skips nodes that are the same object as before. Resolves when each was
   * tried once; `pending` lists those that have not ended. Never rejects.
   */
  async reconcile({ nodes }: Manifest): Promise<void> {
    const before = new Set(this.#reconciledNodes)
    const unchanged = new Set(nodes.filter((node) => before.has(node)).map(({ name }) => name))
    const desired = new Map(
      sourcesOf(nodes.filter(({ name }) => !unchanged.has(name))).map((source) => [keyOf(source), source]),
    )
    this.#reconciledNodes = nodes
    const changes: Promise<void>[] = []
    const retries = [...this.#ending].map(([key, { source }]) => this.#retryEnd(key, source))
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
    await Promise.all([...changes, ...retries])
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
    return [...this.#ending.values()].map(({ source, reason }) => {
      const { error } = this.#subscribers.get(keyOf(source))?.status() ?? {}
      return { source, reason: error ?? reason }
    })
  }

  /** The database has not answered a call, or has answered it late. */
  onHostSlow({ method, node, database, table, ms, answered }: SlowHostCall): void {
    if (node === undefined) return
    const reason = answered ? undefined : `the database has not answered ${method} for ${Math.round(ms / 1_000)} s`
    for (const { source, subscriber } of this.#subscribersOf({ database, table }))
      subscriber.onHostSlow(reason, source.node === node)
  }

  /**
   * Stores where a subscription begins, before it is committed: at `startTime` if that differs from the previous one, else at its
   * present checkpoint, else as `startPosition` says. The returned function undoes that, for a request that fails afterwards: the
   * start of another request stays. Rejects as the mesh and the host do, and with host_timeout while an earlier subscription cannot
   * end. A running subscription that lost its checkpoint finds its own start.
   */
  async setStart(source: RemoteTable, startTime?: string, since?: number): Promise<() => Promise<void>> {
    const key = keyOf(source)
    await this.#waitForEnd(key)
    const stored = await this.#mutex.run(key, async () => {
      if (this.#ending.has(key) && !(await this.#deleteCheckpoint(source))) throw this.#ending.get(key)!.error
      return this.#starts.set(source, { startTime, since })
    })
    return async () => {
      if (stored) await this.#mutex.run(key, () => this.#starts.undo(source, stored))
    }
  }

  /** Runs `work` while the subscriber of this source, if there is one, is stopped. */
  async #whileStopped(source: RemoteTable, work: () => Promise<void>): Promise<void> {
    const key = keyOf(source)
    const running = this.#subscribers.get(key)
    if (running) await this.#stop(key, running)
    try {
      await work()
    } finally {
      if (running) this.#start(key, source)
    }
  }

  /** A remote node reports the positions of its streams. */
  onPeerPositions(node: string, streams: readonly (TableName & StreamPosition)[]): void {
    for (const { database, table, epoch, sequence } of streams)
      this.#subscribers.get(keyOf({ node, database, table }))?.onPeerPosition(epoch, sequence)
  }

  /** The connection of the local servers is a new one: every subscription reads again. */
  restart(): void {
    this.#gates.open()
    for (const subscriber of this.#subscribers.values()) subscriber.restart()
  }

  /**
   * Heartbeats of a node arrive again after `silence` ms. `restarted`: its server is another one, so consumers and requests are gone.
   * After a short silence nothing is asked: messages that were lost show by the positions in the heartbeats.
   */
  onPeerReturned(node: string, { restarted, silence }: { restarted: boolean; silence: number }): void {
    this.#gates.open(node)
    for (const subscriber of this.#subscribers.values()) {
      if (subscriber.source.node !== node) continue
      if (restarted || !subscriber.isReading) subscriber.restart()
      else if (silence > POSITIONS_KNOWN_FOR_MS) subscriber.restartIfStuck()
    }
  }

  /** A probe was answered: the subscriptions that wait for the node do not wait any longer. */
  #onReachable(node: string): void {
    for (const subscriber of this.#subscribers.values()) if (subscriber.source.node === node) subscriber.retryNow()
  }

  status(): SubscriptionStatus[] {
    return [...this.#subscribers.values()].map((subscriber) => subscriber.status())
  }

  /** Number of gaps since the subscription began, and of transactions in them. */
  losses(source: RemoteTable): { gaps: number; lost: number } {
    const { gaps = 0, lost = 0 } = this.statusOf(source) ?? {}
    return { gaps, lost }
  }

  /** Undefined without a subscription. */
  statusOf(source: RemoteTable): SubscriptionStatus | undefined {
    return this.#subscribers.get(keyOf(source))?.status()
  }

  metrics(): Metrics['apply'] {
    return { ...this.#counters, ...gaugesOf(this.status()), quarantined: this.#options.quarantine.size }
  }

  /** Rejects subscription_not_found, and as the host and the disk do. */
  replay(source: RemoteTable, sequences?: readonly number[]): Promise<ReplayOutcome> {
    return this.#requireSubscriber(source).replay(sequences)
  }

  /** Rejects as `replay`. */
  discard(source: RemoteTable, sequences?: readonly number[]): Promise<number[]> {
    return this.#requireSubscriber(source).discard(sequences)
  }

  /** After `close`: the next `reconcile` starts all subscriptions again. */
  reopen(): void {
    this.#closed = false
    this.#reconciledNodes = []
  }

  /** Quarantines the transaction that the database refuses now. Rejects subscription_not_stalled, and as `replay`. */
  async quarantineRefused(source: RemoteTable): Promise<QuarantinedMessage> {
    return this.#requireSubscriber(source).quarantineRefused()
  }

  /** A local table was dropped, and perhaps created again: the checkpoints of its sources are void. */
  onTableDropped(table: TableName): void {
    const ofTable = this.#subscribersOf(table)
    this.#tables.invalidate()
    this.#applierOf(table).onTableDropped(ofTable.map(({ source }) => source.node))
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
    for (const { cancelRetry } of this.#ending.values()) cancelRetry()
    await Promise.all(
      [...this.#subscribers].map(([key, subscriber]) => this.#mutex.run(key, () => this.#stop(key, subscriber))),
    )
  }

  #requireSubscriber(source: RemoteTable): Subscriber {
    const subscriber = this.#subscribers.get(keyOf(source))
    if (!subscriber) throw clusterError('subscription_not_found', source.node, `${source.database}.${source.table}`)
    return subscriber
  }

  #start(key: string, source: RemoteTable): void {
    if (this.#closed || this.#subscribers.has(key)) return
    this.#ending.get(key)?.cancelRetry()
    this.#ending.delete(key)
    const { events } = this.#options
    const subscriber = new Subscriber({
      ...this.#options,
      mesh: this.#gates,
      events: {
        ...events,
        state: (source, state, ...more) => {
          if (state === 'catching-up') this.#progress.start()
          events.state(source, state, ...more)
        },
      },
      source,
      applier: this.#applierOf(source),
      counters: this.#counters,
      tables: this.#tables,
      onTableDropped: () => this.onTableDropped(source),
    })
    this.#subscribers.set(key, subscriber)
    subscriber.start()
  }

  async #stop(key: string, subscriber: Subscriber): Promise<void> {
    await subscriber.stop()
    this.#subscribers.delete(key)
  }

  #end(key: string, source: RemoteTable): Promise<void> {
    this.#addEnding(source, 'the subscription is ending')
    return this.#mutex.run(key, async () => {
      const subscriber = this.#subscribers.get(key)
      if (subscriber) await this.#stop(key, subscriber)
      await this.#deleteCheckpoint(source)
    })
  }

  #addEnding(source: RemoteTable, reason: string): Ending {
    const key = keyOf(source)
    const known = this.#ending.get(key)
    if (known) return Object.assign(known, { reason })
    const since = this.#options.mesh.timers.elapsed()
    const ending = { source, since, reason, backoff: new Backoff(DELETE_BACKOFF_MS), cancelRetry: () => {} }
    this.#ending.set(key, ending)
    return ending
  }

  /**
   * False when the host rejects it. It is retried until it succeeds, because a later subscription would resume at a checkpoint that
   * remains.
   */
  async #deleteCheckpoint(source: RemoteTable): Promise<boolean> {
    const { host, quarantine, mesh, logger } = this.#options
    const key = keyOf(source)
    this.#applierOf(source).dropCheckpoint(source.node)
    try {
      await quarantine.reconcile(source, undefined)
      await host.deleteCheckpoint(source)
      this.#ending.get(key)?.cancelRetry()
      this.#ending.delete(key)
      return true
    } catch (error) {
      const reason = reasonOf(error)
      logger.warn({ ...source, reason }, 'cannot delete the checkpoint, retrying later')
      const ending = this.#addEnding(source, reason)
      ending.error = error
      ending.cancelRetry()
      if (!this.#closed)
        ending.cancelRetry = mesh.timers.after(ending.backoff.next(), () => void this.#retryEnd(key, source))
      return false
    }
  }

  #retryEnd(key: string, source: RemoteTable): Promise<void> {
    return this.#mutex.run(key, async () => {
      if (this.#ending.has(key) && !this.#subscribers.has(key) && !this.#closed) await this.#deleteCheckpoint(source)
    })
  }

  /** Waits a limited time for the end of an earlier subscription. */
  async #waitForEnd(key: string): Promise<void> {
    if (!this.#ending.has(key)) return
    const { mesh, requestTimeout } = this.#options
    const limit = new AbortController()
    const cancel = mesh.timers.after(requestTimeout, () => limit.abort(this.#endError(key)))
    await this.#mutex.run(key, () => {}, limit.signal).finally(cancel)
  }

  #endError(key: string) {
    const { since = 0, reason } = this.#ending.get(key) ?? {}
    const ms = this.#options.mesh.timers.elapsed() - since
    return clusterError('host_timeout', `the end of the previous subscription (${reason})`, ms)
  }

  #subscribersOf({ database, table }: Partial<Record<keyof TableName, string | undefined>>) {
    const all = [...this.#subscribers.values()].map((subscriber) => ({ source: subscriber.source, subscriber }))
    return all.filter(({ source }) => source.database === database && source.table === table)
  }

  #createApplier(): Applier {
    const onRecovered = this.#options.events.applied
    const validate: ApplierOptions['validate'] = (table, transactions) => this.#tables.validate(table, transactions)
    return new Applier({ ...this.#options, counters: this.#counters, onRecovered, validate })
  }

  #applierOf(table: TableName): Applier {
    const key = tableKey(table)
    const applier = this.#appliers.get(key) ?? this.#createApplier()
    this.#appliers.set(key, applier)
    return applier
  }
}
