// The end of a call that waits: its time limit, or the signal of its caller.

import { type ClusterError, clusterError } from '../../errors.ts'
import type { Timers } from '../../util/timers.ts'

export type DeadlineOptions = {
  /** ms */
  timeout: number
  signal?: AbortSignal | undefined
  /** For the text of `aborted`. */
  operation: string
}

export class Deadline {
  readonly #options: DeadlineOptions
  readonly #cancelTimer: () => void
  readonly #onAbort = () => this.#end?.(this.#abortedError())
  #hasExpired = false
  #end: ((error: ClusterError | undefined) => void) | undefined

  constructor(timers: Timers, options: DeadlineOptions) {
    this.#options = options
    options.signal?.addEventListener('abort', this.#onAbort, { once: true })
    this.#cancelTimer = timers.after(options.timeout, () => {
      this.#hasExpired = true
      this.#end?.(undefined)
    })
  }

  /** Settles as `work` does, unless the time is over before (`timeoutError`), or the signal aborts (`aborted`). One call at a time. */
  limit<T>(work: Promise<T>, timeoutError: () => ClusterError): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#end = (error) => reject(error ?? timeoutError())
      if (this.#options.signal?.aborted) this.#end(this.#abortedError())
      else if (this.#hasExpired) this.#end(undefined)
      work.then(resolve, reject)
    })
  }

  /** Call when the call has ended. */
  cancel(): void {
    this.#cancelTimer()
    this.#end = undefined
    this.#options.signal?.removeEventListener('abort', this.#onAbort)
  }

  #abortedError(): ClusterError {
    return clusterError('aborted', this.#options.operation)
  }
}
