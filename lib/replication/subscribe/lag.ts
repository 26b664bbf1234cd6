// How far a subscription is behind its stream: in transactions, and in seconds.

import type { Timers } from '../../util/timers.ts'

/** `index`: absent if it is not known. */
type Place = { sequence: number; index?: number | undefined }

export class Lag {
  readonly #timers: Timers
  #last: Place = { sequence: 0 }
  /** ms since 1970 of the oldest known transaction that is not applied. */
  #behindSince: number | undefined

  constructor(timers: Timers) {
    this.#timers = timers
  }

  /** The last known sequence of the stream. */
  get lastSequence(): number {
    return this.#last.sequence
  }

  /** Sets the last known message, which may be an earlier one than before: in a new epoch, or when reading starts again. */
  setLast(sequence: number): void {
    this.#last = { sequence }
  }

  /** The stream goes at least as far as `last`, in the epoch that is read. */
  observeLast(last: Place, applied: Place): void {
    this.#raise(last)
    if (this.isBehind(applied)) this.#behindSince ??= this.#timers.now()
  }

  /** `time`, in ms since 1970: when the source stored the oldest transaction that is not applied. */
  setOldest(time: number): void {
    this.#behindSince = time
  }

  /** Everything up to `applied` is applied. */
  onApplied(applied: Place): void {
    this.#raise(applied)
    if (!this.isBehind(applied)) this.#behindSince = undefined
  }

  isBehind(applied: Place): boolean {
    return applied.sequence < this.#last.sequence
  }

  /** Number of transactions that are not applied; that of messages where their indexes are not known. */
  count(applied: Place): number {
    const messages = Math.max(0, this.#last.sequence - applied.sequence)
    if (messages === 0 || this.#last.index === undefined || applied.index === undefined) return messages
    return Math.max(messages, this.#last.index - applied.index)
  }

  /** Seconds since the oldest transaction that is not applied was stored; 0 when all are applied. */
  seconds(applied: Place): number {
    if (!this.isBehind(applied) || this.#behindSince === undefined) return 0
    return Math.max(0, this.#timers.now() - this.#behindSince) / 1_000
  }

  #raise({ sequence, index }: Place): void {
    if (sequence < this.#last.sequence) return
    // The index of an earlier message is a lower bound.
    this.#last = { sequence, index: Math.max(index ?? 0, this.#last.index ?? 0) }
  }
}
