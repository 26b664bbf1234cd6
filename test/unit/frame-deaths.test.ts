// A writer that dies between a stored message and its confirmation: the next one cuts its frames differently, and loses and repeats nothing.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { FRAME_LIMITS, type FrameLimits } from '../../lib/replication/publish/frame-queue.ts'
import type { StreamWriterOptions } from '../../lib/replication/publish/stream-writer-options.ts'
import { eventually } from '../support/cluster.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'
import { dog, StoredPosition, Writer } from '../support/writer.ts'

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => `t${from + at}`)
const cut = (transactions: number): FrameLimits => ({ ...FRAME_LIMITS, transactions, inFlight: 4 })

/** A stream of messages with `size` transactions each; the host has confirmed `confirmed` transactions. */
async function start(
  test: TestContext,
  { size, count, confirmed }: { size: number; count: number; confirmed: number },
) {
  const leaf = await MemoryLeaf.open(test)
  const memory = new StoredPosition()
  const open = async (more: Partial<StreamWriterOptions> = {}) => {
    const writer = new Writer(leaf, memory, { frames: cut(size), ...more })
    await writer.stream.resync()
    return writer
  }
  const first = await open()
  first.push(...ids(1, count))
  await first.stored(`t${count}`)
  const { epoch } = first.stream.position
  memory.position = {
    epoch,
    sequence: confirmed === count ? Math.ceil(count / size) : Math.floor(confirmed / size),
    index: confirmed,
    ...(confirmed < count && confirmed % size > 0 && { partial: true as const }),
    id: confirmed === 0 ? '' : `t${confirmed}`,
  }
  memory.stored.length = 0
  leaf.appends.length = 0
  return { leaf, memory, open, epoch }
}

/** Asserts that the stream has the first `count` transactions, in one epoch, each once. */
async function assertOnce(leaf: MemoryLeaf, count: number): Promise<void> {
  assert.deepEqual(await leaf.ids(dog), ids(1, count))
  assert.equal((await leaf.metadata(dog)).epochs.length, 1)
}

async function newEpoch(leaf: MemoryLeaf) {
  return eventually('the new epoch', async () => {
    const { epochs } = await leaf.metadata(dog)
    return epochs.length === 2 && epochs
  })
}

describe('a writer that continues', { concurrency: true, timeout: 180_000 }, () => {
  it('at any position, whatever the sizes of frames were and are', async (test) => {
    for (const size of [1, 2, 3, 7])
      for (const confirmed of [0, 1, 2, 5, 6, 7])
        for (const next of [1, 2, 5]) {
          const { leaf, memory, open, epoch } = await start(test, { size, count: 7, confirmed })
          const writer = await open({ frames: cut(next) })
          writer.push(...ids(confirmed + 1, 9))
          await writer.stored('t9')
          await assertOnce(leaf, 9)
          assert.deepEqual(
            memory.stored.map((each) => each.split('@')[0]),
            ids(confirmed + 1, 9),
          )
          assert.deepEqual([memory.position!.epoch, memory.position!.index], [epoch, 9])
          assert.deepEqual(writer.stream.position, {
            epoch,
            sequence: (await leaf.state(dog)).lastSequence,
            index: 9,
          })
        }
  })

  it('knows the end of the stream before the outbox was read', async (test) => {
    const { open, epoch } = await start(test, { size: 3, count: 8, confirmed: 1 })
    assert.deepEqual((await open()).stream.position, { epoch, sequence: 3, index: 8 })
  })

  it('reports as stored what the outbox shows, even up to the inside of a message', async (test) => {
    const { leaf, memory, open, epoch } = await start(test, { size: 4, count: 8, confirmed: 1 })
    const writer = await open()
    writer.push('t2', 't3')
    await writer.stored('t3')
    assert.deepEqual(memory.position, { epoch, sequence: 0, index: 3, partial: true, id: 't3' })
    const again = await open()
    again.push(...ids(4, 9))
    await again.stored('t9')
    await assertOnce(leaf, 9)
  })

  it('without a stored position takes the index from the last message', async (test) => {
    const { leaf, memory, open, epoch } = await start(test, { size: 3, count: 8, confirmed: 8 })
    memory.position = undefined
    const writer = await open()
    assert.deepEqual(memory.position, { epoch, sequence: 3, index: 8, id: '' })
    writer.push('t9')
    await writer.stored('t9')
    assert.equal(leaf.appends[0]!.frameId, `${epoch}:9:1`)
  })

  it('property: any sizes, any confirmed position, any number of deaths', { timeout: 180_000 }, async (test) => {
    const seed = seedOf()
    const property = fc.asyncProperty(
      fc.array(fc.record({ size: fc.integer({ min: 1, max: 6 }), more: fc.nat(7), unconfirmed: fc.nat(9) }), {
        minLength: 1,
        maxLength: 6,
      }),
      async (lives) => {
        const leaf = await MemoryLeaf.open(test)
        const memory = new StoredPosition()
        /** The position after each number of transactions. */
        const positions = new Map<number, (typeof memory)['position']>()
        let confirmed = 0
        let count = 0
        Object.defineProperty(memory, 'position', {
          get: () => positions.get(confirmed),
          set: (position) => positions.set(position.index, position),
        })
        for (const { size, more, unconfirmed } of lives) {
          const writer = new Writer(leaf, memory, { frames: cut(size) })
          await writer.stream.resync()
          count += more
          writer.push(...ids(confirmed + 1, count))
          if (count > confirmed) await writer.stored(`t${count}`)
          confirmed = Math.max(confirmed, count - unconfirmed)
          memory.stored.length = 0
        }
        await assertOnce(leaf, count)
      },
    )
    await fc.assert(property, { seed, numRuns: 30 })
  })
})

