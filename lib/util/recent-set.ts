// Remembers the texts that were added last, in bounded memory.

/** Characters at the end of a text by which its mark is chosen. */
const MARKED_CHARACTERS = 8
/** Marks for each text of a full set: then one in sixteen texts that are not in it is looked up nevertheless. */
const MARKS_PER_TEXT = 16

/** A set that mostly says without a look-up that a text is not in it: in a large set each look-up waits for the memory several times. */
class MarkedSet {
  readonly #texts = new Set<string>()
  readonly #marks: Uint32Array
  readonly #mask: number

  constructor(capacity: number) {
    const words = 2 ** Math.max(0, Math.ceil(Math.log2((capacity * MARKS_PER_TEXT) / 32)))
    this.#marks = new Uint32Array(words)
    this.#mask = words * 32 - 1
  }

  get size(): number {
    return this.#texts.size
  }

  add(text: string): void {
    const mark = markOf(text) & this.#mask
    this.#marks[mark >>> 5]! |= 1 << (mark & 31)
    this.#texts.add(text)
  }

  has(text: string, hash: number): boolean {
    const mark = hash & this.#mask
    return (this.#marks[mark >>> 5]! & (1 << (mark & 31))) !== 0 && this.#texts.has(text)
  }
}

function markOf(text: string): number {
  let hash = 0
  for (let at = Math.max(0, text.length - MARKED_CHARACTERS); at < text.length; at++)
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  return hash ^ (hash >>> 15)
}

export class RecentSet {
  readonly #capacity: number
  #current: MarkedSet
  #previous: MarkedSet

  /** `capacity`: at least as many of the last texts are remembered, and at most twice as many. */
  constructor(capacity: number) {
    this.#capacity = capacity
    this.#current = new MarkedSet(capacity)
    this.#previous = new MarkedSet(0)
  }

  add(text: string): void {
    if (this.#current.size >= this.#capacity) {
      this.#previous = this.#current
      this.#current = new MarkedSet(this.#capacity)
    }
    this.#current.add(text)
  }

  has(text: string): boolean {
    const hash = markOf(text)
    return this.#current.has(text, hash) || this.#previous.has(text, hash)
  }
}
