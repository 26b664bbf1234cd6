// The manifest made to run: one subscriber for every remote table that is subscribed, started, placed and ended here.

import { clusterError, reasonOf } from '../../errors.ts'
import type { Checkpoint, Host, RemoteTable, Transaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { type Manifest, tableKey } from '../../manifest/manifest.ts'
import type { Mesh, TableName } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import { type Metrics, replicationCounters } from '../../observe/metrics.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import type { StreamPosition } from '../publish/stream-writer.ts'
import { epochAfter, parseStreamMetadata } from '../stream-metadata.ts'
import { Applier, type Position } from './applier.ts'
import type { Quarantine } from './quarantine.ts'
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
  /** Transactions that the host's outbox holds now, to be handed on. */
  relay(transactions: Transaction[]): void
  /** Makes our table of a subscription if it was dropped. */
  restoreTable(source: RemoteTable): Promise<void>
  /** How far catching up is, of transactions. */
  progress(): (done: number, total: number) => void
  requestTimeout: number
  maxBatch: number
  maxBatchBytes: number
}

/** ms between two looks at how far catching up is. */
const PROGRESS_INTERVAL_MS = 250

const keyOf = ({ node, database, table }: RemoteTable) => JSON.stringify([node, database, table])

/** The remote tables that these nodes are subscribed to for. */
const sourcesOf = (nodes: Manifest['nodes']): RemoteTable[] =>
  nodes.flatMap(({ name, subscriptions }) =>
    subscriptions
      .filter(({ subscribe }) => subscribe)
      .map(({ database, table }) => Object.freeze({ node: name, database, table })),
  )

export class Replicator {
  readonly #options: ReplicatorOptions
  readonly #subscribers = new Map<string, Subscriber>()
  readonly #appliers = new Map<string, Applier>()
  /** Ended, with a checkpoint that the host still has to forget. */
  readonly #pendingDeletes = new Map<string, RemoteTable>()
  readonly #counters = replicationCounters()
  /** Of the manifest that was followed last. */
  #reconciledNodes: Manifest['nodes'] = []
  /** Starts and ends happen one after the other. */
  readonly #serialize = new SerialQueue()
  /** Ends looking at how far a catching up is. */
  #stopProgress: (() => void) | undefined

  constructor(options: ReplicatorOptions) {
    this.#options = options
  }

  /** Starts what is subscribed now and ends what no longer is; a subscription that stays is not touched, a node that is the same object not looked at. */
  reconcile({ nodes }: Manifest): Promise<void> {
    return this.#serialize.run(async () => {
      const before = new Set(this.#reconciledNodes)
      const unchanged = new Set(nodes.filter((node) => before.has(node)).map(({ name }) => name))
      const desired = new Map(
        sourcesOf(nodes.filter(({ name }) => !unchanged.has(name))).map((source) => [keyOf(source), source]),
      )
      for (const [key, { source }] of [...this.#subscribers])
        if (!unchanged.has(source.node) && !desired.has(key)) await this.#end(key)
      await this.#retryDeletes()
      for (const [key, source] of desired) if (!this.#subscribers.has(key)) this.#start(key, source)
      this.#reconciledNodes = nodes
    })
  }

  /**
   * Stores where a subscription begins, before it is committed: at `startTime` if that is asked for and differs from what was
   * agreed last, else where it was, else at the end of the stream as the stream itself reports it. Rejects as the mesh and
   * the host do.
   */
  setStart(source: RemoteTable, startTime?: string): Promise<void> {
    return this.#serialize.run(async () => {
      const { mesh, requestTimeout } = this.#options
      const applier = this.#applierOf(source)
      const isUnchanged = (known: Checkpoint | undefined) =>
        known && (startTime === undefined || startTime === known.startTime)
      await this.#retryDeletes(source)
      if (isUnchanged(await applier.loadCheckpoint(source))) return
      const options = { timeout: requestTimeout }
      const state = await mesh.streamState(source, options)
      if (!state) return
      const metadata = parseStreamMetadata(state.description)
      const last = state.lastSequence
      let position: Position = { epoch: epochAfter(metadata, last), sequence: last }
      if (startTime !== undefined) {
        const first = await mesh.sequenceAt(source, Math.min(Date.parse(startTime), mesh.timers.now()), options)
        const sequence = Math.min(first - 1, last)
        position = { epoch: epochAfter(metadata, sequence), sequence, startTime, replayUntil: last }
      }
      const key = keyOf(source)
      const running = this.#subscribers.get(key)
      if (running) await this.#stop(key, running)
      try {
        // One that ran may have found a start by itself meanwhile.
        if (!isUnchanged(await applier.loadCheckpoint(source))) await applier.move(source, position)
      } finally {
        if (running) this.#start(key, source)
      }
    })
  }

