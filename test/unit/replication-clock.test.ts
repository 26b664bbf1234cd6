// Timestamps never repeat, whatever timestamps are merged.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { HybridClock, LOWEST_TIMESTAMP, makeTimestamp } from '../../lib/host/hybrid-clock.ts'

describe('the clock', () => {
  it('issues nothing as low as the lowest timestamp', () => {
    assert.equal(LOWEST_TIMESTAMP, makeTimestamp(0, 0, ''))
    assert.ok(LOWEST_TIMESTAMP < makeTimestamp(0, 0, 'a'))
  })

  it('does not go back within a millisecond when it merges an older timestamp', () => {
    const clock = new HybridClock('node1', 5_000, () => 1_000)
    const timestamps = Array.from({ length: 4 }, () => clock.timestamp())
    clock.merge(makeTimestamp(1_000, 1, 'node2'))
    clock.merge(makeTimestamp(999, 9, 'node2'))
    assert.equal(clock.timestamp(), makeTimestamp(1_000, 4, 'node1'))
    assert.equal(new Set(timestamps).size, 4)
  })
})
