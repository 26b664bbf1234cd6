// Who goes when: requests about one node run one after the other, requests about all nodes alone.

import { unlessAborted } from './abort.ts'

export class Turns {
  /** The last turn of each node; settles, never rejects. */
  readonly #tails = new Map<string, Promise<void>>()
  /** The last turn of all nodes. */
  #all: Promise<void> = Promise.resolve()

  /**
   * Runs `task` when every earlier turn of that node, or of all when none is named, is over; when the signal comes before
   * that, it never runs, and its reason is what this rejects with.
   */
  run<T>(node: string | undefined, task: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const before: Promise<unknown> =
      node === undefined ? Promise.all([this.#all, ...this.#tails.values()]) : this.#tailOf(node)
    const result = unlessAborted(before, signal).then(task)
    // One that gave up waiting lets nobody pass who waits behind it.
    const over = Promise.allSettled([before, result]).then(() => {})
    if (node === undefined) {
      this.#tails.clear()
      this.#all = over
    } else {
      this.#tails.set(node, over)
      void over.then(() => {
        if (this.#tails.get(node) === over) this.#tails.delete(node)
      })
    }
    return result
  }

  #tailOf(node: string): Promise<void> {
    return this.#tails.get(node) ?? this.#all
  }
}
