// A queue of entries that are found by their ids, also for some time after they have left it.

import { randomInt } from 'node:crypto'

const FIRST_CAPACITY = 64
/** Buckets for each place. */
const BUCKETS_PER_PLACE = 2
/** The numbers of entries start again at 1 beyond this one: larger numbers take more memory. */
const MAX_NUMBER = 2 ** 30
const PRIME = 0x01000193
/** Nobody can prepare ids that fall into one bucket. */
const SEED = randomInt(2 ** 32 - 1)

function hashOf(id: string): number {
  let hash = SEED
  for (let at = 0; at < id.length; at++) hash = Math.imul(hash ^ id.charCodeAt(at), PRIME)
  return (hash ^ (hash >>> 15)) >>> 0
}

/**
 * Each entry has a number, and its place is that of its number in a ring. Takes a fraction of the time of a `Map` from which entries are removed
 * as fast as they are added, because that is copied again and again.
 */
export class IdQueue<Entry extends { readonly id: string }> {
  readonly #remembered: number
  readonly #maxNumber: number
  #capacity = FIRST_CAPACITY
  /** By number: the entry, or the id of one that has left the queue; undefined when that is not remembered. */
  #places: (Entry | string | undefined)[] = new Array(FIRST_CAPACITY)
  /** By hash: the number of the newest entry, 0 without one. */
  #buckets = new Uint32Array(FIRST_CAPACITY * BUCKETS_PER_PLACE)
  /** By number: that of the entry before it in its bucket, and its own hash, side by side: a look-up reads only places that match. */
  #links = new Uint32Array(2 * FIRST_CAPACITY)
  /** Numbers of the oldest entry, and of the next one to come. */
  #head = 1
  #next = 1
  /** An id is looked up before its entry is added. */
  #lastId = ''
  #lastHash = hashOf('')

  /** `remembered`: number of entries whose ids are known after they have left. */
  constructor(remembered: number, maxNumber = MAX_NUMBER) {
    this.#remembered = remembered
    this.#maxNumber = maxNumber
  }

  get length(): number {
    return this.#next - this.#head
  }

  /** The entry at this offset, 0 for the oldest; undefined beyond the end. */
  at(offset: number): Entry | undefined {
    return offset < this.length ? (this.#places[(this.#head + offset) & (this.#capacity - 1)] as Entry) : undefined
  }

  *[Symbol.iterator](): Iterator<Entry> {
    for (let offset = 0; offset < this.length; offset++) yield this.at(offset)!
  }

  /** The newest entry in the queue with this id. */
  get(id: string): Entry | undefined {
    const number = this.#find(id)
    return number >= this.#head ? (this.#places[number & (this.#capacity - 1)] as Entry) : undefined
  }

  has(id: string): boolean {
    return this.#find(id) >= this.#head
  }

  /** True when the newest entry with this id has left the queue and is remembered. */
  remembers(id: string): boolean {
    const number = this.#find(id)
    return number > 0 && number < this.#head
  }

  push(entry: Entry): void {
    if (this.#next - this.#firstUsed === this.#capacity) this.#rebuild(2 * this.#capacity)
    else if (this.#next > this.#maxNumber) this.#rebuild(this.#capacity)
    this.#add(entry, this.#hash(entry.id))
  }

  /** Removes the oldest entry. */
  shift({ isRemembered = true } = {}): Entry | undefined {
    const entry = this.at(0)
    if (entry) this.#places[this.#head++ & (this.#capacity - 1)] = isRemembered ? entry.id : undefined
    return entry
  }

  /** The number of the oldest entry that is remembered, or in the queue. */
  get #firstUsed(): number {
    return Math.max(1, this.#head - this.#remembered)
  }

  /** The number of the newest entry with this id; 0 when none is known. */
  #find(id: string): number {
    const hash = this.#hash(id)
    const mask = this.#capacity - 1
    const oldest = this.#firstUsed
    let number = this.#buckets[hash & (BUCKETS_PER_PLACE * this.#capacity - 1)]!
    // The places of older numbers may belong to others by now.
    for (; number >= oldest; number = this.#links[2 * (number & mask)]!) {
      if (this.#links[2 * (number & mask) + 1] !== hash) continue
      const place = this.#places[number & mask]
      if ((typeof place === 'object' ? place.id : place) === id) return number
    }
    return 0
  }

  #hash(id: string): number {
    if (id !== this.#lastId) {
      this.#lastHash = hashOf(id)
      this.#lastId = id
    }
    return this.#lastHash
  }

  #add(place: Entry | string | undefined, hash: number): void {
    const number = this.#next++
    const index = number & (this.#capacity - 1)
    const bucket = hash & (BUCKETS_PER_PLACE * this.#capacity - 1)
    this.#places[index] = place
    this.#links[2 * index] = this.#buckets[bucket]!
    this.#links[2 * index + 1] = hash
    this.#buckets[bucket] = number
  }

  /** Renumbers what is used. */
  #rebuild(capacity: number): void {
    const [first, head, end] = [this.#firstUsed, this.#head, this.#next]
    const [places, links, mask] = [this.#places, this.#links, this.#capacity - 1]
    this.#capacity = capacity
    this.#places = new Array(capacity)
    this.#buckets = new Uint32Array(capacity * BUCKETS_PER_PLACE)
    this.#links = new Uint32Array(2 * capacity)
    this.#next = 1
    this.#head = head - first + 1
    for (let number = first; number < end; number++) this.#add(places[number & mask], links[2 * (number & mask) + 1]!)
  }
}
