// Logs subscriptions that catch up for a while, and when they are live again. Ordinary traffic changes the state for moments: no line.

import type { SubscriptionState } from '../events/events.ts'
import type { RemoteTable } from '../host/host.ts'
import type { Logger } from '../observe/logger.ts'
import type { Timers } from '../util/timers.ts'

/** `logged`: the end will be logged too. */
type CatchUp = { startedAt: number; logged: boolean; cancel(): void }

const LOG_AFTER_MS = 1_000

export class CatchUpLog {
  readonly #logger: Logger
  readonly #timers: Timers
  /** The subscriptions that are not live, by remote table. */
  readonly #running = new Map<string, CatchUp>()

  constructor(logger: Logger, timers: Timers) {
    this.#logger = logger
    this.#timers = timers
  }

  /** Call it for every change of state. */
  onState({ node: peer, database, table }: RemoteTable, state: SubscriptionState): void {
    const fields = { peer, database, table }
    const key = JSON.stringify([peer, database, table])
    if (state === 'live' || state === 'ended') return this.#end(key, fields, state)
    const running = this.#running.get(key)
    // A copy has log lines of its own.
    if (state === 'copying' && running && !running.logged) return this.#end(key, fields, 'ended')
    if (state === 'pending' || state === 'copying' || running) {
      // Its report was a line of its own.
      if (running && state === 'stalled') running.logged = true
      return
    }
    const catchUp: CatchUp = {
      startedAt: this.#timers.elapsed(),
      logged: state === 'stalled',
      cancel: this.#timers.after(LOG_AFTER_MS, () => {
        catchUp.logged = true
        this.#logger.info(fields, 'subscription catching up')
      }),
    }
    this.#running.set(key, catchUp)
  }

  #end(key: string, fields: object, state: 'live' | 'ended'): void {
    const catchUp = this.#running.get(key)
    if (!catchUp) return
    catchUp.cancel()
    this.#running.delete(key)
    if (state === 'ended' || !catchUp.logged) return
    const seconds = Math.round((this.#timers.elapsed() - catchUp.startedAt) / 100) / 10
    this.#logger.info({ ...fields, seconds }, 'subscription live again')
  }
}
