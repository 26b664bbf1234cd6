// Who goes when: requests about one node run one after the other, requests about all nodes alone.

export class Turns {
  /** The last turn of each node; settles, never rejects. */
  readonly #tails = new Map<string, Promise<void>>()
  /** The last turn of all nodes. */
  #all: Promise<void> = Promise.resolve()

  /** Runs `task` when every earlier turn of that node, or of all when none is named, is over. */
  run<T>(node: string | undefined, task: () => Promise<T>): Promise<T> {
    const before = node === undefined ? Promise.all([this.#all, ...this.#tails.values()]) : this.#tailOf(node)
    const result = before.then(task)
    const over = result.then(
      () => {},
      () => {},
    )
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
