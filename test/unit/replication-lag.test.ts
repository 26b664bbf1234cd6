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
    lag.observeLast({ sequence: 5 }, { sequence: 3 })
    await clock.advance(2_000)
    assert.deepEqual([lag.lastSequence, lag.isBehind({ sequence: 3 }), lag.seconds({ sequence: 3 })], [5, true, 2])
    await clock.advance(1_000)
    lag.observeLast({ sequence: 9 }, { sequence: 3 })
    assert.equal(lag.seconds({ sequence: 3 }), 3, 'a higher sequence does not start it again')
  })

  it('counts from the time at which the source stored the oldest transaction, once that is read', () => {
    const { lag } = start()
    lag.observeLast({ sequence: 5 }, { sequence: 3 })
    lag.setOldest(START - 60_000)
    assert.equal(lag.seconds({ sequence: 3 }), 60)
    lag.setOldest(START + 60_000)
    assert.equal(lag.seconds({ sequence: 3 }), 0, 'the clock of the source is ahead')
  })

  it('ends when everything is applied', async () => {
    const { clock, lag } = start()
    lag.observeLast({ sequence: 5 }, { sequence: 3 })
    await clock.advance(2_000)
    lag.onApplied({ sequence: 4 })
    assert.deepEqual([lag.isBehind({ sequence: 4 }), lag.seconds({ sequence: 4 })], [true, 2])
    lag.onApplied({ sequence: 5 })
    assert.deepEqual([lag.isBehind({ sequence: 5 }), lag.seconds({ sequence: 5 })], [false, 0])
    lag.observeLast({ sequence: 6 }, { sequence: 5 })
    assert.equal(lag.seconds({ sequence: 5 }), 0, 'it starts at zero again')
  })

  it('never shows a lower last sequence, except after setLast', () => {
    const { lag } = start()
    lag.observeLast({ sequence: 5 }, { sequence: 3 })
    lag.observeLast({ sequence: 4 }, { sequence: 3 })
    lag.onApplied({ sequence: 2 })
    assert.equal(lag.lastSequence, 5)
    lag.setLast(2)
    assert.equal(lag.lastSequence, 2)
  })

  it('counts transactions when the last index is known, and messages otherwise', () => {
    const { lag } = start()
    lag.observeLast({ sequence: 9 }, { sequence: 3, index: 30 })
    assert.equal(lag.count({ sequence: 3, index: 30 }), 6)
    lag.observeLast({ sequence: 5, index: 50 }, { sequence: 3, index: 30 })
    lag.observeLast({ sequence: 9, index: 90 }, { sequence: 3, index: 30 })
    assert.deepEqual([lag.count({ sequence: 3, index: 30 }), lag.count({ sequence: 3 })], [60, 6])
    lag.observeLast({ sequence: 10 }, { sequence: 9, index: 90 })
    assert.equal(lag.count({ sequence: 9, index: 90 }), 1, 'another message has at least one transaction')
    assert.equal(lag.count({ sequence: 9, index: 85 }), 5, 'inside a message')
    lag.setLast(2)
    assert.equal(lag.count({ sequence: 1, index: 1 }), 1, 'another epoch')
  })
})
