// Control of the time that enmesh reads from the system, in one test.

import type { TestContext } from 'node:test'
import { systemTime } from '../../lib/util/timers.ts'

/** Stops `systemTimers.elapsed` for this test. The returned function advances it, in ms. */
export function standingTime(test: TestContext): (ms: number) => void {
  let now = Math.ceil(systemTime.elapsed())
  test.mock.method(systemTime, 'elapsed', () => now)
  return (ms) => {
    now += ms
  }
}

/** Sets the machine's clock ahead by this many ms for this test. `systemTimers.elapsed` is not affected. */
export function setClock(test: TestContext, by: number): void {
  const { now } = systemTime
  test.mock.method(systemTime, 'now', () => now() + by)
}

/** Timers of enmesh, and with `Date` its wall time, follow `test.mock.timers`. */
export function fakeSystemTimers(test: TestContext, ...kinds: ('setTimeout' | 'setInterval' | 'Date')[]): void {
  test.mock.timers.enable({ apis: kinds, ...(kinds.includes('Date') && { now: systemTime.now() }) })
  for (const kind of kinds)
    if (kind === 'Date') test.mock.method(systemTime, 'now', () => Date.now())
    else
      for (const name of [kind, kind.replace('set', 'clear') as 'clearTimeout' | 'clearInterval'])
        test.mock.method(systemTime, name, globalThis[name])
}
