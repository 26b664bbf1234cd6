// The manifest made to run: one subscriber for every remote table that is subscribed, started, placed and ended here.

import { reasonOf } from '../errors.ts'
import type { Checkpoint, Host, Source, Transaction } from '../host.ts'
import type { Logger } from '../logger.ts'
import { type Manifest, tableKey } from '../manifest/manifest.ts'
import type { Mesh, TableName } from '../mesh/mesh.ts'
import { Applier } from './applier.ts'
import type { Clock } from './clock.ts'
import { epochBehind, parseLabel } from './incarnations.ts'
import { Subscriber, type SubscriberEvents, type SubscriptionStatus } from './subscriber.ts'
import type { Position } from './table-log.ts'

export type ReplicatorOptions = {
  mesh: Mesh
  host: Host
  node: string
  clock: Clock
  events: SubscriberEvents
  logger: Logger
  republish: boolean
  /** Transactions that the host's outbox holds now, to be handed on. */
  handOn(transactions: Transaction[]): void
  requestTimeout: number
  maxBatch: number
  maxBatchBytes: number
}

const keyOf = ({ node, database, table }: Source) => JSON.stringify([node, database, table])

/** The remote tables that a manifest subscribes to. */
export const sourcesOf = (manifest: Manifest): Source[] =>
  manifest.nodes.flatMap(({ name, subscriptions }) =>
    subscriptions.filter(({ subscribe }) => subscribe).map(({ database, table }) => ({ node: name, database, table })),
  )

export class Replicator {
  readonly #options: ReplicatorOptions
  readonly #subscribers = new Map<string, Subscriber>()
  readonly #appliers = new Map<string, Applier>()
  /** Ended, with a checkpoint that the host still has to forget. */
  readonly #owed = new Map<string, Source>()
  /** Starts and ends happen one after the other. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: ReplicatorOptions) {
    this.#options = options
  }

  /** Starts what is subscribed now and ends what no longer is; a subscription that stays is not touched. */
  follow(manifest: Manifest): Promise<void> {
    return this.#queue(async () => {
      const wanted = new Map(sourcesOf(manifest).map((source) => [keyOf(source), source]))
      for (const key of [...this.#subscribers.keys()]) if (!wanted.has(key)) await this.#end(key)
      await this.#forgetOwed()
      for (const [key, source] of wanted) if (!this.#subscribers.has(key)) this.#start(key, source)
    })
  }

  /**
   * Stores where a subscription begins, before it is committed: at `startTime` if that is asked for and differs from what was
   * agreed last, else where it was, else at the end of the stream as the stream itself reports it. Rejects as the mesh and
   * the host do.
   */
  place(source: Source, startTime?: string): Promise<void> {
    return this.#queue(async () => {
      const { mesh, requestTimeout } = this.#options
      const applier = this.#applierOf(source)
      const settled = (known: Checkpoint | undefined) =>
        known && (startTime === undefined || startTime === known.startTime)
      await this.#forgetOwed(source)
      if (settled(await applier.recall(source))) return
      const options = { timeout: requestTimeout }
      const state = await mesh.streamState(source, options)
      if (!state) return
      const label = parseLabel(state.description)
      const last = state.lastSequence
      let position: Checkpoint = { epoch: epochBehind(label, last), sequence: last }
      if (startTime !== undefined) {
        const first = await mesh.sequenceAt(source, Math.min(Date.parse(startTime), Date.now()), options)
        const sequence = Math.min(first - 1, last)
        position = { epoch: epochBehind(label, sequence), sequence, startTime, replayUntil: last }
      }
      const key = keyOf(source)
      const running = this.#subscribers.get(key)
      if (running) await this.#stop(key, running)
      try {
        // One that ran may have found a start by itself meanwhile.
        if (!settled(await applier.recall(source))) await applier.apply(source, [], position)
      } finally {
        if (running) this.#start(key, source)
      }
    })
  }

  /** Takes back what `place` stored for a subscription that did not come about. */
  async displace(source: Source): Promise<void> {
    await this.#queue(async () => {
      if (!this.#subscribers.has(keyOf(source))) await this.#forget(source)
    })
  }

  /** Another node announced where its streams are. */
  announced(node: string, streams: readonly (TableName & Position)[]): void {
    for (const { database, table, epoch, sequence } of streams)
      this.#subscribers.get(keyOf({ node, database, table }))?.announced(epoch, sequence)
  }

  /** This node, or all, may be reachable again, and have forgotten what was asked of it. */
  reread(node?: string): void {
    for (const subscriber of this.#subscribers.values())
      if (node === undefined || subscriber.source.node === node) subscriber.reread()
  }

  status(): SubscriptionStatus[] {
    return [...this.#subscribers.values()].map((subscriber) => subscriber.status())
  }

  async close(): Promise<void> {
    await this.#queue(async () => {
      await Promise.all([...this.#subscribers].map(([key, subscriber]) => this.#stop(key, subscriber)))
    })
  }

  #start(key: string, source: Source): void {
    const { mesh, clock, events, logger, requestTimeout, maxBatch, maxBatchBytes } = this.#options
    const applier = this.#applierOf(source)
    const options = { source, mesh, applier, clock, events, logger, requestTimeout, maxBatch, maxBatchBytes }
    const subscriber = new Subscriber(options)
    this.#subscribers.set(key, subscriber)
    subscriber.start()
  }

  async #stop(key: string, subscriber: Subscriber): Promise<void> {
    await subscriber.stop()
    this.#subscribers.delete(key)
  }

  async #end(key: string): Promise<void> {
    const subscriber = this.#subscribers.get(key)!
    await this.#stop(key, subscriber)
    await this.#forget(subscriber.source)
  }

  /** A checkpoint that stays would be resumed from by a later subscription: what the host refuses now is owed. */
  async #forget(source: Source): Promise<void> {
    this.#applierOf(source).forget(source.node)
    try {
      await this.#options.host.forget(source)
      this.#owed.delete(keyOf(source))
    } catch (error) {
      this.#owed.set(keyOf(source), source)
      this.#options.logger.warn({ ...source, reason: reasonOf(error) }, 'a checkpoint could not be removed yet')
    }
  }

  async #forgetOwed(only?: Source): Promise<void> {
    for (const [key, source] of [...this.#owed])
      if ((!only || key === keyOf(only)) && !this.#subscribers.has(key)) await this.#forget(source)
  }

  #applierOf(table: TableName): Applier {
    const key = tableKey(table)
    const applier = this.#appliers.get(key) ?? new Applier(this.#options)
    this.#appliers.set(key, applier)
    return applier
  }

  #queue<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work)
    this.#turn = turn.catch(() => {})
    return turn
  }
}
