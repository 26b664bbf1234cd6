// A queue whose `shift` takes constant time, unlike that of a long array.

const FIRST_CAPACITY = 16
/** An empty queue does not keep more places than these. */
const MAX_EMPTY_CAPACITY = 1_024

/**
 * A ring, which is copied only when it grows. An array that is replaced again and again keeps its last entries alive until a major
 * garbage collection, and these are copied by all minor ones before it.
 */
export class Fifo<T> {
  #ring: (T | undefined)[] = new Array(FIRST_CAPACITY)
  #head = 0
  #length = 0

  get length(): number {
    return this.#length
  }

  push(entry: T): void {
    if (this.#length === this.#ring.length) this.#grow()
    this.#ring[(this.#head + this.#length++) & (this.#ring.length - 1)] = entry
  }

  /** The entry at `index`, 0 for the oldest; undefined beyond the end. */
  at(index: number): T | undefined {
    return index < this.#length ? this.#ring[(this.#head + index) & (this.#ring.length - 1)] : undefined
  }

  shift(): T | undefined {
    if (this.#length === 0) return undefined
    const entry = this.#ring[this.#head]
    this.#ring[this.#head] = undefined
    this.#head = (this.#head + 1) & (this.#ring.length - 1)
    if (--this.#length === 0 && this.#ring.length > MAX_EMPTY_CAPACITY) this.#release()
    return entry
  }

  #release(): void {
    this.#ring = new Array(FIRST_CAPACITY)
    this.#head = 0
  }

  #grow(): void {
    const ring = this.#ring
    this.#ring = new Array(2 * ring.length)
    for (let index = 0; index < this.#length; index++)
      this.#ring[index] = ring[(this.#head + index) & (ring.length - 1)]
    // See the class.
    ring.fill(undefined)
    this.#head = 0
  }
}
