// Holds the events that occur before `open` resolves, and delivers them right after it, in order.

import { setImmediate } from '../util/timers.ts'

export class HeldEvents {
  readonly #held: (() => void)[] = []
  #opened = false

  /** Calls `deliver`, or holds it until earlier events are delivered. Returns what it returned; false when it is held. */
  deliver(deliver: () => boolean): boolean {
    if (this.#opened && this.#held.length === 0) return deliver()
    this.#held.push(deliver)
    return false
  }

  /** `open` resolves now. */
  release(): void {
    this.#opened = true
    setImmediate(() => {
      for (const deliver of this.#held.splice(0)) deliver()
    })
  }
}
