// purge_stream keeps transactions, not messages, and the description says which transactions are gone.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { FRAME_LIMITS } from '../../lib/replication/publish/frame-queue.ts'
import { MemoryLeaf } from '../support/memory-leaf.ts'
import { dog, StoredPosition, Writer } from '../support/writer.ts'

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => `t${from + at}`)

/** A stream whose epochs have messages with these numbers of transactions. */
async function streamOf(test: TestContext, ...epochs: number[][]) {
  const leaf = await MemoryLeaf.open(test)
  const memory = new StoredPosition()
  let count = 0
  let writer: Writer | undefined
  for (const sizes of epochs) {
    if (writer) memory.position = { epoch: 'another', sequence: 0, index: 0, id: '' }
    const next: Writer = new Writer(leaf, memory, { frames: { ...FRAME_LIMITS, inFlight: 4 } })
    await next.stream.resync()
    for (const size of sizes) {
      next.push(...ids(count + 1, count + size))
      count += size
      await next.stored(`t${count}`)
    }
    writer = next
  }
  return { leaf, stream: writer!.stream, purged: async () => (await leaf.metadata(dog)).purged }
}

describe('keep', { concurrency: true, timeout: 30_000 }, () => {
  it('keeps the message that has the oldest transaction to keep', async (test) => {
    const sizes = [1, 5, 2, 4, 3]
    for (let keep = 1; keep <= 17; keep++) {
      const { leaf, stream, purged } = await streamOf(test, sizes)
      await stream.purge({ keep })
      const left = await leaf.ids(dog)
      assert.deepEqual(left, ids(16 - left.length, 15), `keep ${keep}`)
      const firstIndex = 16 - Math.min(keep, 15)
      const oldest = [13, 9, 7, 2, 1].find((first) => first <= firstIndex)!
      assert.equal(left[0], `t${oldest}`, `keep ${keep}`)
      const { firstSequence } = await leaf.state(dog)
      const gone = { from: 1, to: firstSequence - 1, firstIndex: 1, lastIndex: oldest - 1 }
      assert.deepEqual(await purged(), oldest === 1 ? [] : [gone])
    }
  })

  it('counts a whole later epoch, and the ranges of each epoch are entries of their own', async (test) => {
    const epochs = [
      [2, 3],
      [4, 1],
    ]
    for (const [keep, left, gone] of [
      [5, ids(6, 10), [{ from: 1, to: 2, firstIndex: 1, lastIndex: 5 }]],
      [6, ids(3, 10), [{ from: 1, to: 1, firstIndex: 1, lastIndex: 2 }]],
      [
        1,
        ['t10'],
        [
          { from: 1, to: 2, firstIndex: 1, lastIndex: 5 },
          { from: 3, to: 3, firstIndex: 1, lastIndex: 4 },
        ],
      ],
      [10, ids(1, 10), []],
    ] as const) {
      const { leaf, stream, purged } = await streamOf(test, ...epochs)
      await stream.purge({ keep })
      assert.deepEqual(await leaf.ids(dog), left, `keep ${keep}`)
      assert.deepEqual(await purged(), gone, `keep ${keep}`)
    }
  })

  it('keeps more where a message is missing', async (test) => {
    const { leaf, stream } = await streamOf(test, [1, 1, 1, 1, 1, 1, 1, 1])
    const { messageAt } = leaf.mesh
    leaf.overrides.messageAt = async (source, sequence, options) =>
      sequence === 6 ? undefined : messageAt(source, sequence, options)
    await stream.purge({ keep: 2 })
    const left = await leaf.ids(dog)
    assert.ok(left.includes('t7') && left.includes('t8') && left.includes('t6'), left.join())
  })

  it('counts messages when the newest one cannot be read', async (test) => {
    const { leaf, stream } = await streamOf(test, [3, 3, 3])
    leaf.overrides.messageAt = async () => undefined
    await stream.purge({ keep: 2 })
    assert.ok((await leaf.ids(dog)).length >= 6)
  })
})

describe('before, and without either', { concurrency: true, timeout: 30_000 }, () => {
  it('goes by messages, up to the end of the stream', async (test) => {
    for (const [options, gone] of [
      [{ before: 3 }, [{ from: 1, to: 2, firstIndex: 1, lastIndex: 5 }]],
      [{ before: 1 }, []],
      [{ before: 99 }, [{ from: 1, to: 3, firstIndex: 1, lastIndex: 9 }]],
      [{}, [{ from: 1, to: 3, firstIndex: 1, lastIndex: 9 }]],
      [{ keep: 0 }, [{ from: 1, to: 3, firstIndex: 1, lastIndex: 9 }]],
    ] as const) {
      const { leaf, stream, purged } = await streamOf(test, [2, 3, 4])
      await stream.purge(options)
      assert.deepEqual(await purged(), gone)
      const { firstSequence, lastSequence } = await leaf.state(dog)
      assert.deepEqual([firstSequence, lastSequence], [(gone[0]?.to ?? 0) + 1, 3])
    }
  })

  it('continues the entry of the purge before it', async (test) => {
    const { stream, purged } = await streamOf(test, [2, 3, 4])
    await stream.purge({ before: 2 })
    await stream.purge({ before: 3 })
    assert.deepEqual(await purged(), [{ from: 1, to: 2, firstIndex: 1, lastIndex: 5 }])
  })

  it('does nothing to a stream without messages', async (test) => {
    const { leaf, stream } = await streamOf(test, [])
    const { description } = await leaf.state(dog)
    for (const options of [{}, { keep: 3 }, { before: 7 }]) await stream.purge(options)
    assert.equal((await leaf.state(dog)).description, description)
  })
})
