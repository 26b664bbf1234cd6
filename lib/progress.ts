// How far long work is, told now and then: nothing of work that is over at once.

import type { Timers } from './timers.ts'

export type Progress = {
  /** `open`: of the manager, in steps; `configure`: of subscriptions with another node, in tables; `catch-up`: of all subscriptions, in transactions. */
  task: 'open' | 'configure' | 'catch-up'
  /** What is under way: of `open`, `state`, `servers` or `subscriptions`; of `configure`, `streams`, `agreement` or `start`. */
  step?: string
  /** The other node, of `configure`. */
  node?: string
  done: number
  total: number
  /** A second, since it began; and seconds that the rest takes at that rate. */
  rate?: number
  remaining?: number
}

/** ms between two tellings of one task. */
const INTERVAL = 250

export class ProgressReport {
  readonly #timers: Timers
  readonly #tell: (progress: Progress) => void
  readonly #task: Pick<Progress, 'task' | 'step' | 'node'>
  readonly #began: number
  #toldAt: number
  #isTold = false

  constructor(timers: Timers, tell: (progress: Progress) => void, task: Pick<Progress, 'task' | 'step' | 'node'>) {
    this.#timers = timers
    this.#tell = tell
    this.#task = task
    this.#began = timers.elapsed()
    this.#toldAt = this.#began
  }

  /** The end is told of what was told before. */
  update(done: number, total: number): void {
    const now = this.#timers.elapsed()
    const isOver = done >= total
    if (isOver ? !this.#isTold : now - this.#toldAt < INTERVAL) return
    this.#toldAt = now
    this.#isTold = !isOver
    const rate = (done * 1_000) / (now - this.#began)
    const remaining = rate > 0 ? { remaining: (total - done) / rate } : {}
    this.#tell({ ...this.#task, done, total, rate, ...remaining })
  }
}
