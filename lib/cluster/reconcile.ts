// After every commit, brings the routes of the mesh, the running subscriptions, the readers of HarperDB and the stream limits in line with the
// newest configuration. A step that fails is logged and retried until it succeeds or a newer configuration replaces it.

import { reasonOf } from '../errors.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import { Backoff } from '../util/backoff.ts'
import { SerialQueue } from '../util/serial-queue.ts'
import { effectiveLimits } from './stream-limits.ts'

export type ReconcilerOptions = {
  mesh: Pick<Mesh, 'setRoutes' | 'setLimits' | 'reviewReaders' | 'timers'>
  replicator: Pick<Replicator, 'reconcile'>
  store: Pick<ManifestStore, 'manifest' | 'settings'>
  /** See `effectiveLimits`. */
  servesRows: boolean
  logger: Logger
  /** The values that mesh and replicator were started with. */
  inEffect: Partial<Record<StepName, unknown>>
}

type StepName = 'routes' | 'nodes' | 'limits' | 'readers'

/** One part of the configuration. Values are compared by identity: a commit keeps the objects that it does not change. */
type Step = {
  readonly name: StepName
  /** The newest value. */
  readonly wanted: () => unknown
  readonly apply: () => Promise<void>
  readonly backoff: Backoff
  inEffect: unknown
  cancelRetry: () => void
}

const RETRY_BACKOFF_MS = { first: 500, max: 30_000 }

export class Reconciler {
  readonly #options: ReconcilerOptions
  readonly #queue = new SerialQueue()
  readonly #steps: readonly Step[]
  #closed = false

  constructor(options: ReconcilerOptions) {
    this.#options = options
    const { mesh, replicator, store, servesRows, inEffect } = options
    const step = (name: StepName, wanted: () => unknown, apply: () => Promise<void>): Step => ({
      name,
      wanted,
      apply,
      backoff: new Backoff(RETRY_BACKOFF_MS),
      inEffect: inEffect[name],
      cancelRetry: () => {},
    })
    const routes = () => store.manifest.routes
    const nodes = () => store.manifest.nodes
    const limits = () => store.settings.streams
    this.#steps = [
      step('routes', routes, () => mesh.setRoutes(routes())),
      step('nodes', nodes, () => replicator.reconcile(store.manifest)),
      step('readers', nodes, async () => mesh.reviewReaders?.()),
      step('limits', limits, () => mesh.setLimits(effectiveLimits(limits(), servesRows))),
    ]
  }

  /** Call it after every commit, and after every change of the limits. */
  reconcile(): void {
    void this.#queue.run(() => this.#runAll())
  }

  /** What was admitted beside the manifest is not any more. */
  reviewReaders(): void {
    void this.#queue.run(() => {
      // Not before: a review that is in progress sets it when it ends.
      for (const step of this.#steps) if (step.name === 'readers') step.inEffect = undefined
      return this.#runAll()
    })
  }

  /** Resolves when everything committed so far was tried once. Never rejects. */
  idle(): Promise<void> {
    return this.#queue.idle()
  }

  close(): void {
    this.#closed = true
    for (const step of this.#steps) step.cancelRetry()
  }

  async #runAll(): Promise<void> {
    for (const step of this.#steps) await this.#run(step)
  }

  async #run(step: Step): Promise<void> {
    const wanted = step.wanted()
    if (this.#closed || wanted === step.inEffect) return
    step.cancelRetry()
    try {
      await step.apply()
      step.inEffect = wanted
      step.backoff.reset()
    } catch (error) {
      if (this.#closed) return
      // The old value may be in effect in part only: setting it again must not be taken for no change.
      step.inEffect = undefined
      const retryAfterMs = step.backoff.next()
      const fields = { step: step.name, reason: reasonOf(error), retryAfterMs: Math.round(retryAfterMs) }
      this.#options.logger.error(fields, 'configuration change not in effect, retrying')
      step.cancelRetry = this.#options.mesh.timers.after(retryAfterMs, () => this.reconcile())
    }
  }
}
