// The lag of a subscription: transactions from the last known sequence, seconds from the oldest that is not applied.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Lag } from '../../lib/replication/subscribe/lag.ts'
import { TestClock } from '../../lib/testing.ts'

const START = 1_700_000_000_000

function start() {
  const clock = new TestClock({ start: START, stopped: true })
  return { clock, lag: new Lag(clock) }
}

describe('the lag', () => {
  it('counts from the moment at which the stream is known to have more', async () => {
    const { clock, lag } = start()
    lag.observeLast(5, 3)
    await clock.advance(2_000)
    assert.deepEqual([lag.lastSequence, lag.isBehind(3), lag.seconds(3)], [5, true, 2])
    await clock.advance(1_000)
    lag.observeLast(9, 3)
    assert.equal(lag.seconds(3), 3, 'a higher sequence does not start it again')
  })

  it('counts from the time at which the source stored the oldest transaction, once that is read', () => {
    const { lag } = start()
    lag.observeLast(5, 3)
    lag.setOldest(START - 60_000)
    assert.equal(lag.seconds(3), 60)
    lag.setOldest(START + 60_000)
    assert.equal(lag.seconds(3), 0, 'the clock of the source is ahead')
  })

  it('ends when everything is applied', async () => {
    const { clock, lag } = start()
    lag.observeLast(5, 3)
    await clock.advance(2_000)
    lag.onApplied(4)
    assert.deepEqual([lag.isBehind(4), lag.seconds(4)], [true, 2])
    lag.onApplied(5)
    assert.deepEqual([lag.isBehind(5), lag.seconds(5)], [false, 0])
    lag.observeLast(6, 5)
    assert.equal(lag.seconds(5), 0, 'it starts at zero again')
  })

  it('never shows a lower last sequence, except after setLast', () => {
    const { lag } = start()
    lag.observeLast(5, 3)
    lag.observeLast(4, 3)
    lag.onApplied(2)
    assert.equal(lag.lastSequence, 5)
    lag.setLast(2)
    assert.equal(lag.lastSequence, 2)
  })
})
