// Pauses subscriptions, and ends pauses: stored before it is in effect.

import type { RemoteTable } from '../host/host.ts'
import type { Registers } from '../peers/registers.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import { SerialQueue } from '../util/serial-queue.ts'
import type { PositionExchange } from './position-exchange.ts'

export type PausesOptions = {
  registers: Pick<Registers, 'paused' | 'store'>
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

  /** Idempotent. Resolves when it is in effect. Rejects subscription_not_found; and state_unwritable: then nothing has changed. */
  set(requested: RemoteTable, isPaused: boolean): Promise<void> {
    return this.#queue.run(() => this.#set(requested, isPaused))
  }

  async #set(requested: RemoteTable, isPaused: boolean): Promise<void> {
    const { registers, replicator, positions } = this.#options
    const { source } = replicator.requireSubscriber(requested)
    const isInEffect = (replicator.statusOf(source)?.state === 'paused') === isPaused
    const before = registers.paused.has(source)
    if (before === isPaused && isInEffect) return
    this.#setFlag(source, isPaused)
    try {
      await registers.store()
    } catch (error) {
      this.#setFlag(source, before)
      throw error
    }
    await replicator.onPausedChanged(source)
    positions.onCheckpoint(source)
  }

  #setFlag(source: RemoteTable, isPaused: boolean): void {
    const { paused } = this.#options.registers
    if (isPaused) paused.add(source)
    else paused.delete(source)
  }
}
