// Stores where a subscription begins, before it is committed, and undoes that for a request that fails afterwards.

import type { Checkpoint, RemoteTable } from '../../host/host.ts'
import type { StartRequest } from '../../manifest/start-request.ts'
import type { KeyedMutex } from '../../util/keyed-mutex.ts'
import type { CopyStarts } from '../copy/copies.ts'
import type { Applier } from './applier.ts'
import { type Position, positionOf } from './checkpoint-parts.ts'
import type { BegunSubscriptions } from './cursor.ts'
import type { EndingSubscriptions } from './ending-subscriptions.ts'
import { requestedPosition, type StartRequests } from './start-position.ts'

export type SubscriptionStartsOptions = {
  mesh: StartRequests
  begun: BegunSubscriptions
  requestTimeout: number
  copies: CopyStarts
  ending: EndingSubscriptions
  mutex: KeyedMutex
  keyOf(source: RemoteTable): string
  applierOf(source: RemoteTable): Applier
  isRunning(key: string): boolean
  /** By the manifest that is in effect. */
  isCommitted(key: string): boolean
  /** Runs `work` while the subscriber of this source, if there is one, is stopped. */
  whileStopped(source: RemoteTable, work: () => Promise<void>): Promise<void>
}

export class SubscriptionStarts {
  readonly #options: SubscriptionStartsOptions

  constructor(options: SubscriptionStartsOptions) {
    this.#options = options
  }

  /**
   * At `startTime` if that differs from the previous one, else at its present checkpoint, else as `startPosition` says. The returned
   * function undoes that: the start of another request stays. Rejects as the mesh and the host do, and with host_timeout while an
   * earlier subscription cannot end. A running subscription that lost its checkpoint finds its own start, and the copy that a running
   * subscription is asked for begins after the commit.
   */
  async set(source: RemoteTable, start?: StartRequest, since?: number): Promise<() => Promise<void>> {
    const { ending, mutex, keyOf } = this.#options
    const key = keyOf(source)
    await ending.wait(key)
    return mutex.run(key, async () => {
      await ending.finishBefore(key)
      const { mesh, requestTimeout, begun, copies, applierOf, isRunning, whileStopped } = this.#options
      const applier = applierOf(source)
      const startTime = start?.startTime
      const isUnchanged = (known: Checkpoint | undefined) =>
        startTime === undefined ? known !== undefined || begun.has(source) : startTime === known?.startTime
      if (isUnchanged(await applier.loadCheckpoint(source, { isRunning: isRunning(key) }))) return async () => {}
      const request = { timeout: requestTimeout }
      const position = await requestedPosition({ source, mesh, applier, since, request }, startTime)
      let replaced: { before: Checkpoint | undefined } | undefined
      await whileStopped(source, async () => {
        // The running subscriber may have stored a checkpoint meanwhile.
        const before = await applier.loadCheckpoint(source)
        if (isUnchanged(before)) return
        const copy = before ? undefined : await copies.initial(source, start)
        const isBegun = start && !(before && start.copy)
        await applier.move(source, position, { copy, ...(isBegun && { request: start.id }) })
        replaced = { before }
      })
      return async () => {
        if (replaced) await this.#undo(source, position, replaced.before)
        replaced = undefined
      }
    })
  }

  /** Restores the checkpoint from before, or deletes the one that was stored unless the subscription was committed. */
  #undo(source: RemoteTable, set: Position, before: Checkpoint | undefined): Promise<void> {
    const { ending, mutex, keyOf, applierOf, isRunning, isCommitted, whileStopped } = this.#options
    const key = keyOf(source)
    return mutex.run(key, async () => {
      const applier = applierOf(source)
      // A later request set another start, or deleted the checkpoint.
      if ((await applier.loadCheckpoint(source, { isRunning: isRunning(key) }))?.startTime !== set.startTime) return
      if (before) await whileStopped(source, () => applier.move(source, positionOf(before)))
      else if (!isCommitted(key)) await ending.finish(source)
    })
  }
}
