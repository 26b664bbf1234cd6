// A clock of tests holds a timer of the system only for what still waits.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestClock } from '../../lib/testing.ts'

test('a timer that was cancelled does not keep the process alive', () => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const before = timers()
  const clock = new TestClock()
  const cancel = clock.after(60_000, () => {})
  assert.equal(timers(), before + 1)
  cancel()
  assert.equal(timers(), before)
})
