// Time that passes only when a test says so: what the code measures durations with.

import type { TestContext } from 'node:test'

/** From now on `performance.now` stands still until the returned function moves it on, in ms. For one test. */
export function standingTime(test: TestContext): (ms: number) => void {
  let now = Math.ceil(performance.now())
  test.mock.method(performance, 'now', () => now)
  return (ms) => {
    now += ms
  }
}

/** The machine's clock is set, by so many ms; what has passed since then does not change. For one test. */
export function setClock(test: TestContext, by: number): void {
  const { now } = Date
  test.mock.method(Date, 'now', () => now() + by)
}
