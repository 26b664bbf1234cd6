// A queue whose `shift` takes constant time, unlike that of a long array.

/** Removed entries after which the array is compacted, once they are half of it. */
const COMPACT_AFTER = 1_024

export class Fifo<T> {
  #entries: (T | undefined)[] = []
  #head = 0

  get length(): number {
    return this.#entries.length - this.#head
  }

  push(entry: T): void {
    this.#entries.push(entry)
  }

  /** The entry at `index`, 0 for the oldest; undefined beyond the end. */
  at(index: number): T | undefined {
    return this.#entries[this.#head + index]
  }

  shift(): T | undefined {
    if (this.length === 0) return undefined
    const entry = this.#entries[this.#head]
    // Releases the entry before the array is compacted.
    this.#entries[this.#head++] = undefined
    if (this.#head >= COMPACT_AFTER && this.#head * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head)
      this.#head = 0
    }
    return entry
  }
}
