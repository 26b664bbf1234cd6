// Decides when a reader that makes no progress is replaced: the peer reports a higher position, and no message arrives.

import { Backoff } from '../../util/backoff.ts'
import type { Timers } from '../../util/timers.ts'

/** The intervals between two restarts without progress, in ms. A large message takes long on a slow link and must not be requested again and again. */
const RESTART_BACKOFF = { first: 1_000, max: 30_000, jitter: 0 }

/** Less than the interval of heartbeats, which carry the positions. */
const STUCK_AFTER_MS = 500

export class StallDetector {
  readonly #timers: Timers
  readonly #backoff = new Backoff(RESTART_BACKOFF)
  /** The checkpoint since the first position that it was behind, and when that arrived; -1 when it was not behind the last one. */
  #behind = { sequence: -1, since: 0 }
  /** The last restart: ms by `Timers.elapsed`, the checkpoint then, and ms until another restart at the same checkpoint. */
  #lastRestart = { at: 0, sequence: -1, minInterval: 0 }

  constructor(timers: Timers) {
    this.#timers = timers
  }

  /**
   * Call for every position that the peer reports. True when the checkpoint is behind it and has not moved since an earlier one.
   * After a pause of the process many positions arrive at once, before the messages: they count as one.
   */
  onPeerPosition(sequence: number, isBehind: boolean, isApplying: boolean): boolean {
    const now = this.#timers.elapsed()
    if (!isBehind) this.#behind.sequence = -1
    else if (this.#behind.sequence !== sequence) this.#behind = { sequence, since: now }
    return isBehind && !isApplying && now - this.#behind.since >= STUCK_AFTER_MS
  }

  /** Whether to restart now. `isRepeated`: at least the third restart at this checkpoint, which is worth a warning. */
  requestRestart(sequence: number, isBehind: boolean): { allowed: boolean; isRepeated: boolean } {
    const hasMoved = sequence !== this.#lastRestart.sequence
    const now = this.#timers.elapsed()
    const { at, minInterval } = this.#lastRestart
    if (!hasMoved && now - at < minInterval) return { allowed: false, isRepeated: false }
    if (hasMoved || !isBehind) this.#backoff.reset()
    this.#lastRestart = { at: now, sequence, minInterval: this.#backoff.next() }
    return { allowed: true, isRepeated: !hasMoved && isBehind && minInterval > RESTART_BACKOFF.first }
  }
}
