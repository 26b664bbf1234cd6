// Runs one subscriber for every subscribed remote table of the manifest: sets its start, starts it and ends it.

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
import { CatchUpProgress } from './catch-up-progress.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'
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
  /** Creates the local table of a subscription if it was dropped. */
  restoreTable(source: RemoteTable): Promise<void>
  /** Starts a progress report of catching up; the returned function updates it. */
  progress(): (done: number, total: number) => void
  requestTimeout: number
  maxBatch: number
  maxBatchBytes: number
}

/** ms between two checks of the quarantine. */
const RELEASE_INTERVAL_MS = 1_000

const keyOf = ({ node, database, table }: RemoteTable) => JSON.stringify([node, database, table])

/** The remote tables of these nodes to which the local node subscribes. */
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
  /** Ended subscriptions whose checkpoint the host has not deleted yet. */
  readonly #pendingDeletes = new Map<string, RemoteTable>()
  readonly #counters = replicationCounters()
  /** The nodes of the last reconciled manifest. */
  #reconciledNodes: Manifest['nodes'] = []
  /** Serializes starts and ends. */
  readonly #queue = new SerialQueue()
  readonly #progress: CatchUpProgress
  readonly #stopReleasing: () => void

  constructor(options: ReplicatorOptions) {
    this.#options = options
    this.#progress = new CatchUpProgress({
      timers: options.mesh.timers,
      status: () => this.status(),
      applied: () => this.#counters.applied,
      report: options.progress,
    })
    this.#stopReleasing = options.mesh.timers.every(RELEASE_INTERVAL_MS, () => this.#releaseDue())
  }

  /** Starts new subscriptions and ends removed ones. Skips nodes that are the same object as before. */
  reconcile({ nodes }: Manifest): Promise<void> {
    return this.#queue.run(async () => {
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
   * Stores where a subscription begins, before it is committed: at `startTime` if that differs from the previous one, else at its
   * present checkpoint, else at the end of the stream. Rejects as the mesh and the host do.
   */
  setStart(source: RemoteTable, startTime?: string): Promise<void> {
    return this.#queue.run(async () => {
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
        // The running subscriber may have stored a checkpoint meanwhile.
        if (!isUnchanged(await applier.loadCheckpoint(source))) await applier.move(source, position)
      } finally {
        if (running) this.#start(key, source)
      }
    })
  }

  /** Deletes the checkpoint that `setStart` stored, unless the subscription was committed. */
  async clearStart(source: RemoteTable): Promise<void> {
    await this.#queue.run(async () => {
      if (!this.#subscribers.has(keyOf(source))) await this.#deleteCheckpoint(source)
    })
  }

  /** A remote node reports the positions of its streams. */
  onPeerPositions(node: string, streams: readonly (TableName & StreamPosition)[]): void {
    for (const { database, table, epoch, sequence } of streams)
      this.#subscribers.get(keyOf({ node, database, table }))?.onPeerPosition(epoch, sequence)
  }

  /** The servers of this node, or of all nodes, restarted and lost their consumers; without `certain`, they may have. */
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

  /** Number of gaps since the subscription began, and of transactions in them. */
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

  /** Waits a limited time for a database that does not answer. */
  async close(): Promise<void> {
    this.#progress.stop()
    this.#stopReleasing()
    await this.#queue.run(async () => {
      await Promise.all([...this.#subscribers].map(([key, subscriber]) => this.#stop(key, subscriber, false)))
    })
  }

  /**
   * Messages that are in quarantine for their timestamp alone. A message that was relayed waits for the subscription to its origin too,
   * if there is one: its origin may have voided it.
   */
  #releaseDue(): void {
    const { quarantine, clock } = this.#options
    const isLive = (source: RemoteTable) => this.#subscribers.get(keyOf(source))?.isLive
    const isDue = ({ source, timestamp, origin }: QuarantinedMessage) =>
      timestamp !== undefined &&
      origin !== undefined &&
      isLive(source) === true &&
      isLive({ ...source, node: origin.node }) !== false &&
      (clock.accepts(timestamp) || this.#applierOf(source).isVoided({ timestamp, origin }))
    for (const source of quarantine.dueSources(isDue)) void this.#subscribers.get(keyOf(source))?.releaseDue(isDue)
  }

  #requireSubscriber(source: RemoteTable): Subscriber {
    const subscriber = this.#subscribers.get(keyOf(source))
    if (!subscriber) throw clusterError('subscription_not_found', source.node, `${source.database}.${source.table}`)
    return subscriber
  }

  #start(key: string, source: RemoteTable): void {
    const { events } = this.#options
    const subscriber = new Subscriber({
      ...this.#options,
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

  /** Retries later if the host rejects it, because a later subscription would resume at a checkpoint that remains. */
  async #deleteCheckpoint(source: RemoteTable): Promise<void> {
    this.#applierOf(source).dropCheckpoint(source.node)
    try {
      await this.#options.quarantine.reconcile(source, undefined)
      await this.#options.host.deleteCheckpoint(source)
      this.#pendingDeletes.delete(keyOf(source))
    } catch (error) {
      this.#pendingDeletes.set(keyOf(source), source)
      this.#options.logger.warn({ ...source, reason: reasonOf(error) }, 'cannot delete the checkpoint, retrying later')
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
