// The streams of one node. They outlive its mesh, as files do.

import type { StreamLimits, TableName } from '../mesh.ts'
import { MemoryStream } from './stream.ts'

const tableKeyOf = ({ database, table }: TableName) => JSON.stringify([database, table])

export class Disk {
  readonly #streams = new Map<string, MemoryStream>()
  readonly #now: () => number
  /** Limits of every stream on this disk. */
  limits: StreamLimits = {}
  /** Streams can be read, and not written. */
  isFull = false

  constructor(now: () => number) {
    this.#now = now
  }

  find(table: TableName): MemoryStream | undefined {
    return this.#streams.get(tableKeyOf(table))
  }

  /** The stream of this table, created with `description` and `created` when missing. */
  ensure(table: TableName, description: string, created: () => string): MemoryStream {
    const stream = this.find(table) ?? new MemoryStream(description, created(), () => this.limits, this.#now)
    this.#streams.set(tableKeyOf(table), stream)
    return stream
  }

  wipe(): void {
    this.#streams.clear()
  }

  /** An independent copy of all streams. */
  copy(): Disk {
    const copy = new Disk(this.#now)
    for (const [key, stream] of this.#streams)
      copy.#streams.set(
        key,
        stream.copy(() => copy.limits),
      )
    return copy
  }

  /** Replaces all streams with those of `copy`. */
  restore(copy: Disk): void {
    this.#streams.clear()
    for (const [key, stream] of copy.#streams)
      this.#streams.set(
        key,
        stream.copy(() => this.limits),
      )
  }
}
