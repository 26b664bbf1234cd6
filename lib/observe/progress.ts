// How far long work is, told now and then: nothing of work that is over at once.

import type { Timers } from '../util/timers.ts'

export type Progress = {
  /** `open`: of the manager, in steps; `configure`: of subscriptions with another node, in tables; `catch-up`: of all subscriptions, in transactions. */
  task: 'open' | 'configure' | 'catch-up'
  /** What is under way: of `open`, `state`, `servers` or `subscriptions`; of `configure`, `streams`, `negotiator` or `start`. */
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
const REPORT_INTERVAL_MS = 250

export class ProgressReport {
  readonly #timers: Timers
  readonly #report: (progress: Progress) => void
  readonly #task: Pick<Progress, 'task' | 'step' | 'node'>
  readonly #startedAt: number
  #reportedAt: number
  #isReported = false

  constructor(timers: Timers, report: (progress: Progress) => void, task: Pick<Progress, 'task' | 'step' | 'node'>) {
    this.#timers = timers
    this.#report = report
    this.#task = task
    this.#startedAt = timers.elapsed()
    this.#reportedAt = this.#startedAt
  }

  /** The end is told of what was told before. */
  update(done: number, total: number): void {
    const now = this.#timers.elapsed()
    const isOver = done >= total
    if (isOver ? !this.#isReported : now - this.#reportedAt < REPORT_INTERVAL_MS) return
    this.#reportedAt = now
    this.#isReported = !isOver
    const rate = (done * 1_000) / (now - this.#startedAt)
    const remaining = rate > 0 ? { remaining: (total - done) / rate } : {}
    this.#report({ ...this.#task, done, total, rate, ...remaining })
  }
}
