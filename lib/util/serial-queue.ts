// Runs asynchronous tasks one after the other, in the order in which they were added.

export class SerialQueue {
  #last: Promise<unknown> = Promise.resolve()

  /** Settles as `task` does, which starts when every earlier task has settled. A task that rejects does not stop later ones. */
  run<T>(task: () => T | Promise<T>): Promise<T> {
    const result = this.#last.then(task)
    this.#last = result.catch(() => {})
    return result
  }

  /** Resolves when every task added so far has settled. */
  async idle(): Promise<void> {
    await this.#last
  }
}
