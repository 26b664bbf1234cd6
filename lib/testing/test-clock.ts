// The time of a network in memory, turned by a test: heartbeats, time-outs, back-off, retention and delays in no time.

import type { Timers } from '../timers.ts'

export type TestClockOptions = {
  /** ms since 1970 at the start, or a date. Default: the present. */
  start?: number | Date
  /** It stands still unless it is turned. Default: false, it goes on as the system's does. */
  stopped?: boolean
}

type Timer = { at: number; every: number | undefined; work: () => void }

/** Turns of the event loop between two moments: what one node sends to another takes one, and an answer several. */
const TURNS = 25
const EARLIEST = 0
/** What a Date can hold. */
const LATEST = 8.64e15

/**
 * `new MemoryNetwork({ clock: new TestClock() })`: the managers of that network go by it as well. What concerns the
 * configuration file, and the closing of a manager, goes by the system's time.
 */
export class TestClock implements Timers {
  readonly #timers = new Set<Timer>()
  readonly #start: number
  /** Time of ours that is not the system's. */
  #offset: number
  readonly #stopped: boolean
  #alarm: NodeJS.Timeout | undefined
  #turning: Promise<void> = Promise.resolve()

  constructor({ start = Date.now(), stopped = false }: TestClockOptions = {}) {
    const time = Number(start)
    if (!(time >= EARLIEST && time <= LATEST)) throw new TypeError(`'start' must be a time, received ${String(start)}`)
    this.#start = time
    this.#stopped = stopped
    this.#offset = stopped ? 0 : -performance.now()
  }

  /** ms since 1970. */
  now(): number {
    return Math.floor(this.#start + this.elapsed())
  }

  /** ms since the clock was made. */
  elapsed(): number {
    return this.#stopped ? this.#offset : performance.now() + this.#offset
  }

  /**
   * Turns the clock ahead by `ms`. What is due meanwhile happens in order, each at its time, and what it sets off in memory
   * has happened when this resolves; what waits for a disk or another process may not have. Throws a TypeError for what is no
   * duration.
   */
  advance(ms: number): Promise<void> {
    if (!(typeof ms === 'number' && ms >= 0 && ms <= LATEST))
      throw new TypeError(`'ms' must be from 0 to ${LATEST}, received ${ms}`)
    const turn = this.#turning.then(() => this.#advance(ms))
    this.#turning = turn
    return turn
  }

  after(ms: number, work: () => void): () => void {
    return this.#add({ at: this.elapsed() + Math.max(0, ms), every: undefined, work })
  }

  every(ms: number, work: () => void): () => void {
    const every = Math.max(1, ms)
    return this.#add({ at: this.elapsed() + every, every, work })
  }

  #add(timer: Timer): () => void {
    this.#timers.add(timer)
    this.#arm()
    return () => void this.#timers.delete(timer)
  }

  async #advance(ms: number): Promise<void> {
    await settled()
    const end = this.elapsed() + ms
    for (let next = this.#next(); next && next.at <= end; next = this.#next()) {
      this.#turnTo(next.at)
      this.#fire()
      await settled()
    }
    this.#turnTo(end)
  }

  #turnTo(elapsed: number): void {
    this.#offset += Math.max(0, elapsed - this.elapsed())
  }

  #next(): Timer | undefined {
    let next: Timer | undefined
    for (const timer of this.#timers) if (!next || timer.at < next.at) next = timer
    return next
  }

  /** All that is due, the earliest first. */
  #fire(): void {
    const now = this.elapsed()
    const due = [...this.#timers].filter(({ at }) => at <= now).sort((a, b) => a.at - b.at)
    for (const timer of due) {
      if (!this.#timers.has(timer)) continue
      if (timer.every === undefined) this.#timers.delete(timer)
      else timer.at += timer.every
      timer.work()
    }
    this.#arm()
  }

  /** Of a clock that goes on by itself. */
  #arm(): void {
    clearTimeout(this.#alarm)
    const next = this.#next()
    if (this.#stopped || !next) return
    this.#alarm = setTimeout(() => this.#fire(), Math.max(1, next.at - this.elapsed()))
    if ([...this.#timers].every(({ every }) => every !== undefined)) this.#alarm.unref()
  }
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < TURNS; turn++) await new Promise((resolve) => setImmediate(resolve))
}
