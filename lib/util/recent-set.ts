// Remembers the values that were added last, in bounded memory.

export class RecentSet<T> {
  readonly #capacity: number
  #current = new Set<T>()
  #previous = new Set<T>()

  /** `capacity`: at least as many of the last values are remembered, and at most twice as many. */
  constructor(capacity: number) {
    this.#capacity = capacity
  }

  add(value: T): void {
    if (this.#current.size >= this.#capacity) {
      this.#previous = this.#current
      this.#current = new Set()
    }
    this.#current.add(value)
  }

  has(value: T): boolean {
    return this.#current.has(value) || this.#previous.has(value)
  }
}
