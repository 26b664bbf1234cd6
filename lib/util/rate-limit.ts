// Counts events in fixed windows of time, so that a flood of them stays bounded.

import { systemTimers } from './timers.ts'

export type RateLimitOptions = {
  /** Events allowed in a window. */
  limit: number
  windowMs: number
  /** Called with the number of events that were left out, at the first event of a later window. */
  leftOut(count: number): void
}

export class RateLimit {
  readonly #options: RateLimitOptions
  #windowStart = Number.NEGATIVE_INFINITY
  #count = 0

  constructor(options: RateLimitOptions) {
    this.#options = options
  }

  /** Counts an event; false when it exceeds the limit. */
  allows(): boolean {
    const { limit, windowMs, leftOut } = this.#options
    const now = systemTimers.elapsed()
    if (now - this.#windowStart >= windowMs) {
      const excess = this.#count - limit
      this.#windowStart = now
      this.#count = 0
      if (excess > 0) leftOut(excess)
    }
    this.#count++
    return this.#count <= limit
  }
}
