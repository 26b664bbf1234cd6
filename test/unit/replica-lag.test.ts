// How long a node has been behind, as its source shows it, also for transactions that were stored before the source's process started.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { GrowthMarks } from '../../lib/replication/positions/growth-marks.ts'
import { eventually } from '../../lib/testing.ts'
import { dog, lagPair } from '../support/lag-pair.ts'

it('the lag of a node counts from when its next transaction was stored, also after a restart of the source', {
  timeout: 60_000,
}, async (test) => {
  const { clock, one, two } = await lagPair(test)
  await two.cluster.pause({ node: 'node1', ...dog })
  await one.host.insert('dev', 'dog', { id: 'first' })
  await clock.advance(60_000)
  await one.host.insert('dev', 'dog', { id: 'second' })
  await clock.advance(30_000)
  const lagIs = (lag: number, from: number, to: number) =>
    eventually(
      () => `a lag of ${lag}, since ${from} to ${to} s: ${JSON.stringify(one.cluster.replicas(dog))}`,
      async () => {
        await clock.advance(500)
        const replica = one.cluster.replicas(dog)[0]
        return replica?.lag === lag && replica.lagSeconds! >= from && replica.lagSeconds! <= to
      },
    )
  await lagIs(2, 90, 100)
  await one.stop()
  await one.start()
  const restarted = clock.elapsed()
  await lagIs(2, 90, 130)
  assert.ok(clock.elapsed() - restarted < 30_000)
  await two.cluster.resume({ node: 'node1', ...dog })
  await lagIs(0, 0, 0)
  assert.equal(two.host.records('dev', 'dog').length, 3)
})

describe('marks of the growth of a stream', () => {
  const at = (index: number) => ({ ...dog, epoch: 'e', index, sequence: index })

  it('know of transactions from before the first mark only what a message tells', () => {
    const marks = new GrowthMarks()
    assert.ok(marks.isOlder(dog, 'e', 0))
    marks.note([at(10)], 1_000)
    assert.deepEqual([marks.isOlder(dog, 'e', 4), marks.storedBy(dog, 4)], [true, 1_000])
    marks.noteMessage(dog, 'e', { index: 5, sequence: 5, at: -50_000 }, 1_000)
    assert.deepEqual([marks.isOlder(dog, 'e', 4), marks.storedBy(dog, 4)], [false, -50_000])
    assert.deepEqual([marks.isOlder(dog, 'e', 5), marks.storedBy(dog, 5)], [true, 1_000])
    marks.note([at(12)], 2_000)
    assert.deepEqual([marks.isOlder(dog, 'e', 10), marks.storedBy(dog, 10)], [false, 2_000])
    assert.deepEqual([marks.lastStoredAt(dog, 'e', 0), marks.lastStoredAt(dog, 'e', 1_500)], [5, 10])
    assert.ok(marks.isOlder(dog, 'another epoch', 11))
  })

  it('that a message made before the first one do not hide that the first one is the first', () => {
    const marks = new GrowthMarks()
    marks.noteMessage(dog, 'e', { index: 5, sequence: 5, at: 0 }, 100)
    marks.note([at(10)], 1_000)
    assert.deepEqual([marks.isOlder(dog, 'e', 4), marks.isOlder(dog, 'e', 5)], [false, true])
  })
})
