// An iteration of the host with a time limit for each step.

import type { HostCallOptions } from './host.ts'
import type { CallInProgress, HostCall, HostCalls, Lane } from './host-calls.ts'

/** Rejects as `HostCalls.run`. An iteration whose step is overdue is closed as soon as that step ends. */
export function watchIterable<T>(
  calls: HostCalls,
  call: HostCall,
  lane: Lane,
  open: (options: HostCallOptions) => AsyncIterable<T>,
): AsyncIterable<T> {
  return { [Symbol.asyncIterator]: () => new WatchedIterator(calls, call, lane, open) }
}

/** A step runs for each transaction: it has no asynchronous function, which would cost further turns, and no functions of its own. */
class WatchedIterator<T> implements AsyncIterator<T> {
  readonly #calls: HostCalls
  readonly #call: HostCall
  readonly #lane: Lane
  readonly #open: (options: HostCallOptions) => AsyncIterable<T>
  readonly #controller = new AbortController()
  #iterator: AsyncIterator<T> | undefined
  /** The step in progress, or the last one. */
  #step: CallInProgress | undefined
  /** Of the promise of the step in progress. */
  #resolve!: (result: IteratorResult<T>) => void
  #reject!: (error: unknown) => void

  constructor(calls: HostCalls, call: HostCall, lane: Lane, open: (options: HostCallOptions) => AsyncIterable<T>) {
    this.#calls = calls
    this.#call = call
    this.#lane = lane
    this.#open = open
  }

  /** Call it again when the promise of the call before is settled. */
  next(): Promise<IteratorResult<T>> {
    const promise = new Promise<IteratorResult<T>>(this.#onCreated)
    if (!this.#begin()) return promise
    try {
      this.#iterator ??= this.#open({ signal: this.#controller.signal })[Symbol.asyncIterator]()
      this.#iterator.next().then(this.#onResult, this.#onError)
    } catch (error) {
      this.#onError(error)
    }
    return promise
  }

  async return(): Promise<IteratorResult<T>> {
    const iterator = this.#iterator
    if (iterator?.return) await this.#calls.run(this.#call, this.#lane, () => iterator.return!())
    return { done: true, value: undefined }
  }

  /** A step that is overdue ends some time: the next one has its own state. */
  #begin(): boolean {
    if (this.#step && !this.#step.isOverdue) return this.#calls.beginAgain(this.#step)
    const begun = this.#calls.begin(this.#call, this.#lane, this.#onOverdue, (error) => this.#controller.abort(error))
    if (begun) this.#step = begun
    return begun !== undefined
  }

  readonly #onCreated = (resolve: (result: IteratorResult<T>) => void, reject: (error: unknown) => void): void => {
    this.#resolve = resolve
    this.#reject = reject
  }

  readonly #onOverdue = (error: Error): void => this.#reject(error)

  readonly #onResult = (result: IteratorResult<T>): void => {
    const step = this.#step!
    if (step.isOverdue) return void this.#closeLate().finally(() => this.#calls.end(step))
    this.#calls.end(step)
    this.#resolve(result)
  }

  readonly #onError = (error: unknown): void => {
    this.#calls.end(this.#step!)
    this.#reject(error)
  }

  async #closeLate(): Promise<void> {
    await this.#iterator?.return?.().catch(() => {})
  }
}
