// Which transactions are new when an origin was restored from an older copy and uses running numbers a second time.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { RemoteTable, RemoteTransaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { AppliedRangesBuilder, wasApplied } from '../../lib/replication/applied-ranges.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { MemoryHost } from '../support/memory-host.ts'
import fc from '../support/properties.ts'

const at = (time: number) => makeTimestamp(time, 0, 'origin')

describe('applied ranges', () => {
  it('have a transaction with the number of another one only if it is not newer', () => {
    const builder = new AppliedRangesBuilder(undefined)
    for (const number of [1, 2, 3]) builder.add('origin', 'a', number, number, at(number))
    assert.ok(builder.has('origin', 'a', 2, at(2)))
    assert.ok(!builder.has('origin', 'a', 2, at(4)))
    const applied = builder.result()
    assert.deepEqual(applied, { origin: { a: [[1, 3, at(3)]] } })
    assert.ok(wasApplied(applied, 'origin', 'a', 3, at(3)) && wasApplied(applied, 'origin', 'a', 3))
    assert.ok(!wasApplied(applied, 'origin', 'a', 3, at(4)))
  })

  it('lose the numbers that their origin uses again', () => {
    const builder = new AppliedRangesBuilder({
      origin: {
        a: [
          [1, 6, at(6)],
          [8, 9, at(9)],
        ],
      },
    })
    builder.add('origin', 'a', 3, 3, at(10))
    assert.deepEqual(builder.result(), { origin: { a: [[1, 3, at(10)]] } })
    // Committed in another order than that of their timestamps.
    assert.ok(!builder.has('origin', 'a', 4, at(9)))
  })

  it('of an earlier version, without timestamps, count as they did', () => {
    const builder = new AppliedRangesBuilder({
      origin: {
        a: [
          [1, 3],
          [7, 9],
        ],
      },
    })
    assert.ok(builder.has('origin', 'a', 3, at(1_000)))
    builder.add('origin', 'a', 4, 4, at(4))
    assert.deepEqual(builder.result(), {
      origin: {
        a: [
          [1, 4, at(4)],
          [7, 9],
        ],
      },
    })
  })
})

/** A transaction of the origin. `life`: 1 before the restore, 2 after it. */
type Committed = { life: number; number: number }

const received = ({ life, number }: Committed, node: string, sequence: number): RemoteTransaction => ({
  id: `${life}-${number}`,
  timestamp: at(life * 1_000 + number),
  writes: [],
  origin: { node: 'origin', epoch: 'a', index: number, relayedBy: [node] },
  sequence,
  index: sequence,
})

const numbers = (life: number, from: number, to: number): Committed[] =>
  Array.from({ length: Math.max(0, to - from + 1) }, (_, offset) => ({ life, number: from + offset }))

/**
 * The stream of a relaying node that had read `read` transactions before its origin was restored to the first `kept` ones. It then reads the
 * stream of the origin from the beginning if it was further.
 */
const relayedStream = (read: number, kept: number, end: number): Committed[] => [
  ...numbers(1, 1, read),
  ...numbers(1, read > kept ? 1 : read + 1, kept),
  ...numbers(2, kept + 1, end),
]

describe('a node with several relaying sources', () => {
  const nodes = ['relay1', 'relay2', 'relay3'] as const

  it('applies everything that a restored origin writes, in whatever order it arrives', async () => {
    const arbitrary = fc.record({
      kept: fc.nat(4),
      end: fc.integer({ min: 1, max: 10 }),
      read: fc.tuple(fc.nat(10), fc.nat(10), fc.nat(10)),
      order: fc.infiniteStream(fc.record({ source: fc.nat(2), count: fc.integer({ min: 1, max: 5 }) })),
    })
    await fc.assert(
      fc.asyncProperty(arbitrary, async ({ kept, end, read, order }) => {
        const host = new MemoryHost([['dev', 'dog']])
        const options = { host, node: 'local', relayEnabled: false, counters: replicationCounters() }
        const applier = new Applier({ ...options, relay() {}, validate() {} })
        const streams = read.map((each) => relayedStream(each, kept, kept + end))
        const next = [0, 0, 0]
        for (const { source, count } of order) {
          const node = nodes[source]!
          const batch = streams[source]!.slice(next[source]!, next[source]! + count)
          const transactions = batch.map((each, offset) => received(each, node, next[source]! + offset + 1))
          next[source]! += batch.length
          const sequence = next[source]!
          const from: RemoteTable = { node, database: 'dev', table: 'dog' }
          await applier.apply(from, transactions, { epoch: node, sequence, index: sequence })
          if (streams.every((stream, at) => next[at] === stream.length)) break
        }
        const applied = new Set(host.applied)
        for (const { life, number } of [...numbers(1, 1, kept), ...numbers(2, kept + 1, kept + end)])
          assert.ok(applied.has(`${life}-${number}`), `${life}-${number} of ${[...applied]}`)
        // Nobody had read what was lost: then each transaction is applied once.
        if (read.every((each) => each <= kept)) assert.equal(host.applied.length, applied.size)
      }),
    )
  })
})