  /** Takes back what `place` stored for a subscription that did not come about. */
  async clearStart(source: RemoteTable): Promise<void> {
    await this.#serialize.run(async () => {
      if (!this.#subscribers.has(keyOf(source))) await this.#deleteCheckpoint(source)
    })
  }

  /** Another node announced where its streams are. */
  onPeerPositions(node: string, streams: readonly (TableName & StreamPosition)[]): void {
    for (const { database, table, epoch, sequence } of streams)
      this.#subscribers.get(keyOf({ node, database, table }))?.onPeerPosition(epoch, sequence)
  }

  /** This node, or all, were started anew and have forgotten what was asked of them; or, not `certain`, it only seems so. */
  restart(node?: string, certain = true): void {
    for (const subscriber of this.#subscribers.values()) {
      if (node !== undefined && subscriber.source.node !== node) continue
      if (certain) subscriber.restart()
      else subscriber.restartIfStuck()
    }
  }

  status(): SubscriptionStatus[] {
    return [...this.#subscribers.values()].map((subscriber) => subscriber.status())
  }

  /** Gaps since the subscription began, and the transactions in them. */
  losses(source: RemoteTable): { gaps: number; lost: number } {
    const { gaps = 0, lost = 0 } = this.#subscribers.get(keyOf(source))?.status() ?? {}
    return { gaps, lost }
  }

  metrics(): Metrics['apply'] {
    const subscriptions = { pending: 0, 'catching-up': 0, live: 0, stalled: 0 }
    let lag = 0
    let lagSeconds = 0
    for (const subscriber of this.#subscribers.values()) {
      const { state, lag: behind, lagSeconds: waiting } = subscriber.status()
      if (state !== 'ended') subscriptions[state]++
      lag += behind
      lagSeconds = Math.max(lagSeconds, waiting)
    }
    return { ...this.#counters, subscriptions, lag, lagSeconds, quarantined: this.#options.quarantine.size }
  }

  /** Rejects subscription_not_found, and as the host and the disk do. */
  replay(source: RemoteTable, sequences?: readonly number[]): Promise<ReplayOutcome> {
    return this.#requireSubscriber(source).replay(sequences)
  }

  /** Rejects as `replay`. */
  discard(source: RemoteTable, sequences?: readonly number[]): Promise<number[]> {
    return this.#requireSubscriber(source).discard(sequences)
  }

  /** Waits a bounded time for what the database is doing. */
  async close(): Promise<void> {
    this.#stopProgress?.()
    await this.#serialize.run(async () => {
      await Promise.all([...this.#subscribers].map(([key, subscriber]) => this.#stop(key, subscriber, false)))
    })
  }

  #requireSubscriber(source: RemoteTable): Subscriber {
    const subscriber = this.#subscribers.get(keyOf(source))
    if (!subscriber) throw clusterError('subscription_not_found', source.node, `${source.database}.${source.table}`)
    return subscriber
  }

  /**
   * For as long as any subscription is behind by more than what was done between two looks on average: what comes while other things
   * are applied is no catching up, and neither is what is over by the second look. One that is interrupted has no end.
   */
  #watchProgress(): void {
    if (this.#stopProgress) return
    const appliedBefore = this.#counters.applied
    const report = this.#options.progress()
    let polls = 0
    this.#stopProgress = this.#options.mesh.timers.every(PROGRESS_INTERVAL_MS, () => {
      const lag = { all: 0, catchingUp: 0 }
      for (const { state, lag: behind } of this.status()) {
        lag.all += behind
        if (state === 'catching-up') lag.catchingUp += behind
      }
      const done = this.#counters.applied - appliedBefore
      const isBehind = lag.catchingUp > done / ++polls
      if (isBehind && polls > 1) report(done, done + lag.catchingUp)
      if (isBehind) return
      if (lag.all === lag.catchingUp) report(done, done)
      this.#stopProgress?.()
      this.#stopProgress = undefined
    })
  }

  #start(key: string, source: RemoteTable): void {
    const { events } = this.#options
    const subscriber = new Subscriber({
      ...this.#options,
      events: {
        ...events,
        state: (source, state, ...more) => {
          if (state === 'catching-up') this.#watchProgress()
          events.state(source, state, ...more)
        },
      },
      source,
      applier: this.#applierOf(source),
      counters: this.#counters,
    })
    this.#subscribers.set(key, subscriber)
    subscriber.start()
  }

  async #stop(key: string, subscriber: Subscriber, waitForHost = true): Promise<void> {
    await subscriber.stop(waitForHost)
    this.#subscribers.delete(key)
  }

  async #end(key: string): Promise<void> {
    const subscriber = this.#subscribers.get(key)!
    await this.#stop(key, subscriber)
    await this.#deleteCheckpoint(subscriber.source)
  }

  /** A checkpoint that stays would be resumed from by a later subscription: what the host refuses now is owed. */
  async #deleteCheckpoint(source: RemoteTable): Promise<void> {
    this.#applierOf(source).dropCheckpoint(source.node)
    try {
      await this.#options.quarantine.reconcile(source, undefined)
      await this.#options.host.deleteCheckpoint(source)
      this.#pendingDeletes.delete(keyOf(source))
    } catch (error) {
      this.#pendingDeletes.set(keyOf(source), source)
      this.#options.logger.warn({ ...source, reason: reasonOf(error) }, 'a checkpoint could not be removed yet')
    }
  }

  async #retryDeletes(only?: RemoteTable): Promise<void> {
    for (const [key, source] of [...this.#pendingDeletes])
      if ((!only || key === keyOf(only)) && !this.#subscribers.has(key)) await this.#deleteCheckpoint(source)
  }

  #applierOf(table: TableName): Applier {
    const key = tableKey(table)
    const applier = this.#appliers.get(key) ?? new Applier({ ...this.#options, counters: this.#counters })
    this.#appliers.set(key, applier)
    return applier
  }
}
