// Appends to the local streams, and the ones in flight.

import { queueMicrotask } from '../../util/timers.ts'
import { type ExpectedLast, MeshError, type Message, type TableName } from '../mesh.ts'
import type { Fabric } from './fabric.ts'
import { requireStream, sizeOf } from './stream.ts'

/** Bytes; the same as on NATS. */
export const MAX_PAYLOAD = 32 * 1024 * 1024 - 1024

type AppendCallback = (error: MeshError | undefined, sequence: number) => void

export class Appender {
  readonly #fabric: Fabric
  readonly #address: string
  /** Neither acknowledged nor rejected, oldest first. */
  readonly #pending = new Set<AppendCallback>()

  constructor(fabric: Fabric, address: string) {
    this.#fabric = fabric
    this.#address = address
  }

  append(table: TableName, { data, headers }: Message, expected: ExpectedLast | undefined, done: AppendCallback): void {
    const size = sizeOf({ data, headers })
    if (size > MAX_PAYLOAD) {
      const error = new MeshError('too_large', `message of ${size} bytes exceeds the maximum of ${MAX_PAYLOAD}`)
      return queueMicrotask(() => done(error, 0))
    }
    const message = { data: data.slice(), headers: { ...headers } }
    // A new function for each append, because callers may pass the same `done` twice.
    const pending: AppendCallback = (error, sequence) => done(error, sequence)
    this.#pending.add(pending)
    this.#send(() => {
      const outcome = this.#store(table, message, expected)
      this.#send(() => {
        if (this.#pending.delete(pending)) pending(...outcome)
      })
    })
  }

  /** Fails all appends in flight. Some of them may have been stored. */
  fail(error: MeshError): void {
    const pending = [...this.#pending]
    this.#pending.clear()
    for (const done of pending) done(error, 0)
  }

  #send(work: () => void): void {
    this.#fabric.send(this.#address, this.#address, work)
  }

  #store(table: TableName, message: Message, expected: ExpectedLast | undefined): Parameters<AppendCallback> {
    try {
      const stream = requireStream(this.#fabric.disk(this.#address).find(table))
      return [undefined, stream.append(message, expected)]
    } catch (error) {
      return [error as MeshError, 0]
    }
  }
}
