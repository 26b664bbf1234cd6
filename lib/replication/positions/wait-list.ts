// What waits for positions of one table, in the order of its running numbers: a step from one position to the next concerns few of them.

export type WaitEntry<Wait> = { index: number; wait: Wait }

/** Ended entries before the list is made new. */
const MAX_ENDED = 64

export class WaitList<Wait extends { readonly isEnded: boolean }> {
  #entries: WaitEntry<Wait>[] = []
  #ended = 0

  get isEmpty(): boolean {
    return this.#entries.length === this.#ended
  }

  add(index: number, wait: Wait): void {
    const at = this.#after(index)
    if (at === this.#entries.length) this.#entries.push({ index, wait })
    else this.#entries.splice(at, 0, { index, wait })
  }

  /** An entry has ended. */
  onEnded(): void {
    this.#ended++
    if (this.#ended < MAX_ENDED || this.#ended < this.#entries.length / 2) return
    this.#entries = this.#entries.filter(({ wait }) => !wait.isEnded)
    this.#ended = 0
  }

  /** The waits with an index after `from` and up to `to`. */
  between(from: number, to: number): Wait[] {
    return this.#entries.slice(this.#after(from), this.#after(to)).flatMap(({ wait }) => (wait.isEnded ? [] : [wait]))
  }

  all(): Wait[] {
    return this.#entries.flatMap(({ wait }) => (wait.isEnded ? [] : [wait]))
  }

  /** Position of the first entry with a higher index. */
  #after(index: number): number {
    let [low, high] = [0, this.#entries.length]
    // The usual case: all are lower.
    if ((this.#entries[high - 1]?.index ?? 0) <= index) return high
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#entries[middle]!.index <= index) low = middle + 1
      else high = middle
    }
    return low
  }
}
