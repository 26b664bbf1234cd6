// The stall detector: restarts on suspicion become rarer while there is no progress.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { StallDetector } from '../../lib/replication/subscribe/stall-detector.ts'
import { TestClock } from '../../lib/testing.ts'

function start() {
  const clock = new TestClock({ stopped: true })
  return { clock, detector: new StallDetector(clock) }
}

const isAllowed = (detector: StallDetector, sequence: number, isBehind = true) =>
  detector.requestRestart(sequence, isBehind).allowed

describe('a stall detector', () => {
  it('detects a checkpoint that does not move between two positions of the peer', async () => {
    const { clock, detector } = start()
    const position = async (sequence: number, isBehind: boolean, isApplying: boolean) => {
      await clock.advance(1_000)
      return detector.onPeerPosition(sequence, isBehind, isApplying)
    }
    assert.equal(await position(3, true, false), false, 'the first position')
    assert.equal(await position(3, true, false), true)
    assert.equal(await position(4, true, false), false, 'progress')
    assert.equal(await position(4, true, true), false, 'the database applies a batch')
    assert.equal(await position(4, false, false), false, 'not behind')
    assert.equal(await position(4, true, false), false, 'the first position behind which it is')
  })

  it('takes positions that arrive at once, after a pause of the process, for one', async () => {
    const { clock, detector } = start()
    for (let heartbeats = 0; heartbeats < 10; heartbeats++) assert.equal(detector.onPeerPosition(3, true, false), false)
    await clock.advance(1_000)
    assert.equal(detector.onPeerPosition(3, true, false), true)
  })

  it('doubles the interval at the same checkpoint, and resets it after progress', async () => {
    const { clock, detector } = start()
    assert.ok(isAllowed(detector, 3))
    for (const interval of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      await clock.advance(interval - 1)
      assert.ok(!isAllowed(detector, 3), `${interval - 1} ms`)
      await clock.advance(1)
      assert.ok(isAllowed(detector, 3), `${interval} ms`)
    }
    assert.ok(isAllowed(detector, 4), 'at once after progress')
    await clock.advance(1_000)
    assert.ok(isAllowed(detector, 4))
  })

  it('keeps the first interval while the subscription is not behind', async () => {
    const { clock, detector } = start()
    assert.ok(isAllowed(detector, 3, false))
    for (let times = 0; times < 3; times++) {
      await clock.advance(1_000)
      assert.ok(isAllowed(detector, 3, false))
    }
    await clock.advance(1_000)
    assert.ok(isAllowed(detector, 3))
    await clock.advance(1_999)
    assert.ok(!isAllowed(detector, 3), 'behind: the interval doubles')
  })

  it('marks the third restart at a checkpoint, and later ones, as repeated', async () => {
    const { clock, detector } = start()
    const repeated: boolean[] = []
    for (let times = 0; times < 4; times++) {
      repeated.push(detector.requestRestart(3, true).isRepeated)
      await clock.advance(30_000)
    }
    repeated.push(detector.requestRestart(4, true).isRepeated)
    assert.deepEqual(repeated, [false, false, true, true, false])
  })
})
