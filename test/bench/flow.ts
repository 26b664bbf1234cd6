// A flow of transactions: as many under way as a window allows, for a while, and what that came to.

import type { Figures } from './compare.ts'

/** ms that what is under way when a flow ends has to arrive. */
const SETTLE_TIMEOUT = 60_000

export type FlowOptions = {
  /** Most that are sent and not settled. */
  readonly window: number
  /** No more is sent after so many seconds, or so many transactions. */
  readonly seconds?: number
  readonly count?: number
}

/** Both are the same functions for all of a flow. */
export type Send = (settled: () => void, failed: (error: unknown) => void) => void

/** Resolves with how many were sent, once all are settled. */
export function flow(send: Send, { window, seconds = Infinity, count = Infinity }: FlowOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    const end = performance.now() + seconds * 1_000
    let underWay = 0
    let sent = 0
    let over = false
    const settled = () => {
      underWay--
      fill()
    }
    const failed = (error: unknown) => {
      over = true
      clearTimeout(timer)
      reject(error)
    }
    const timer = setTimeout(
      () => failed(new Error(`${underWay} of ${sent} transactions were never acknowledged`)),
      (Number.isFinite(seconds) ? seconds * 1_000 : 0) + SETTLE_TIMEOUT,
    )
    const fill = () => {
      while (!over && underWay < window && sent < count && performance.now() < end) {
        underWay++
        sent++
        send(settled, failed)
      }
      if (over || underWay > 0) return
      over = true
      clearTimeout(timer)
      resolve(sent)
    }
    fill()
  })
}

/** What arrived so far, and waiting for it. */
export class Counter {
  count = 0
  #wanted = Number.POSITIVE_INFINITY
  #wake = () => {}

  add(more: number): void {
    this.count += more
    if (this.count >= this.#wanted) this.#wake()
  }

  /** Rejects when nothing more arrives for a while. One may wait at a time. */
  reach(count: number): Promise<void> {
    if (this.count >= count) return Promise.resolve()
    return new Promise((resolve, reject) => {
      let before = this.count
      const timer = setInterval(() => {
        if (this.count > before) {
          before = this.count
          return
        }
        clearInterval(timer)
        reject(new Error(`${this.count} of ${count} transactions arrived, and no more within ${SETTLE_TIMEOUT} ms`))
      }, SETTLE_TIMEOUT)
      this.#wanted = count
      this.#wake = () => {
        this.#wanted = Number.POSITIVE_INFINITY
        clearInterval(timer)
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
