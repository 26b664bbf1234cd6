// How far a subscription is behind its stream: in transactions, and in seconds.

import type { Timers } from '../../util/timers.ts'

export class Lag {
  readonly #timers: Timers
  #lastSequence = 0
  /** ms since 1970 of the oldest known transaction that is not applied. */
  #behindSince: number | undefined

  constructor(timers: Timers) {
    this.#timers = timers
  }

  /** The last known sequence of the stream. */
  get lastSequence(): number {
    return this.#lastSequence
  }

  /** Sets the last known sequence, which may be lower than before: in a new epoch, or when reading starts again. */
  setLast(last: number): void {
    this.#lastSequence = last
  }

  /** The stream goes at least as far as `last`. */
  observeLast(last: number, applied: number): void {
    this.#lastSequence = Math.max(this.#lastSequence, last)
    if (this.#lastSequence > applied) this.#behindSince ??= this.#timers.now()
  }

  /** `time`, in ms since 1970: when the source stored the oldest transaction that is not applied. */
  setOldest(time: number): void {
    this.#behindSince = time
  }

  /** Everything up to `applied` is applied. */
  onApplied(applied: number): void {
    this.#lastSequence = Math.max(this.#lastSequence, applied)
    if (applied >= this.#lastSequence) this.#behindSince = undefined
  }

  isBehind(applied: number): boolean {
    return applied < this.#lastSequence
  }

  /** Seconds since the oldest transaction that is not applied was stored; 0 when all are applied. */
  seconds(applied: number): number {
    if (!this.isBehind(applied) || this.#behindSince === undefined) return 0
    return Math.max(0, this.#timers.now() - this.#behindSince) / 1_000
  }
}
