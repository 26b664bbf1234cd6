// A flow of transactions within a window, for a limited time, and its rate.

import type { Figures } from './compare.ts'

/** ms within which at least one transaction must arrive. */
const PATIENCE = 30_000

export type FlowOptions = {
  /** Maximum number of transactions in flight. */
  readonly window: number
  /** Sending ends after this many seconds or transactions. */
  readonly seconds?: number
  readonly count?: number
}

/** Both functions are the same for the whole flow. */
export type Send = (settled: () => void, failed: (error: unknown) => void) => void

/** Resolves with the number of sent transactions when all are acknowledged. Rejects when one fails, or after a time without progress. */
export function flow(send: Send, { window, seconds = Infinity, count = Infinity }: FlowOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    const end = performance.now() + seconds * 1_000
    let underWay = 0
    let sent = 0
    let over = false
    const finish = (how: () => void) => {
      if (over) return
      over = true
      stalled.end()
      how()
    }
    const settled = () => {
      underWay--
      fill()
    }
    const failed = (error: unknown) => finish(() => reject(error))
    const stalled = watching(
      () => sent - underWay,
      (done) => failed(new Error(`${done} of ${sent} transactions were acknowledged, then no progress`)),
    )
    const fill = () => {
      while (!over && underWay < window && sent < count && performance.now() < end) {
        underWay++
        sent++
        send(settled, failed)
      }
      if (underWay === 0) finish(() => resolve(sent))
    }
    fill()
  })
}

/** Calls back once when the count has not grown for a while. */
function watching(counted: () => number, stalled: (count: number) => void): { end(): void } {
  let before = counted()
  const timer = setInterval(() => {
    const now = counted()
    if (now > before) {
      before = now
      return
    }
    clearInterval(timer)
    stalled(now)
  }, PATIENCE)
  return { end: () => clearInterval(timer) }
}

/** Counts arrivals, and waits for a number of them. */
export class Counter {
  count = 0
  #desired = Number.POSITIVE_INFINITY
  #wake = () => {}

  add(more: number): void {
    this.count += more
    if (this.count >= this.#desired) this.#wake()
  }

  /** Rejects after a time without arrivals. Only one caller may wait at a time. */
  reach(count: number): Promise<void> {
    if (this.count >= count) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const stalled = watching(
        () => this.count,
        (arrived) => reject(new Error(`${arrived} of ${count} transactions arrived, then no progress`)),
      )
      this.#desired = count
      this.#wake = () => {
        this.#desired = Number.POSITIVE_INFINITY
        stalled.end()
        resolve()
      }
    })
  }
}

/** Rate and processor time for each transaction of work that resolves with a number of transactions. */
export async function rateOf(work: () => Promise<number>): Promise<Figures> {
  const before = process.cpuUsage()
  const started = performance.now()
  const count = await work()
  const seconds = (performance.now() - started) / 1_000
  const { user, system } = process.cpuUsage(before)
  return { rate: count / seconds, cpu: (user + system) / count }
}
