// Lone transactions: each is sent when the one before has been applied and acknowledged.

import { setTimeout as delay } from 'node:timers/promises'

const TIMEOUT = 10_000

/** Calls back when the next transaction arrives at the remote node. */
export type Arrival = { arrived: () => void }

export type LoneOptions = {
  arrival: Arrival
  /** Resolves when the next transaction may be sent; that time is not measured. */
  send(): Promise<unknown>
  /** Called with the number of transactions so far. */
  isEnough(count: number): boolean
  /** ms between two transactions. Default 0. */
  pause?: number
}

/** Resolves with the time of each transaction in ms, the shortest first. */
export async function lone({ arrival, send, isEnough, pause = 0 }: LoneOptions): Promise<number[]> {
  const times: number[] = []
  while (!isEnough(times.length)) {
    let timer: NodeJS.Timeout | undefined
    const there = new Promise<number>((resolve, reject) => {
      arrival.arrived = () => resolve(performance.now())
      timer = setTimeout(() => reject(new Error(`nothing arrived within ${TIMEOUT} ms`)), TIMEOUT)
    })
    const started = performance.now()
    const [end] = await Promise.all([there, send()])
    clearTimeout(timer)
    times.push(end - started)
    if (pause > 0) await delay(pause)
  }
  return times.sort((a, b) => a - b)
}

/** Of sorted times. `share`: 0.5 is the median, 1 the longest. */
export const percentile = (times: readonly number[], share: number): number =>
  times[Math.min(times.length - 1, Math.floor(share * times.length))]!
