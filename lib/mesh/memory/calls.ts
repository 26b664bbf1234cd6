// Questions that wait for an answer: each is settled once, by the answer, its time-out, its signal or the end of the connection.

import type { Timers } from '../../timers.ts'
import { MeshError, type RequestOptions } from '../mesh.ts'

export type Call<T> = { resolve(value: T): void; reject(error: unknown): void }

export class Calls {
  /** How each of them is refused, oldest first. */
  readonly #open = new Set<(error: MeshError) => void>()
  readonly #timers: Timers

  constructor(timers: Timers) {
    this.#timers = timers
  }

  /** Without `timeout` it waits for as long as it takes. */
  call<T>({ timeout, signal }: Partial<RequestOptions>, start: (call: Call<T>) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const settle = (how: () => void) => {
        if (!this.#open.delete(refuse)) return
        forget?.()
        signal?.removeEventListener('abort', abort)
        how()
      }
      const refuse = (error: MeshError) => settle(() => reject(error))
      const abort = () => refuse(new MeshError('aborted', 'the request was aborted'))
      const late = () => refuse(new MeshError('timeout', `no answer within ${timeout} ms`))
      const forget = timeout === undefined ? undefined : this.#timers.after(timeout, late)
      this.#open.add(refuse)
      if (signal?.aborted) return abort()
      signal?.addEventListener('abort', abort, { once: true })
      start({ resolve: (value) => settle(() => resolve(value)), reject: (error) => settle(() => reject(error)) })
    })
  }

  fail(error: MeshError): void {
    for (const refuse of [...this.#open]) refuse(error)
  }
}
