// Holds work of a test at a point until the test lets it go on.

import type { TestContext } from 'node:test'

/** It opens at the end of the test too, so that nothing hangs in a failed test. */
export class Gate {
  /** Resolves when the first work waits. */
  readonly reached: Promise<void>
  readonly #opened: Promise<void>
  #reach!: () => void
  #open!: () => void

  constructor(test: Pick<TestContext, 'after'>) {
    this.reached = new Promise((resolve) => {
      this.#reach = resolve
    })
    this.#opened = new Promise((resolve) => {
      this.#open = resolve
    })
    test.after(() => this.open())
  }

  /** Resolves when the gate is open. */
  pass(): Promise<void> {
    this.#reach()
    return this.#opened
  }

  open(): void {
    this.#open()
  }
}
