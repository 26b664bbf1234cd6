// Passes over the outbox: each starts behind the cursor, waits for capacity, and contains every transaction once.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Transaction } from '../../lib/host/host.ts'
import type { Outbox } from '../../lib/host/outbox.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { OutboxReader } from '../../lib/replication/publish/outbox-reader.ts'
import { eventually } from '../support/cluster.ts'

const transaction = (id: string): Transaction => ({ id, timestamp: `at ${id}`, writes: [] })

function start(test: TestContext, capacity = Number.POSITIVE_INFINITY) {
  const outbox: Transaction[] = []
  const cursors: (string | undefined)[] = []
  const known = new Set<string>()
  const enqueued: string[] = []
  const passes: number[] = []
  const limit = { capacity }
  const readOutbox: Outbox['readOutbox'] = async function* (after) {
    cursors.push(after?.id)
    yield* [...outbox]
  }
  const reader = new OutboxReader({
    outbox: { readOutbox } as Outbox,
    logger: silentLogger,
    isFull: () => known.size >= limit.capacity,
    isKnown: (id) => known.has(id),
    enqueue: ({ id }) => {
      known.add(id)
      enqueued.push(id)
    },
    onPassComplete: (pass) => void passes.push(pass),
    onFull: () => {},
  })
  test.after(() => reader.close())
  return { outbox, cursors, known, enqueued, passes, limit, reader }
}

describe('the reader of the outbox', { concurrency: true, timeout: 30_000 }, () => {
  it('enqueues new transactions once, although each pass shows all of them', async (test) => {
    const { outbox, cursors, enqueued, passes, reader } = start(test)
    outbox.push(transaction('a'), transaction('b'))
    reader.wake()
    await eventually('the first pass', () => passes.length === 1)
    outbox.push(transaction('c'))
    reader.wake()
    await eventually('the second pass', () => passes.length === 2)
    assert.deepEqual(
      [enqueued, cursors],
      [
        ['a', 'b', 'c'],
        [undefined, 'b'],
      ],
    )
    assert.deepEqual([passes, reader.passNumber], [[1, 2], 2])
  })

  it('joins calls of wake in one turn to one pass', async (test) => {
    const { passes, reader } = start(test)
    for (let times = 0; times < 5; times++) reader.wake()
    await eventually('a pass', () => passes.length > 0)
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(passes, [1])
  })

  it('waits while it is full, and ends the pass when it is closed', async (test) => {
    const { outbox, enqueued, known, passes, reader } = start(test, 2)
    outbox.push(...['a', 'b', 'c', 'd'].map(transaction))
    reader.wake()
    await eventually('it is full', () => enqueued.length === 2)
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(enqueued, ['a', 'b'])
    known.delete('a')
    reader.onCapacity()
    await eventually('the next transaction', () => enqueued.length === 3)
    await reader.close()
    assert.deepEqual([enqueued, passes], [['a', 'b', 'c'], []])
  })

  it('ignores transactions that were confirmed during the pass', async (test) => {
    const { outbox, enqueued, known, limit, passes, reader } = start(test, 1)
    outbox.push(transaction('a'), transaction('b'), transaction('a'))
    reader.wake()
    await eventually('it is full', () => enqueued.length === 1)
    known.delete('a')
    reader.onConfirmed('a')
    limit.capacity = 10
    reader.onCapacity()
    await eventually('the pass is complete', () => passes.length === 1)
    assert.deepEqual(enqueued, ['a', 'b'])
  })
})
