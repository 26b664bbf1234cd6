// How transactions are put together to messages: a lone one leaves at once, and what waits behind messages in flight leaves together.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { FRAME_LIMITS, type FrameLimits, FrameQueue } from '../../lib/replication/publish/frame-queue.ts'
import { MemoryLeaf } from '../support/memory-leaf.ts'
import { dog, StoredPosition, Writer } from '../support/writer.ts'

const limits: FrameLimits = { ...FRAME_LIMITS, inFlight: 4 }
const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => `t${from + at}`)
const turn = () => new Promise((resolve) => setImmediate(resolve))

/** A queue with parts of these sizes. */
function queueOf(sizes: number[], more: Partial<FrameLimits> = {}): FrameQueue {
  const queue = new FrameQueue({ ...limits, ...more })
  for (const [at, size] of sizes.entries()) queue.push({ id: `${at}`, data: new Uint8Array(size), stored() {} })
  return queue
}

/** The sizes of the parts of each frame that may leave now. */
function cutAll(queue: FrameQueue): number[][] {
  const frames: number[][] = []
  for (let parts = queue.cut(); parts; parts = queue.cut()) frames.push(parts.map(({ byteLength }) => byteLength))
  return frames
}

describe('the queue', () => {
  it('cuts a frame of one transaction, and one of all that wait', () => {
    assert.deepEqual(cutAll(queueOf([10])), [[10]])
    assert.deepEqual(cutAll(queueOf([10, 20, 30])), [[10, 20, 30]])
    assert.deepEqual(cutAll(queueOf([])), [])
  })

  it('cuts full frames while fewer than the window are in flight, and smaller ones while few are', () => {
    const queue = queueOf(Array(1_100).fill(1))
    assert.deepEqual(
      cutAll(queue).map(({ length }) => length),
      [256, 256, 256, 256],
    )
    const acknowledge = () => {
      for (let count = queue.acknowledge(); count > 0; count--) queue.shift()
    }
    acknowledge()
    assert.deepEqual(cutAll(queue), [], 'three are in flight, and the rest is not full')
    while (queue.framesInFlight >= limits.partial) acknowledge()
    assert.equal(cutAll(queue)[0]!.length, 1_100 - 1_024)
  })

  it('is bounded in bytes; a larger transaction is a frame by itself', () => {
    const half = limits.bytes / 2
    assert.deepEqual(cutAll(queueOf([half, half, 1])), [[half, half], [1]])
    assert.deepEqual(cutAll(queueOf([half + 1, half, 1])), [[half + 1], [half, 1]])
    assert.deepEqual(cutAll(queueOf([5, 3 * half, 5])), [[5], [3 * half]], 'the last one is not full')
    const full = [half, half]
    assert.deepEqual(
      cutAll(queueOf([...full, ...full, ...full, 1])),
      [full, full, full],
      'full ones do not wait for others',
    )
  })

  it('never has more in flight than the window', () => {
    assert.equal(cutAll(queueOf(Array(10).fill(limits.bytes), { inFlight: 1 })).length, 1)
    assert.equal(cutAll(queueOf(Array(10).fill(1), { inFlight: 1, partial: 2, transactions: 5 })).length, 1)
  })

  it('cuts everything again after an interruption', () => {
    const queue = queueOf([1, 2])
    assert.deepEqual(cutAll(queue), [[1, 2]])
    queue.push({ id: 'x', data: new Uint8Array(3), stored() {} })
    queue.reset()
    assert.deepEqual(cutAll(queue), [[1, 2, 3]])
  })
})

async function start(test: TestContext, frames: Partial<FrameLimits> = {}) {
  const leaf = await MemoryLeaf.open(test)
  const memory = new StoredPosition()
  const writer = new Writer(leaf, memory, { frames: { ...limits, ...frames } })
  await writer.stream.resync()
  leaf.held = true
  const sent = () => leaf.appends.map(({ id }) => id)
  return { leaf, memory, writer, sent }
}