describe('a new epoch begins', { concurrency: true, timeout: 180_000 }, () => {
  it('when the message is lost that had the confirmed transaction', async (test) => {
    const { leaf, memory, open, epoch } = await start(test, { size: 3, count: 6, confirmed: 6 })
    memory.position = { epoch, sequence: 2, index: 7, partial: true, id: 't7' }
    const writer = await open()
    writer.push('t8')
    await writer.stored('t8')
    const [old, current] = await newEpoch(leaf)
    assert.deepEqual(old, { epoch, from: 1, last: 2, lastIndex: 7 })
    assert.equal(current!.from, 3)
    assert.deepEqual(memory.position, { epoch: current!.epoch, sequence: 3, index: 1, id: 't8' })
  })

  it('when another transaction is at the confirmed index, inside of a message', async (test) => {
    const { leaf, memory, open, epoch } = await start(test, { size: 3, count: 6, confirmed: 4 })
    memory.position!.id = 'another'
    const writer = await open()
    writer.push('t5', 't6')
    await writer.stored('t6')
    const [old] = await newEpoch(leaf)
    assert.deepEqual(old, { epoch, from: 1, last: 1, lastIndex: 4 })
    assert.match(writer.divergences[0]!.reason, /has t4 at 2 where another was expected/)
    assert.deepEqual(await leaf.ids(dog), [...ids(1, 6), 't5', 't6'])
  })

  it('when a transaction inside of a message is not the next one of the outbox', async (test) => {
    const { leaf, memory, open, epoch } = await start(test, { size: 3, count: 6, confirmed: 2 })
    const writer = await open()
    writer.push('t3', 't4', 'x')
    await writer.stored('x')
    const [old] = await newEpoch(leaf)
    assert.deepEqual(old, { epoch, from: 1, last: 1, lastIndex: 4 })
    assert.deepEqual(memory.stored, ['t3@1', 't4@2', 'x@3'])
  })

  it('when the indexes of the stream are not those of the database', async (test) => {
    const { leaf, memory, open, epoch } = await start(test, { size: 2, count: 6, confirmed: 2 })
    memory.position = { epoch, sequence: 1, index: 3, id: 't3' }
    const writer = await open()
    writer.push('t3')
    await writer.stored('t3')
    assert.deepEqual((await newEpoch(leaf))[0], { epoch, from: 1, last: 1, lastIndex: 3 })
    assert.match(writer.divergences[0]!.reason, /has the transactions 3 to 4 where 4 was expected/)
  })

  it('without a stored position and without the last message, with index 1', async (test) => {
    const { leaf, memory, open } = await start(test, { size: 3, count: 8, confirmed: 8 })
    memory.position = undefined
    await leaf.mesh.purgeStream(dog, {})
    await open()
    assert.equal((await newEpoch(leaf))[1]!.from, 4)
    assert.equal(memory.position!.index, 0)
  })

  it('in a store that lost its messages and kept the description', async (test) => {
    const { leaf, memory, open, epoch } = await start(test, { size: 3, count: 3, confirmed: 3 })
    const { description } = await leaf.state(dog)
    leaf.network.wipeDisk(node)
    await leaf.mesh.ensureStream(dog, description.replace('@1', '@50'))
    memory.position = undefined
    await open()
    assert.notEqual(memory.position!.epoch, epoch)
  })
})

it('a stream of a later version is not written', async (test) => {
  const { leaf, open } = await start(test, { size: 1, count: 1, confirmed: 1 })
  await leaf.mesh.describeStream(dog, 'dev.dog v=2 epoch=e@1')
  await assert.rejects(open(), /has version '2', this node reads version 1/)
  assert.equal((await leaf.state(dog)).description, 'dev.dog v=2 epoch=e@1')
})
