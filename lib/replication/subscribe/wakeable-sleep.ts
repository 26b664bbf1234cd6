// A sleep that another call can end early. One at a time.

import type { Timers } from '../../util/timers.ts'

export class WakeableSleep {
  readonly #timers: Timers
  #wake: (() => void) | undefined

  constructor(timers: Timers) {
    this.#timers = timers
  }

  /** Resolves after `ms`, or earlier when `wake` is called. */
  async sleep(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#timers.after(ms, resolve)
      this.#wake = () => {
        cancel()
        resolve()
      }
    })
    this.#wake = undefined
  }

  /** Has no effect when nothing sleeps. */
  wake(): void {
    this.#wake?.()
  }
}
