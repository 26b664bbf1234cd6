// The streams of one node: they outlive its mesh, as files would.

import type { StreamLimits, TableName } from '../mesh.ts'
import { MemoryStream } from './stream.ts'

const keyOf = ({ database, table }: TableName) => JSON.stringify([database, table])

export class Disk {
  readonly #streams = new Map<string, MemoryStream>()
  readonly #now: () => number
  /** Of each stream. */
  limits: StreamLimits = {}

  constructor(now: () => number) {
    this.#now = now
  }

  find(table: TableName): MemoryStream | undefined {
    return this.#streams.get(keyOf(table))
  }

  /** The stream of this table, made with `description` and `created` when missing. */
  ensure(table: TableName, description: string, created: () => string): MemoryStream {
    const stream = this.find(table) ?? new MemoryStream(description, created(), () => this.limits, this.#now)
    this.#streams.set(keyOf(table), stream)
    return stream
  }

  lose(): void {
    this.#streams.clear()
  }
}
