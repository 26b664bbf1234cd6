// The rows of a table of MemoryHost in the order in which they were first written.

import type { StoredRow } from '../host/host.ts'

export class RowOrder {
  readonly #keys: string[] = []
  /** Positions in `#keys`. Rows that are gone keep theirs. */
  readonly #positions = new Map<string, number>()

  /** Call for each new row. */
  add(key: string): void {
    if (this.#positions.has(key)) return
    this.#positions.set(key, this.#keys.length)
    this.#keys.push(key)
  }

  /** The next `limit` of these rows after this one. */
  next(rows: ReadonlyMap<string, StoredRow>, after: string | undefined, limit: number): [string, StoredRow][] {
    // Rows that were added without a call of `add`.
    if (rows.size > this.#keys.length) for (const key of rows.keys()) this.add(key)
    const found: [string, StoredRow][] = []
    for (let at = after === undefined ? 0 : (this.#positions.get(after) ?? -1) + 1; found.length < limit; at++) {
      const key = this.#keys[at]
      if (key === undefined) break
      const row = rows.get(key)
      if (row) found.push([key, row])
    }
    return found
  }
}
