// Since when a subscription waits for its source.

import type { SubscriptionState } from '../../events/events.ts'
import type { Timers } from '../../util/timers.ts'

/** A link that is interrupted is back within seconds. */
const REPORTED_AFTER_MS = 15_000

export class PendingTime {
  readonly #timers: Timers
  /** `Timers.elapsed`; undefined while it does not wait. */
  #since: number | undefined

  /** It waits from now on. */
  constructor(timers: Timers) {
    this.#timers = timers
    this.#since = timers.elapsed()
  }

  onState(state: SubscriptionState): void {
    if (state !== 'pending') this.#since = undefined
    else this.#since ??= this.#timers.elapsed()
  }

  /** In ms since 1970; undefined if it waits no longer than 15 s. */
  get since(): number | undefined {
    const duration = this.#since === undefined ? 0 : this.#timers.elapsed() - this.#since
    return duration < REPORTED_AFTER_MS ? undefined : Math.round(this.#timers.now() - duration)
  }
}
