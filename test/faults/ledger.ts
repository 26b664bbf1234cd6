// Every write that was acknowledged to its writer, kept by the run, apart from every node.

export class Ledger {
  readonly #writes = new Map<string, readonly string[]>()

  acknowledged(key: string, tables: readonly string[]): void {
    this.#writes.set(key, tables)
  }

  get size(): number {
    return this.#writes.size
  }

  /** Keys of the writes' own rows, with the tables that have one. */
  [Symbol.iterator](): IterableIterator<[key: string, tables: readonly string[]]> {
    return this.#writes[Symbol.iterator]()
  }
}
