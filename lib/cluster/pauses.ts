// Pauses subscriptions, and ends pauses: stored before it is in effect.

import type { RemoteTable } from '../host/host.ts'
import type { Registers } from '../peers/registers.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import { SerialQueue } from '../util/serial-queue.ts'
import type { PositionExchange } from './position-exchange.ts'

export type PausesOptions = {
  registers: Pick<Registers, 'paused' | 'flush'>
  replicator: Pick<Replicator, 'requireSubscriber' | 'statusOf' | 'onPausedChanged'>
  positions: Pick<PositionExchange, 'onCheckpoint'>
}

export class Pauses {
  readonly #options: PausesOptions
  /** A call that finds its work begun by another one must not resolve before that. */
  readonly #queue = new SerialQueue()

  constructor(options: PausesOptions) {
    this.#options = options
  }

  /** Idempotent. Resolves when it is in effect. Rejects subscription_not_found. */
  set(requested: RemoteTable, isPaused: boolean): Promise<void> {
    return this.#queue.run(() => this.#set(requested, isPaused))
  }

  async #set(requested: RemoteTable, isPaused: boolean): Promise<void> {
    const { registers, replicator, positions } = this.#options
    const { source } = replicator.requireSubscriber(requested)
    const isInEffect = (replicator.statusOf(source)?.state === 'paused') === isPaused
    if (registers.paused.has(source) === isPaused && isInEffect) return
    if (isPaused) registers.paused.add(source)
    else registers.paused.delete(source)
    await registers.flush()
    await replicator.onPausedChanged(source)
    positions.onCheckpoint(source)
  }
}
