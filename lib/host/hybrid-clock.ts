// The hybrid logical clock: its timestamps order transactions across nodes, are close to wall time, and never decrease.

import { systemTimers } from '../util/timers.ts'
import { type ClockPosition, LocalPosition, SharedPosition, type StopReason } from './clock-position.ts'
import type { Timestamp } from './host.ts'

/** Negative when `a` is older than `b`, positive when newer, 0 when they are equal. */
export const compareTimestamps = (a: Timestamp, b: Timestamp): number => (a < b ? -1 : a > b ? 1 : 0)

/** Cache of the last parsed timestamp: each transaction needs its time and its counter several times in succession. */
let lastParsed = ''
let lastParsedTime = Number.NaN
let lastParsedCounter = Number.NaN

/** ms since 1970; NaN when the text is not a valid timestamp. */
export function wallTimeOf(timestamp: Timestamp): number {
  if (timestamp !== lastParsed) parse(timestamp)
  return lastParsedTime
}

/** The node that issued the timestamp. */
export const nodeOfTimestamp = (timestamp: Timestamp): string => timestamp.slice(COUNTER_END + 1)

const DASH = 0x2d
/** No name of a node begins with one. */
const isLineEnd = (code: number): boolean => code === 0x0a || code === 0x0d || code === 0x2028 || code === 0x2029
/** Positions in a timestamp. */
const TIME_END = 12
const COUNTER_END = 19

/** By characters: a regular expression takes several times as long. */
function parse(timestamp: Timestamp): void {
  lastParsed = timestamp
  lastParsedCounter = hexNumber(timestamp, TIME_END + 1, COUNTER_END)
  const name = timestamp.charCodeAt(COUNTER_END + 1)
  const isWellFormed =
    timestamp.charCodeAt(TIME_END) === DASH &&
    timestamp.charCodeAt(COUNTER_END) === DASH &&
    !(Number.isNaN(name) || isLineEnd(name) || Number.isNaN(lastParsedCounter))
  lastParsedTime = isWellFormed ? hexNumber(timestamp, 0, TIME_END) : Number.NaN
}

/** NaN when a character is not a lower-case hexadecimal digit. */
function hexNumber(text: string, from: number, to: number): number {
  let value = 0
  for (let at = from; at < to; at++) {
    const code = text.charCodeAt(at)
    if (code >= 0x30 && code <= 0x39) value = value * 16 + code - 0x30
    else if (code >= 0x61 && code <= 0x66) value = value * 16 + code - 0x57
    else return Number.NaN
  }
  return value
}

/** Cache of the last formatted time, which many successive timestamps share. */
let lastFormatted = { time: Number.NaN, text: '' }

function formatTime(time: number): string {
  if (time !== lastFormatted.time) lastFormatted = { time, text: time.toString(16).padStart(12, '0') }
  return lastFormatted.text
}

/** `time`: ms since 1970. With counter 0 the lowest timestamp of that millisecond. */
export const makeTimestamp = (time: number, counter: number, node: string): Timestamp =>
  `${formatTime(time)}-${counter.toString(16).padStart(6, '0')}-${node}`

/** As `makeTimestamp` of a valid time, which needs not be parsed then. */
export function makeParsedTimestamp(time: number, counter: number, node: string): Timestamp {
  lastParsed = makeTimestamp(time, counter, node)
  lastParsedTime = time
  lastParsedCounter = counter
  return lastParsed
}

/** The number that orders the timestamps of one millisecond. Only of a valid timestamp. */
export function counterOf(timestamp: Timestamp): number {
  if (timestamp !== lastParsed) parse(timestamp)
  return lastParsedCounter
}
/** The name of the node that issued it. */
export const issuerOf = (timestamp: Timestamp): string => timestamp.slice(COUNTER_END + 1)
export const isIssuedBy = (timestamp: Timestamp, node: string): boolean =>
  timestamp.length === COUNTER_END + 1 + node.length && timestamp.endsWith(node)

/** Lower than every timestamp that a node issues. A host may store it for a row without a timestamp: see `Host.setBaseTimestamp`. */
export const LOWEST_TIMESTAMP: Timestamp = '000000000000-000000-'

export class HybridClock {
  readonly #node: string
  readonly #maxDrift: number
  readonly #now: () => number
  #position: ClockPosition = new LocalPosition()
  /** Undefined while no other thread issues timestamps of this node. */
  #shared: SharedPosition | undefined
  readonly #make: (time: number, counter: number) => Timestamp
  /** The highest timestamp that `merge` accepted. */
  #merged: Timestamp = ''

  /** `maxDrift`: ms by which an accepted timestamp may be ahead of the local clock. */
  constructor(node: string, maxDrift: number, now: () => number = systemTimers.now) {
    this.#node = node
    this.#maxDrift = maxDrift
    this.#now = now
    this.#make = (time, counter) => makeTimestamp(time, counter, node)
  }

  /** A timestamp greater than every one returned or merged before. */
  timestamp(): Timestamp {
    return this.#position.next(this.#now(), this.#make)
  }

  /** Memory from which other threads issue timestamps of this node, above those of this clock; this clock continues above theirs. */
  share(): SharedArrayBuffer {
    if (!this.#shared) {
      const { time, counter } = this.#position
      this.#position = this.#shared = new SharedPosition()
      this.#position.set(time, counter)
    }
    return this.#shared.memory
  }

  /** Other threads get no timestamps until `resumeThreads`; after `closed`, never again. */
  stopThreads(reason: StopReason): void {
    this.#shared?.stop(reason)
  }

  resumeThreads(): void {
    this.#shared?.resume()
  }

  /** False when the timestamp is too far in the future, or invalid. */
  accepts(timestamp: Timestamp): boolean {
    return wallTimeOf(timestamp) <= this.#now() + this.#maxDrift
  }

  /** Advances the clock to this timestamp if `accepts` returns true, and returns that result. */
  merge(timestamp: Timestamp): boolean {
    const accepted = this.accepts(timestamp)
    if (accepted) {
      this.#advanceTo(timestamp)
      if (timestamp > this.#merged) this.#merged = timestamp
    }
    return accepted
  }

  /** ms by which the last timestamp is ahead of wall time; 0 when it is not. */
  get aheadMs(): number {
    return Math.max(0, this.#position.time - this.#now())
  }

  get maxDrift(): number {
    return this.#maxDrift
  }

  /** The highest timestamp that was issued so far, or a higher one. */
  get last(): Timestamp {
    return this.#make(this.#position.time, this.#position.counter)
  }

  /** Another clock of this node at wall time, above every timestamp of a peer that this clock has merged and still accepts. */
  atWallTime(): HybridClock {
    const clock = new HybridClock(this.#node, this.#maxDrift, this.#now)
    clock.merge(this.#merged)
    return clock
  }

  /** Continues after the last timestamp of `clock`, which may be lower than the last one of this clock. */
  continueFrom(clock: HybridClock): void {
    const merged = this.#merged
    this.#position.set(clock.#position.time, clock.#position.counter)
    this.#merged = clock.#merged
    // Timestamps that were merged since `clock` was created.
    this.merge(merged)
  }

  /** As `merge`, for the last timestamp of the local database, which is accepted however far ahead it is. */
  resume(timestamp: Timestamp): void {
    this.#advanceTo(timestamp)
  }

  #advanceTo(timestamp: Timestamp): void {
    const time = wallTimeOf(timestamp)
    if (!Number.isNaN(time)) this.#position.raise(time, counterOf(timestamp))
  }
}
