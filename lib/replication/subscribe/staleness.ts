// Whether a subscription has missed more than it can get back: nodes drop tombstones after `tombstoneAge`, so deletes of which it has
// not heard by then may never reach it.

import type { RemoteTable } from '../../host/host.ts'
import type { Timers } from '../../util/timers.ts'
import type { Applier } from './applier.ts'

export type StalenessContext = {
  timers: Timers
  /** ms. Without it, no subscription is stale. */
  tombstoneAge?: number | undefined
  /** When the subscription was made, in ms since 1970; undefined if that is not known. */
  subscribedSince?(source: RemoteTable): number | undefined
}

export type StalenessOptions = {
  source: RemoteTable
  applier: Applier
  /** Everything that the source has is applied. */
  isCaughtUp(): boolean
  /** `since`: ms since 1970. Called once. */
  onStale(since: number): void
}

/** ms between two calls of `check`. */
export const CHECK_INTERVAL_MS = 60_000
/** Of `tombstoneAge`: how old the stored time may be. */
const PRECISION = 1 / 30
/** ms between two checks. After a longer pause, the process was suspended and does not know yet what it missed. */
const MAX_PAUSE_MS = 10 * CHECK_INTERVAL_MS

export class Staleness {
  readonly #context: StalenessContext
  readonly #options: StalenessOptions
  #checkedAt: number
  #isReported = false

  constructor(context: StalenessContext, options: StalenessOptions) {
    this.#context = context
    this.#options = options
    this.#checkedAt = context.timers.now()
  }

  /** Since when it was not caught up, in ms since 1970, if that is too long: transactions that are lost now may contain deletes. */
  get overdueSince(): number | undefined {
    const { timers, tombstoneAge } = this.#context
    const since = this.#caughtUpAt
    return since !== undefined && tombstoneAge !== undefined && timers.now() - since > tombstoneAge ? since : undefined
  }

  /**
   * When it was caught up last, in ms since 1970, if it is stale: not caught up for too long, or it was so when transactions were lost.
   */
  get since(): number | undefined {
    const { applier, source, isCaughtUp } = this.#options
    return applier.checkpointOf(source)?.staleSince ?? (isCaughtUp() ? undefined : this.overdueSince)
  }

  /** Undefined before the first checkpoint: then it has nothing that could be deleted. */
  get #caughtUpAt(): number | undefined {
    const { applier, source } = this.#options
    const checkpoint = applier.checkpointOf(source)
    return checkpoint && (checkpoint.caughtUpAt ?? this.#context.subscribedSince?.(source))
  }

  /** Call every `CHECK_INTERVAL_MS`. Never rejects. */
  async check(): Promise<void> {
    const { applier, source, isCaughtUp } = this.#options
    const { timers, tombstoneAge } = this.#context
    if (tombstoneAge === undefined) return
    const now = timers.now()
    const pause = now - this.#checkedAt
    this.#checkedAt = now
    this.report()
    if (!isCaughtUp() || pause > MAX_PAUSE_MS) return
    if (now - (this.#caughtUpAt ?? 0) <= tombstoneAge * PRECISION) return
    // The next check tries again.
    await applier.setCaughtUp(source, now).catch(() => {})
  }

  report(): void {
    const { since } = this
    if (since !== undefined && !this.#isReported) this.#options.onStale(since)
    this.#isReported = since !== undefined
  }
}
