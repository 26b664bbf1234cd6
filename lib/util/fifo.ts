// A queue of many, oldest first: taking the oldest costs the same however long it is.

/** Taken entries after which the array is cut, once they are half of it. */
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

  /** The entry behind `index` others; undefined when there are no more. */
  at(index: number): T | undefined {
    return this.#entries[this.#head + index]
  }

  shift(): T | undefined {
    if (this.length === 0) return undefined
    const entry = this.#entries[this.#head]
    // What was taken is not kept until the next cut.
    this.#entries[this.#head++] = undefined
    if (this.#head >= COMPACT_AFTER && this.#head * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head)
      this.#head = 0
    }
    return entry
  }
}
