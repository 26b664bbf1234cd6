// A flow of transactions: as many under way as a window allows, for a while, and what that came to.

import type { Figures } from './compare.ts'

/** ms in which something must have arrived. */
const TIMEOUT_MS = 30_000

export type FlowOptions = {
  /** Most that are sent and not settled. */
  readonly window: number
  /** No more is sent after so many seconds, or so many transactions. */
  readonly seconds?: number
  readonly count?: number
}

/** Both are the same functions for all of a flow. */
export type Send = (settled: () => void, failed: (error: unknown) => void) => void

/** Resolves with how many were sent, once all are settled. Rejects when one fails, or none is settled for a while. */
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
      (done) => failed(new Error(`${done} of ${sent} transactions were acknowledged, and then no more`)),
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

/** Calls back once when what is counted has not grown for a while. */
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
  }, TIMEOUT_MS)
  return { end: () => clearInterval(timer) }
}

/** What arrived so far, and waiting for it. */
export class Counter {
  count = 0
  #desired = Number.POSITIVE_INFINITY
  #wake = () => {}

  add(more: number): void {
    this.count += more
    if (this.count >= this.#desired) this.#wake()
  }

  /** Rejects when nothing more arrives for a while. One may wait at a time. */
  reach(count: number): Promise<void> {
    if (this.count >= count) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const stalled = watching(
        () => this.count,
        (arrived) => reject(new Error(`${arrived} of ${count} transactions arrived, and then no more`)),
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

/** Of work that resolves with a number of transactions: so many a second, and how much of the processor this process took for each. */
export async function rateOf(work: () => Promise<number>): Promise<Figures> {
  const before = process.cpuUsage()
  const started = performance.now()
  const count = await work()
  const seconds = (performance.now() - started) / 1_000
  const { user, system } = process.cpuUsage(before)
  return { rate: count / seconds, cpu: (user + system) / count }
}
