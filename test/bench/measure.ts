// Rounds of one operation after a warm-up: medians of time and processor time.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { PartOptions } from './report.ts'

/** One operation. `before` and `after` of each round are not measured. */
export type Work<T = unknown> = {
  before?(): Promise<unknown>
  run(): Promise<T>
  after?(result: T): Promise<unknown>
}

/** Maximum number of warm-up rounds. */
const WARM_UP_ROUNDS = 50
/** ms after which no further round of an operation begins, once there are some. */
const ENOUGH = 3_000
const LEAST_ROUNDS = 2

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

async function round<T>({ before, run, after }: Work<T>): Promise<{ time: number; cpu: number }> {
  await before?.()
  const cpuBefore = process.cpuUsage()
  const started = performance.now()
  const result = await run()
  const time = performance.now() - started
  const { user, system } = process.cpuUsage(cpuBefore)
  await after?.(result)
  return { time, cpu: (user + system) / 1000 }
}

/**
 * Elapsed time, and processor time of all threads including garbage collection. The last two figures are for each entry.
 * `perRun`: operations in one run; the figures are for one operation.
 */
export async function measure<T>(
  work: Work<T>,
  entries: number,
  { rounds, warmUp }: PartOptions,
  perRun = 1,
): Promise<Record<string, number>> {
  const started = performance.now()
  for (let count = 0; count < WARM_UP_ROUNDS && performance.now() < started + warmUp; count++) await round(work)
  const found = [await round(work)]
  const isEnough = () => found.length >= LEAST_ROUNDS && performance.now() >= started + ENOUGH
  while (found.length < rounds && !isEnough()) found.push(await round(work))
  const times = found.map(({ time }) => time / perRun)
  const cpu = median(found.map((each) => each.cpu / perRun))
  return {
    ms: median(times),
    'least ms': Math.min(...times),
    'max ms': Math.max(...times),
    'cpu ms': cpu,
    'us/entry': (median(times) * 1000) / entries,
    'cpu us/entry': (cpu * 1000) / entries,
  }
}

let collect: (() => void) | undefined

/** Bytes in use after a garbage collection. */
export async function bytesInUse(): Promise<number> {
  if (!collect) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  for (let count = 0; count < 3; count++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed
}

/** Memory that is in use between `make` and `drop`. */
export async function measureMemory<T>(
  make: () => Promise<T>,
  drop: (made: T) => Promise<unknown>,
  entries: number,
): Promise<Record<string, number>> {
  await drop(await make())
  const before = await bytesInUse()
  const made = await make()
  const size = (await bytesInUse()) - before
  await drop(made)
  return { MB: size / 2 ** 20, 'bytes/entry': size / entries }
}
