// Reports the progress of long work at intervals; short work is not reported.

import type { Timers } from '../util/timers.ts'

export type Progress = {
  /** `open`: opening the manager, in steps; `configure`: subscriptions with a remote node, in tables; `catch-up`: all subscriptions, in transactions. */
  task: 'open' | 'configure' | 'catch-up'
  /** Current step of `open`: `state`, `servers` or `subscriptions`; of `configure`: `streams`, `agreement` or `start`. */
  step?: string
  /** The remote node, for `configure`. */
  node?: string
  done: number
  total: number
  /** Average per second since the start; and seconds that the rest takes at that rate. */
  rate?: number
  remaining?: number
}

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

  /** Reports the end only if progress was reported before. */
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
