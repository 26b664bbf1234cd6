// How many rows are applied at once. A database that answers within the same turn of the event loop blocks the process meanwhile, so it
// gets fewer rows when that takes long: live transactions have to wait for the slices of a copy. One that works elsewhere gets all.

import { clearImmediate, setImmediate, systemTimers } from '../../util/timers.ts'

/** ms for which a slice may block the process. */
const SLICE_MS = { min: 2, max: 4 }
/** Fewer cost too much for each: a slice is a transaction of the database. */
const MIN_ROWS = 100

export class SliceSize {
  readonly #max: number
  #rows: number

  /** `max`: of rows; also the first size. */
  constructor(max: number) {
    this.#max = max
    this.#rows = max
  }

  get rows(): number {
    return this.#rows
  }

  /** Adapts the size to what `work` takes. Settles as `work` does. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const started = systemTimers.elapsed()
    let hasTurned = false
    const turn = setImmediate(() => {
      hasTurned = true
    })
    try {
      return await work()
    } finally {
      clearImmediate(turn)
      this.#adapt(hasTurned ? 0 : systemTimers.elapsed() - started)
    }
  }

  /** `blocked`: ms. */
  #adapt(blocked: number): void {
    if (blocked > SLICE_MS.max) this.#rows = Math.max(this.#rows >> 1, Math.min(MIN_ROWS, this.#max))
    else if (blocked < SLICE_MS.min) this.#rows = Math.min(2 * this.#rows, this.#max)
  }
}
