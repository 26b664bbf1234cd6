// What is remembered for ever is bounded: ranges in a checkpoint, incarnations and purges in a stream's description.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Notes } from '../../lib/replication/seen.ts'
import { formatLabel, parseLabel } from '../../lib/replication/stream-label.ts'

describe('what was seen of one epoch', () => {
  it('is so many ranges, the newest', () => {
    const notes = new Notes(undefined)
    for (let place = 1; place <= 600; place++) notes.add('node1', 'e1', 2 * place)
    notes.add('node1', 'e2', 1)
    const { e1 = [], e2 } = notes.result()!.node1!
    assert.deepEqual([e1.length, e1.at(-1), e2], [512, [1200, 1200], [[1, 1]]])
  })
})

describe('the description of a stream', () => {
  it('stays within the 4 KB that a server takes, and tells the newest', () => {
    const far = Number.MAX_SAFE_INTEGER
    const incarnations = Array.from({ length: 100 }, (_, index) => ({
      epoch: `${1e15 + index}`,
      from: far - 100 + index,
      last: far,
    }))
    const purged = Array.from({ length: 100 }, (_, index): [number, number] => [
      far - 300 + 2 * index,
      far - 300 + 2 * index,
    ])
    const names = { database: 'd'.repeat(250), table: 't'.repeat(250) }
    const text = formatLabel(names, { incarnations, purged })
    assert.ok(Buffer.byteLength(text) <= 4_096, `${Buffer.byteLength(text)} bytes`)
    const label = parseLabel(text)
    assert.deepEqual(label.incarnations, incarnations.slice(-8))
    assert.deepEqual(label.purged, purged.slice(-16))
  })
})
