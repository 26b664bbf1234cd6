// An iteration of the host with a time limit for each step.

import type { HostCallOptions } from './host.ts'
import type { HostCall, HostCalls, Lane } from './host-calls.ts'

/** Rejects as `HostCalls.run`. An iteration whose step is overdue is closed as soon as that step ends. */
export function watchIterable<T>(
  calls: HostCalls,
  call: HostCall,
  lane: Lane,
  open: (options: HostCallOptions) => AsyncIterable<T>,
): AsyncIterable<T> {
  return { [Symbol.asyncIterator]: () => new WatchedIterator(calls, call, lane, open) }
}

class WatchedIterator<T> implements AsyncIterator<T> {
  readonly #calls: HostCalls
  readonly #call: HostCall
  readonly #lane: Lane
  readonly #open: (options: HostCallOptions) => AsyncIterable<T>
  readonly #controller = new AbortController()
  readonly #abort = (error: Error) => this.#controller.abort(error)
  #iterator: AsyncIterator<T> | undefined

  constructor(calls: HostCalls, call: HostCall, lane: Lane, open: (options: HostCallOptions) => AsyncIterable<T>) {
    this.#calls = calls
    this.#call = call
    this.#lane = lane
    this.#open = open
  }

  /** Runs once for each transaction: without an asynchronous function, which would cost further turns. */
  next(): Promise<IteratorResult<T>> {
    return new Promise((resolve, reject) => {
      const current = this.#calls.begin(this.#call, this.#lane, reject, this.#abort)
      if (!current) return
      const fail = (error: unknown) => {
        this.#calls.end(current)
        reject(error)
      }
      try {
        this.#iterator ??= this.#open({ signal: this.#controller.signal })[Symbol.asyncIterator]()
        this.#iterator.next().then((result) => {
          if (current.isOverdue) return this.#closeLate().finally(() => this.#calls.end(current))
          this.#calls.end(current)
          resolve(result)
        }, fail)
      } catch (error) {
        fail(error)
      }
    })
  }

  async return(): Promise<IteratorResult<T>> {
    const iterator = this.#iterator
    if (iterator?.return) await this.#calls.run(this.#call, this.#lane, () => iterator.return!())
    return { done: true, value: undefined }
  }

  async #closeLate(): Promise<void> {
    await this.#iterator?.return?.().catch(() => {})
  }
}
