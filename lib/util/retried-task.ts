// Work that has to succeed in the end: a failed attempt is reported, and repeated with growing pauses until one succeeds.

import { Backoff, type BackoffOptions } from './backoff.ts'
import type { Timers } from './timers.ts'

export type RetriedTaskOptions = {
  work(): Promise<void>
  /** An attempt failed; the next one follows after `retryAfterMs`. Must not throw. */
  failed(error: unknown, retryAfterMs: number): void
  backoff: BackoffOptions
  timers: Timers
}

export class RetriedTask {
  readonly #options: RetriedTaskOptions
  readonly #backoff: Backoff
  #cancelRetry = () => {}
  #cancelled = false

  constructor(options: RetriedTaskOptions) {
    this.#options = options
    this.#backoff = new Backoff(options.backoff)
  }

  /** One attempt now, instead of a planned one. Settles as that attempt does. */
  async run(): Promise<void> {
    const { work, failed, timers } = this.#options
    this.#cancelRetry()
    try {
      await work()
      this.#backoff.reset()
    } catch (error) {
      if (!this.#cancelled) {
        const retryAfterMs = Math.round(this.#backoff.next())
        this.#cancelRetry()
        this.#cancelRetry = timers.after(retryAfterMs, () => void this.run().catch(() => {}))
        failed(error, retryAfterMs)
      }
      throw error
    }
  }

  /** Ends the attempts for good. */
  cancel(): void {
    this.#cancelled = true
    this.#cancelRetry()
  }
}