describe('the writer', { concurrency: true, timeout: 30_000 }, () => {
  it('sends a lone transaction before the turn ends', async (test) => {
    const { writer, sent } = await start(test)
    writer.push('t1')
    await undefined
    assert.deepEqual(sent(), ['t1'])
  })

  it('sends together what is pushed at once, and what arrives while messages are in flight', async (test) => {
    const { leaf, writer, sent, memory } = await start(test, { partial: 1 })
    writer.push('t1', 't2')
    await turn()
    writer.push('t3')
    await turn()
    writer.push('t4')
    await turn()
    assert.deepEqual(sent(), ['t1 t2'])
    await leaf.appends[0]!.pass()
    assert.deepEqual(sent(), ['t1 t2', 't3 t4'], 'with the acknowledgement')
    const { epoch } = writer.stream.position
    assert.deepEqual(
      leaf.appends.map(({ frameId, expected }) => [frameId, expected]),
      [
        [`${epoch}:1:2`, { sequence: 0 }],
        [`${epoch}:3:2`, { sequence: 1 }],
      ],
    )
    await leaf.release()
    await writer.stored('t4')
    assert.deepEqual(memory.stored, ['t1@1', 't2@1', 't3@2', 't4@2'])
    assert.deepEqual(memory.position, { epoch, sequence: 2, index: 4, id: 't4' })
  })

  it('sends a full frame at once, behind those in flight', async (test) => {
    const { leaf, writer, sent } = await start(test, { partial: 1, transactions: 3 })
    writer.push('t1')
    await turn()
    writer.push('t2', 't3')
    await turn()
    assert.deepEqual(sent(), ['t1'])
    writer.push('t4')
    assert.deepEqual(sent(), ['t1', 't2 t3 t4'])
    const { epoch } = writer.stream.position
    assert.deepEqual(leaf.appends[1]!.expected, { sequence: 1, id: `${epoch}:1:1` })
  })

  it('gives each transaction its position: only the last of a message completes it', async (test) => {
    const { leaf, writer } = await start(test)
    const positions: object[] = []
    const { stream } = writer
    writer.push('t1', 't2', 't3')
    await turn()
    assert.deepEqual(stream.position.index, 0)
    Object.defineProperty(writer.memory, 'position', { set: (position) => positions.push(position) })
    await leaf.release()
    await writer.stored('t3')
    const { epoch } = stream.position
    assert.deepEqual(positions, [
      { epoch, sequence: 0, index: 1, partial: true, id: 't1' },
      { epoch, sequence: 0, index: 2, partial: true, id: 't2' },
      { epoch, sequence: 1, index: 3, id: 't3' },
    ])
    assert.deepEqual(stream.position, { epoch, sequence: 1, index: 3 })
  })

  it('takes a duplicate for an interruption: the message of that id may be an older one', async (test) => {
    const { leaf, writer, memory, sent } = await start(test)
    writer.push('t1', 't2')
    await turn()
    writer.push('t3')
    leaf.appends[0]!.answer(new MeshError('wrong_sequence', 'the server has a message of this id'))
    await leaf.sent(1)
    assert.deepEqual([memory.stored, writer.interruptions], [[], 1])
    await leaf.release()
    await writer.stored('t3')
    assert.deepEqual(sent().slice(1).join(' '), ids(1, 3).join(' '), 'cut again')
    assert.deepEqual(await leaf.ids(dog), ids(1, 3))
  })

  it('does not confirm what a message that was stored late does not have', async (test) => {
    const { leaf, writer, memory } = await start(test)
    writer.push('t1', 't2')
    const first = await leaf.sent(0)
    await writer.stream.resync()
    writer.push('t3')
    await leaf.sent(1)
    await first.store()
    await leaf.release()
    await writer.stored('t3')
    assert.deepEqual(await leaf.ids(dog), ids(1, 3))
    assert.deepEqual(memory.position!.index, 3)
  })
})
