// Requests that wait for an answer. The answer, the time-out, the signal or the end of the connection settles each of them once.

import type { Timers } from '../../util/timers.ts'
import { MeshError, type RequestOptions } from '../mesh.ts'

export type PendingCall<T> = { resolve(value: T): void; reject(error: unknown): void }

export class PendingCalls {
  /** Rejects one request each, oldest first. */
  readonly #pending = new Set<(error: MeshError) => void>()
  readonly #timers: Timers

  constructor(timers: Timers) {
    this.#timers = timers
  }

  /** Waits without limit when `timeout` is missing. */
  call<T>({ timeout, signal }: Partial<RequestOptions>, start: (call: PendingCall<T>) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const finish = (complete: () => void) => {
        if (!this.#pending.delete(fail)) return
        cancel?.()
        signal?.removeEventListener('abort', abort)
        complete()
      }
      const fail = (error: MeshError) => finish(() => reject(error))
      const abort = () => fail(new MeshError('aborted', 'the request was aborted'))
      const onTimeout = () => fail(new MeshError('timeout', `no answer within ${timeout} ms`))
      const cancel = timeout === undefined ? undefined : this.#timers.after(timeout, onTimeout)
      this.#pending.add(fail)
      if (signal?.aborted) return abort()
      signal?.addEventListener('abort', abort, { once: true })
      start({ resolve: (value) => finish(() => resolve(value)), reject: (error) => finish(() => reject(error)) })
    })
  }

  fail(error: MeshError): void {
    for (const fail of [...this.#pending]) fail(error)
  }
}
