// The last timestamp of a clock as two numbers: in the memory of one thread, or in memory that several threads share.

import { type ClusterError, clusterError } from '../errors.ts'

/** Of a timestamp: six hexadecimal digits. */
const MAX_COUNTER = 0xffffff

export interface ClockPosition {
  /** ms since 1970. */
  readonly time: number
  readonly counter: number
  /** The next position: at `now`, or after the present one if that is not lower. Calls `use` with it, and returns the result. */
  next<T>(now: number, use: (time: number, counter: number) => T): T
  /** At least this position. */
  raise(time: number, counter: number): void
  /** This position, which may be lower. */
  set(time: number, counter: number): void
}

export class LocalPosition implements ClockPosition {
  time = 0
  counter = 0

  next<T>(now: number, use: (time: number, counter: number) => T): T {
    if (now > this.time) {
      this.time = now
      this.counter = 0
    } else if (this.counter < MAX_COUNTER) {
      this.counter++
    } else {
      this.time++
      this.counter = 0
    }
    return use(this.time, this.counter)
  }

  raise(time: number, counter: number): void {
    if (time < this.time || (time === this.time && counter <= this.counter)) return
    this.set(time, counter)
  }

  set(time: number, counter: number): void {
    this.time = time
    this.counter = counter
  }
}

/** Why other threads get no timestamps at present. */
export type StopReason = 'restamping' | 'closed'
const REASONS: readonly StopReason[] = ['restamping', 'closed']

/**
 * Position in one 64-bit word, so that a thread that ends at any time leaves it valid: the bit of `stop`, 48 bits of time, 15 bits of
 * counter. A counter that does not fit counts as the first one of the next millisecond, which is higher.
 */
const COUNTER_BITS = 15n
const MAX_SHARED_COUNTER = (1 << Number(COUNTER_BITS)) - 1
const TIME_MASK = (1n << 48n) - 1n
const STOPPED = 1n << 63n
/** Bytes of the word and of the reason why it is stopped. */
const MEMORY_BYTES = 16
const REASON_INDEX = 2

const pack = (time: number, counter: number): bigint =>
  counter > MAX_SHARED_COUNTER
    ? (BigInt(time + 1) & TIME_MASK) << COUNTER_BITS
    : ((BigInt(time) & TIME_MASK) << COUNTER_BITS) | BigInt(counter)
const timeOf = (word: bigint) => Number((word >> COUNTER_BITS) & TIME_MASK)
const counterOf = (word: bigint) => Number(word & BigInt(MAX_SHARED_COUNTER))

export class SharedPosition implements ClockPosition {
  readonly memory: SharedArrayBuffer
  readonly #words: BigUint64Array
  readonly #reason: Int32Array
  readonly #isOwner: boolean

  /** Without `memory` a new position, whose owner may stop the others. */
  constructor(memory?: SharedArrayBuffer) {
    this.#isOwner = memory === undefined
    this.memory = memory ?? new SharedArrayBuffer(MEMORY_BYTES)
    this.#words = new BigUint64Array(this.memory, 0, 1)
    this.#reason = new Int32Array(this.memory)
  }

  get time(): number {
    return timeOf(this.#word)
  }

  get counter(): number {
    return counterOf(this.#word)
  }

  /** Throws restamping and closed while the owner has stopped this thread. */
  next<T>(now: number, use: (time: number, counter: number) => T): T {
    for (;;) {
      const word = this.#word
      const stopped = word & STOPPED
      if (stopped && !this.#isOwner) throw this.#stopError()
      const time = timeOf(word)
      const next = now > time ? pack(Math.floor(now), 0) : pack(time, counterOf(word) + 1)
      if (this.#exchange(word, next | stopped)) return use(timeOf(next), counterOf(next))
    }
  }

  raise(time: number, counter: number): void {
    const raised = pack(time, counter)
    for (;;) {
      const word = this.#word
      const stopped = word & STOPPED
      if (raised <= (word ^ stopped) || this.#exchange(word, raised | stopped)) return
    }
  }

  set(time: number, counter: number): void {
    for (;;) {
      const word = this.#word
      if (this.#exchange(word, pack(time, counter) | (word & STOPPED))) return
    }
  }

  /** Other threads get no timestamps from now on. */
  stop(reason: StopReason): void {
    Atomics.store(this.#reason, REASON_INDEX, REASONS.indexOf(reason))
    Atomics.or(this.#words, 0, STOPPED)
  }

  /** A closed position stays closed. */
  resume(): void {
    if (REASONS[Atomics.load(this.#reason, REASON_INDEX)] === 'closed') return
    Atomics.and(this.#words, 0, STOPPED - 1n)
  }

  get #word(): bigint {
    return Atomics.load(this.#words, 0)
  }

  #exchange(expected: bigint, next: bigint): boolean {
    return Atomics.compareExchange(this.#words, 0, expected, next) === expected
  }

  #stopError(): ClusterError {
    return clusterError(REASONS[Atomics.load(this.#reason, REASON_INDEX)] ?? 'closed')
  }
}
