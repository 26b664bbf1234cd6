// The pure parts of replication: timestamps and applied ranges.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { compareTimestamps, HybridClock, makeTimestamp, wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import { AppliedRangesBuilder, addRange, inRanges } from '../../lib/replication/applied-ranges.ts'
import fc from '../support/properties.ts'

const timestamp = makeTimestamp(1_700_000_000_000, 0, 'node1')

describe('the clock', () => {
  it('returns timestamps that increase and sort as text, whatever the wall clock does', () => {
    let now = 1_000
    const clock = new HybridClock('node1', 5_000, () => now)
    const timestamps = [clock.timestamp(), clock.timestamp()]
    now = 500
    timestamps.push(clock.timestamp())
    now = 2_000
    timestamps.push(clock.timestamp())
    assert.deepEqual([...timestamps].sort(compareTimestamps), timestamps)
    assert.equal(new Set(timestamps).size, 4)
    assert.equal(wallTimeOf(timestamps[3]!), 2_000)
  })

  it('continues behind merged timestamps, and does not accept timestamps too far in the future', () => {
    const clock = new HybridClock('node1', 5_000, () => 1_000)
    clock.merge(makeTimestamp(4_000, 7, 'node2'))
    assert.ok(clock.timestamp() > makeTimestamp(4_000, 7, 'node2'))
    const far = makeTimestamp(6_001, 0, 'node2')
    assert.equal(clock.accepts(far), false)
    clock.merge(far)
    assert.ok(clock.timestamp() < far)
    clock.resume(far)
    assert.ok(clock.timestamp() > far)
  })

  it('continues in the next millisecond when the counter is exhausted', () => {
    const clock = new HybridClock('node1', 5_000, () => 1_000)
    const last = makeTimestamp(1_000, 0xffffff, 'node1')
    clock.merge(last)
    assert.ok(clock.timestamp() > last)
  })

  it('recognises invalid timestamps', () => {
    for (const text of ['', 'x', '2022-09-02T20:06:35.993Z', `${timestamp}`.slice(0, 19)])
      assert.ok(Number.isNaN(wallTimeOf(text)), text)
  })
})

describe('applied ranges', () => {
  it('contain exactly the added sequences, sorted and joined', () => {
    const range = fc.tuple(fc.nat(60), fc.nat(6)).map(([from, length]) => [from + 1, from + 1 + length] as const)
    fc.assert(
      fc.property(fc.array(range, { maxLength: 20 }), (added) => {
        const ranges = added.reduce<[number, number][]>((all, [from, to]) => addRange(all, from, to), [])
        for (let sequence = 0; sequence <= 70; sequence++) {
          const expected = added.some(([from, to]) => sequence >= from && sequence <= to)
          assert.equal(inRanges(ranges, sequence), expected)
        }
        for (const [index, [from, to]] of ranges.entries()) {
          assert.ok(from <= to)
          if (index > 0) assert.ok(from > ranges[index - 1]![1] + 1, 'adjacent ranges are joined')
        }
      }),
    )
  })

  it('are kept by origin and epoch, and the original is not changed', () => {
    const before = { node1: { a: [[1, 3]] as [number, number][] } }
    const builder = new AppliedRangesBuilder(before)
    for (const sequence of [4, 5, 9]) builder.add('node1', 'a', sequence)
    builder.add('node1', 'b', 1)
    assert.ok(builder.has('node1', 'b', 1) && builder.has('node1', 'a', 5) && !builder.has('node1', 'a', 6))
    assert.deepEqual(builder.result(), {
      node1: {
        a: [
          [1, 5],
          [9, 9],
        ],
        b: [[1, 1]],
      },
    })
    assert.deepEqual(before, { node1: { a: [[1, 3]] } })
  })
})
