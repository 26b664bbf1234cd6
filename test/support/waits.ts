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

/** Settles as `work` does, while the time passes. */
export async function soon<T>(clock: TestClock, work: Promise<T>): Promise<T> {
  let isDone = false
  const done = work.finally(() => {
    isDone = true
  })
  done.catch(() => {})
  while (!isDone) await clock.advance(100)
  return done
}
