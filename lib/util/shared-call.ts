// A call that many callers need at once: they share its result, and at most one call runs at a time.

import type { Timers } from './timers.ts'

export type SharedCallOptions = {
  timers: Timers
  /** ms for which `get` returns a result again. */
  maxAge: number
}

export class SharedCall<T> {
  readonly #call: () => Promise<T>
  readonly #options: SharedCallOptions
  #running: Promise<T> | undefined
  #next: Promise<T> | undefined
  #result: { value: T; at: number } | undefined
  #isInvalid = false

  constructor(call: () => Promise<T>, options: SharedCallOptions) {
    this.#call = call
    this.#options = options
  }

  /** The latest result, however old it is; undefined before the first one. */
  get latest(): T | undefined {
    return this.#result?.value
  }

  /** A result that is at most `maxAge` old, or that of the call in progress. Rejects as the call does. */
  get(): Promise<T> {
    const { timers, maxAge } = this.#options
    if (this.#isInvalid) return this.fresh()
    if (this.#result && timers.elapsed() - this.#result.at <= maxAge) return Promise.resolve(this.#result.value)
    return this.#running ?? this.#start()
  }

  /** Later calls of `get` do not return results of calls that began before. */
  invalidate(): void {
    this.#isInvalid = true
  }

  /** The result of a call that begins now or later. Rejects as the call does. */
  fresh(): Promise<T> {
    if (!this.#running) return this.#start()
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = undefined
        return this.#start()
      })
    return this.#next
  }

  #start(): Promise<T> {
    this.#isInvalid = false
    const at = this.#options.timers.elapsed()
    this.#running = (async () => this.#call())().then((value) => {
      this.#result = { value, at }
      return value
    })
    const ended = () => {
      this.#running = undefined
    }
    this.#running.then(ended, ended)
    return this.#running
  }
}
