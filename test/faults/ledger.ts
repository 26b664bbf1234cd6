// Every acknowledged write, kept in the process of the run, independent of the nodes.

export class Ledger {
  readonly #writes = new Map<string, readonly string[]>()

  acknowledged(key: string, tables: readonly string[]): void {
    this.#writes.set(key, tables)
  }

  get size(): number {
    return this.#writes.size
  }

  /** Keys of the rows that only one write has, with the tables of the write. */
  [Symbol.iterator](): IterableIterator<[key: string, tables: readonly string[]]> {
    return this.#writes[Symbol.iterator]()
  }
}
