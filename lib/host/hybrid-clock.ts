// The hybrid logical clock: stamps that order transactions across nodes, close to wall time and never going back.

import type { Timestamp } from './host.ts'

const MAX_COUNTER = 0xffffff

/** Negative when `a` is older than `b`, positive when newer, 0 when they are the same stamp. */
export const compareTimestamps = (a: Timestamp, b: Timestamp): number => (a < b ? -1 : a > b ? 1 : 0)

/** A transaction's stamp is asked for its time several times in a row. */
let lastParsed = { timestamp: '', time: Number.NaN }

/** Milliseconds since 1970 of a stamp; NaN when the text is no stamp. */
export function wallTimeOf(timestamp: Timestamp): number {
  if (timestamp === lastParsed.timestamp) return lastParsed.time
  const isTimestamp = /^[0-9a-f]{12}-[0-9a-f]{6}-./.test(timestamp)
  lastParsed = { timestamp, time: isTimestamp ? Number.parseInt(timestamp.slice(0, 12), 16) : Number.NaN }
  return lastParsed.time
}

/** A time stands in many stamps in a row. */
let lastFormatted = { time: Number.NaN, text: '' }

function formatTime(time: number): string {
  if (time !== lastFormatted.time) lastFormatted = { time, text: time.toString(16).padStart(12, '0') }
  return lastFormatted.text
}

/** The stamp of that time; the lowest of its millisecond unless a counter is given. */
export const makeTimestamp = (time: number, counter: number, node: string): Timestamp =>
  `${formatTime(time)}-${counter.toString(16).padStart(6, '0')}-${node}`

export class HybridClock {
  readonly #node: string
  readonly #maxDrift: number
  readonly #now: () => number
  #time = 0
  #counter = 0

  /** `maxDrift` in ms: how far ahead of our own clock a stamp may be to be believed. */
  constructor(node: string, maxDrift: number, now: () => number = Date.now) {
    this.#node = node
    this.#maxDrift = maxDrift
    this.#now = now
  }

  /** A stamp higher than every one given or merged before. */
  timestamp(): Timestamp {
    const now = this.#now()
    if (now > this.#time) {
      this.#time = now
      this.#counter = 0
    } else if (this.#counter < MAX_COUNTER) {
      this.#counter++
    } else {
      this.#time++
      this.#counter = 0
    }
    return makeTimestamp(this.#time, this.#counter, this.#node)
  }

  /** May this stamp be believed, or does it claim to come from too far in the future? */
  accepts(timestamp: Timestamp): boolean {
    return wallTimeOf(timestamp) <= this.#now() + this.#maxDrift
  }

  /** From now on, stamps are higher than this one, if `accepts` takes it: that is what it returns. */
  merge(timestamp: Timestamp): boolean {
    const accepted = this.accepts(timestamp)
    if (accepted) this.#advanceTo(timestamp)
    return accepted
  }

  /** As `merge`, for a stamp of our own that the database holds: believed however far ahead it is. */
  resume(timestamp: Timestamp): void {
    this.#advanceTo(timestamp)
  }

  #advanceTo(timestamp: Timestamp): void {
    const time = wallTimeOf(timestamp)
    if (Number.isNaN(time) || time < this.#time) return
    const counter = Number.parseInt(timestamp.slice(13, 19), 16)
    if (time > this.#time) {
      this.#time = time
      this.#counter = counter
    } else if (counter > this.#counter) {
      this.#counter = counter
    }
  }
}
