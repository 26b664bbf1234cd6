// Stamps never repeat, whatever is heard.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Clock, makeStamp } from '../../lib/replication/clock.ts'

describe('the clock', () => {
  it('does not go back within a millisecond for a stamp that is older than its own', () => {
    const clock = new Clock('node1', 5_000, () => 1_000)
    const stamps = Array.from({ length: 4 }, () => clock.stamp())
    clock.merge(makeStamp(1_000, 1, 'node2'))
    clock.merge(makeStamp(999, 9, 'node2'))
    assert.equal(clock.stamp(), makeStamp(1_000, 4, 'node1'))
    assert.equal(new Set(stamps).size, 4)
  })
})
