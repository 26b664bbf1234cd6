// Reports the progress of long work at intervals; short work is not reported.

import type { Timers } from '../util/timers.ts'

export type Progress = {
  /** `open`: opening the manager, in steps; `configure`: subscriptions with a remote node, in tables; `catch-up`: all subscriptions, in transactions; `copy`: the rows of a remote table; `verify`: the rows of both nodes. */
  task: 'open' | 'configure' | 'catch-up' | 'copy' | 'verify'
  /** Current step of `open`: `state`, `servers` or `subscriptions`; of `configure`: `streams`, `agreement` or `start`. */
  step?: string
  /** The remote node, for `configure`, `copy` and `verify`, and the table for the last two. */
  node?: string
  database?: string
  table?: string
  done: number
  /** Absent while it is unknown: before the end of a `copy`, and while the local rows are read by a `verify`. */
  total?: number
  /** Average per second since the start; and seconds that the rest takes at that rate. */
  rate?: number
  remaining?: number
}

const REPORT_INTERVAL_MS = 250

export type ProgressTask = Pick<Progress, 'task' | 'step' | 'node' | 'database' | 'table'>

export class ProgressReport {
  readonly #timers: Timers
  readonly #report: (progress: Progress) => void
  readonly #task: ProgressTask
  readonly #startedAt: number
  #reportedAt: number
  #isReported = false

  constructor(timers: Timers, report: (progress: Progress) => void, task: ProgressTask) {
    this.#timers = timers
    this.#report = report
    this.#task = task
    this.#startedAt = timers.elapsed()
    this.#reportedAt = this.#startedAt
  }

  /** Reports the end only if progress was reported before. */
  update(done: number, total?: number): void {
    const now = this.#timers.elapsed()
    const isOver = total !== undefined && done >= total
    if (isOver ? !this.#isReported : now - this.#reportedAt < REPORT_INTERVAL_MS) return
    this.#reportedAt = now
    this.#isReported = !isOver
    const rate = (done * 1_000) / (now - this.#startedAt)
    const remaining = rate > 0 && total !== undefined ? { remaining: (total - done) / rate } : {}
    this.#report({ ...this.#task, done, ...(total !== undefined && { total }), rate, ...remaining })
  }
}
