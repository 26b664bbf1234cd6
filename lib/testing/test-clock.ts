// A clock that tests advance: heartbeats, time-outs, back-off, retention and delays pass without waiting.

import { clearTimeout, setImmediate, setTimeout, systemTimers, type Timers } from '../util/timers.ts'

export type TestClockOptions = {
  /** The time at the start: ms since 1970, or a Date. Default: the system's time. */
  start?: number | Date
  /** Time passes only by `advance`. Default: false, it also passes as the system's time does. */
  stopped?: boolean
}

type Timer = { at: number; every: number | undefined; work: () => void }

/** Turns of the event loop after each timer: a message between two nodes takes one, a request with its answer several. */
const EVENT_LOOP_TURNS = 25
const MIN_TIME_MS = 0
/** The highest time of a Date. */
const MAX_TIME_MS = 8.64e15

/**
 * `new MemoryNetwork({ clock: new TestClock() })`: the managers of that network use this clock too. Watching the configuration
 * file and closing a manager use the system's time.
 */
export class TestClock implements Timers {
  readonly #timers = new Set<Timer>()
  readonly #start: number
  /** ms that are added to `performance.now()`; of a stopped clock, all of its time. */
  #offset: number
  readonly #stopped: boolean
  #nextTimer: NodeJS.Timeout | undefined
  #advancing: Promise<void> = Promise.resolve()

  constructor({ start = systemTimers.now(), stopped = false }: TestClockOptions = {}) {
    const time = Number(start)
    if (!(time >= MIN_TIME_MS && time <= MAX_TIME_MS))
      throw new TypeError(`'start' must be a time, received ${String(start)}`)
    this.#start = time
    this.#stopped = stopped
    this.#offset = stopped ? 0 : -systemTimers.elapsed()
  }

  /** ms since 1970. */
  now(): number {
    return Math.floor(this.#start + this.elapsed())
  }

  /** ms since the clock was created. */
  elapsed(): number {
    return this.#stopped ? this.#offset : systemTimers.elapsed() + this.#offset
  }

  /**
   * Advances the clock by `ms`. The timers that are due run in order, each at its time. Resolves when they and their consequences in
   * memory are done; work that waits for a disk or another process may not be. Throws a TypeError for an invalid `ms`.
   */
  advance(ms: number): Promise<void> {
    if (!(typeof ms === 'number' && ms >= 0 && ms <= MAX_TIME_MS))
      throw new TypeError(`'ms' must be from 0 to ${MAX_TIME_MS}, received ${ms}`)
    const turn = this.#advancing.then(() => this.#advance(ms))
    this.#advancing = turn
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
    this.#schedule()
    return () => {
      // Otherwise the timer of the system would keep the process alive until then.
      if (this.#timers.delete(timer)) this.#schedule()
    }
  }

  async #advance(ms: number): Promise<void> {
    await drainEventLoop()
    const end = this.elapsed() + ms
    for (let next = this.#next(); next && next.at <= end; next = this.#next()) {
      this.#advanceTo(next.at)
      this.#fire()
      await drainEventLoop()
    }
    this.#advanceTo(end)
  }

  #advanceTo(elapsed: number): void {
    this.#offset += Math.max(0, elapsed - this.elapsed())
  }

  #next(): Timer | undefined {
    let next: Timer | undefined
    for (const timer of this.#timers) if (!next || timer.at < next.at) next = timer
    return next
  }

  /** Runs the timers that are due, earliest first. */
  #fire(): void {
    const now = this.elapsed()
    const due = [...this.#timers].filter(({ at }) => at <= now).sort((a, b) => a.at - b.at)
    for (const timer of due) {
      if (!this.#timers.has(timer)) continue
      if (timer.every === undefined) this.#timers.delete(timer)
      else timer.at += timer.every
      timer.work()
    }
    this.#schedule()
  }

  /** For a clock that is not stopped: wakes at the next timer. */
  #schedule(): void {
    clearTimeout(this.#nextTimer)
    const next = this.#next()
    if (this.#stopped || !next) return
    this.#nextTimer = setTimeout(() => this.#fire(), Math.max(1, next.at - this.elapsed()))
    if ([...this.#timers].every(({ every }) => every !== undefined)) this.#nextTimer.unref()
  }
}

async function drainEventLoop(): Promise<void> {
  for (let turn = 0; turn < EVENT_LOOP_TURNS; turn++) await new Promise((resolve) => setImmediate(resolve))
}
