// What tests of waiting for positions share.

import type { ClusterNode, TestClock } from '../../lib/testing.ts'

export const has = ({ host }: ClusterNode, id: unknown): boolean =>
  host.records('dev', 'dog').some((each) => each.id === id)

/** `resolved`, or the code of the error. */
export const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'resolved',
    (error) => error.code as string,
  )

/** ms of the system's time. */
const SOON_MS = 60_000
const PAUSE_MS = 5

/** Settles as `work` does, while the time passes. Rejects after a minute: a loop without an end would keep the process of a failed test alive. */
export async function soon<T>(clock: TestClock, work: Promise<T>): Promise<T> {
  const end = performance.now() + SOON_MS
  let isDone = false
  const done = work.finally(() => {
    isDone = true
  })
  done.catch(() => {})
  while (!isDone) {
    if (performance.now() > end) throw new Error(`not within ${SOON_MS} ms`)
    await clock.advance(100)
    // Work that waits for a disk or for another turn of the processor must not run out of the clock's time.
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
  }
  return done
}
