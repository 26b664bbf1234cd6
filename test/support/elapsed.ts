// Control of `performance.now` and `Date.now` in one test.

import type { TestContext } from 'node:test'

/** Stops `performance.now` for this test. The returned function advances it, in ms. */
export function standingTime(test: TestContext): (ms: number) => void {
  let now = Math.ceil(performance.now())
  test.mock.method(performance, 'now', () => now)
  return (ms) => {
    now += ms
  }
}

/** Sets the machine's clock ahead by this many ms for this test. `performance.now` is not affected. */
export function setClock(test: TestContext, by: number): void {
  const { now } = Date
  test.mock.method(Date, 'now', () => now() + by)
}
