// Remembers the texts that were added last, in bounded memory.

import { randomInt } from 'node:crypto'

const PRIME = 0x01000193
/** Buckets for each text of a full set. */
const BUCKETS_PER_TEXT = 2
/** Nobody can prepare texts that fall into one bucket. */
const SEED = randomInt(2 ** 32 - 1)

function hashOf(text: string): number {
  let hash = SEED
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), PRIME)
  return hash ^ (hash >>> 15)
}

/** A set of fixed capacity to which a text is added in a fraction of the time that a `Set` of this size takes, which grows and is copied. */
class FixedSet {
  readonly #texts: string[] = []
  /** By the hash: the number of the text that was added last, from 1; 0 without one. */
  readonly #buckets: Uint32Array
  /** By the number of a text: the one that was added to its bucket before. */
  readonly #before: Uint32Array
  readonly #mask: number

  constructor(capacity: number) {
    const buckets = 2 ** Math.ceil(Math.log2(Math.max(1, capacity * BUCKETS_PER_TEXT)))
    this.#buckets = new Uint32Array(buckets)
    this.#before = new Uint32Array(capacity + 1)
    this.#mask = buckets - 1
  }

  /** Number of texts that were added. */
  get size(): number {
    return this.#texts.length
  }

  add(text: string): void {
    const bucket = hashOf(text) & this.#mask
    const number = this.#texts.push(text)
    this.#before[number] = this.#buckets[bucket]!
    this.#buckets[bucket] = number
  }

  has(text: string, hash: number): boolean {
    for (let number = this.#buckets[hash & this.#mask]!; number > 0; number = this.#before[number]!)
      if (this.#texts[number - 1] === text) return true
    return false
  }
}

export class RecentSet {
  readonly #capacity: number
  #current: FixedSet
  #previous: FixedSet

  /** `capacity`: at least as many of the last texts are remembered, and at most twice as many. A text that is added again counts again. */
  constructor(capacity: number) {
    this.#capacity = capacity
    this.#current = new FixedSet(capacity)
    this.#previous = new FixedSet(0)
  }

  add(text: string): void {
    if (this.#current.size >= this.#capacity) {
      this.#previous = this.#current
      this.#current = new FixedSet(this.#capacity)
    }
    this.#current.add(text)
  }

  has(text: string): boolean {
    const hash = hashOf(text)
    return this.#current.has(text, hash) || this.#previous.has(text, hash)
  }
}
