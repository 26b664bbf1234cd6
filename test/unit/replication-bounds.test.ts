// Persistent data is bounded: ranges in a checkpoint, epochs and purges in the description of a stream.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  AppliedRangesBuilder,
  rangesOf,
  wasApplied,
  withoutRange,
  withRange,
} from '../../lib/replication/applied-ranges.ts'
import { formatStreamMetadata, parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'

describe('the applied ranges of one epoch', () => {
  it('are limited to the newest', () => {
    const builder = new AppliedRangesBuilder(undefined)
    for (let place = 1; place <= 600; place++) builder.add('node1', 'e1', 2 * place)
    builder.add('node1', 'e2', 1)
    const { e1 = [], e2 } = builder.result()!.node1!
    assert.deepEqual([e1.length, e1.at(-1), e2], [512, [1200, 1200], [[1, 1]]])
  })
})

describe('names from remote nodes', () => {
  const odd = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', '7']

  it('may be names of properties of objects', () => {
    const builder = new AppliedRangesBuilder(undefined)
    for (const origin of odd)
      for (const epoch of odd) {
        assert.equal(builder.has(origin, epoch, 1), false, `${origin} ${epoch}`)
        builder.add(origin, epoch, 1, 3)
        assert.equal(builder.has(origin, epoch, 3), true)
      }
    const applied = builder.result()
    for (const origin of odd)
      for (const epoch of odd)
        assert.deepEqual([wasApplied(applied, origin, epoch, 2), wasApplied(applied, origin, epoch, 4)], [true, false])
    assert.equal(wasApplied({}, '__proto__', 'constructor', 1), false)
    for (const epoch of odd) {
      const quarantined = withRange(undefined, epoch, 5, 5)
      assert.deepEqual(rangesOf(quarantined, epoch), [[5, 5]])
      assert.equal(withoutRange(quarantined, epoch, 5, 5), undefined)
      assert.deepEqual(withoutRange({ e1: [[1, 1]] }, epoch, 5, 5), { e1: [[1, 1]] })
    }
    assert.equal(({} as { e1?: unknown }).e1, undefined)
  })

  it('do not fill the database: only the newest origins, and epochs of each, are kept', () => {
    const builder = new AppliedRangesBuilder(undefined)
    for (let number = 1; number <= 2_000; number++) builder.add(`node${number}`, 'e1', 1)
    for (let number = 1; number <= 20; number++) builder.add('node1999', `f${number}`, 1)
    const applied = builder.result()!
    assert.deepEqual([Object.keys(applied).length, Object.keys(applied.node1999!).length], [256, 8])
    assert.deepEqual(
      [wasApplied(applied, 'node2000', 'e1', 1), wasApplied(applied, 'node1999', 'f20', 1)],
      [true, true],
    )
  })
})

describe('the description of a stream', () => {
  it('stays within the 4 KB of a server, and keeps the newest entries', () => {
    const far = Number.MAX_SAFE_INTEGER
    const epochs = Array.from({ length: 100 }, (_, index) => ({
      epoch: `${1e15 + index}`,
      from: far - 100 + index,
      last: far,
      lastIndex: far,
    }))
    const purged = Array.from({ length: 100 }, (_, index) => ({
      from: far - 300 + 2 * index,
      to: far - 300 + 2 * index,
      firstIndex: far - 300 + 2 * index,
      lastIndex: far,
    }))
    const names = { database: 'd'.repeat(250), table: 't'.repeat(250) }
    const text = formatStreamMetadata(names, { epochs, purged })
    assert.ok(Buffer.byteLength(text) <= 4_096, `${Buffer.byteLength(text)} bytes`)
    const metadata = parseStreamMetadata(text)
    assert.deepEqual(metadata.epochs, epochs.slice(-8))
    assert.deepEqual(metadata.purged, purged.slice(-16))
  })
})
