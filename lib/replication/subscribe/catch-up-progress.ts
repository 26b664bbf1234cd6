// Reports the progress of catching up: from the first subscription that is behind until all are live.

import type { Timers } from '../../util/timers.ts'
import type { SubscriptionStatus } from './subscription-status.ts'

export type CatchUpProgressOptions = {
  timers: Timers
  status(): SubscriptionStatus[]
  /** Number of transactions applied since the start of the node. */
  applied(): number
  /** Starts a report; the returned function updates it, and ends it when `done` equals `total`. Both count transactions. */
  report(): (done: number, total: number) => void
}

const POLL_INTERVAL_MS = 250

export class CatchUpProgress {
  readonly #options: CatchUpProgressOptions
  #stopPolling: (() => void) | undefined

  constructor(options: CatchUpProgressOptions) {
    this.#options = options
  }

  /**
   * A subscription began to catch up. Nothing is reported unless the lag exceeds the average number of transactions applied between
   * two polls, at the second poll or later: ordinary traffic is no catching up. An interrupted catch-up has no end.
   */
  start(): void {
    if (this.#stopPolling) return
    const { timers, status, applied, report } = this.#options
    const appliedBefore = applied()
    const update = report()
    let polls = 0
    this.#stopPolling = timers.every(POLL_INTERVAL_MS, () => {
      const lag = { all: 0, catchingUp: 0 }
      for (const { state, lag: behind } of status()) {
        lag.all += behind
        if (state === 'catching-up') lag.catchingUp += behind
      }
      const done = applied() - appliedBefore
      const isBehind = lag.catchingUp > done / ++polls
      if (isBehind && polls > 1) update(done, done + lag.catchingUp)
      if (isBehind) return
      if (lag.all === lag.catchingUp) update(done, done)
      this.stop()
    })
  }

  stop(): void {
    this.#stopPolling?.()
    this.#stopPolling = undefined
  }
}
