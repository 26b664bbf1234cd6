// What the stream has beyond the confirmed position counts as stored only where the ids prove it; everything else begins a new epoch.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { MeshError } from '../../lib/mesh/mesh.ts'
import type { StreamWriterOptions } from '../../lib/replication/publish/stream-writer-options.ts'
import { eventually } from '../support/cluster.ts'
import { type MemoryLeaf, node } from '../support/memory-leaf.ts'
import { dog, type StoredPosition, startWriter, Writer } from '../support/writer.ts'

const ids = (count: number, prefix = 'm') => Array.from({ length: count }, (_, index) => `${prefix}${index + 1}`)

/** A stream with `count` messages `m1`, `m2`..., whose host has confirmed `confirmed` of them. */
async function start(test: TestContext, { count, confirmed }: { count: number; confirmed: number }) {
  const { leaf, memory } = await startWriter(test, ...ids(count))
  memory.confirm(confirmed)
  const outbox = { isRead: false, isFull: false }
  /** A writer of the next process. */
  const restart = async (options: Partial<StreamWriterOptions> = {}) => {
    const mayShowMore = (queued: number) => !outbox.isRead && !(outbox.isFull && queued > 0)
    const writer = new Writer(leaf, memory, { mayShowMore, ...options })
    await writer.stream.resync()
    return writer
  }
  return { leaf, memory, outbox, restart }
}

/** Removes the messages before `sequence`, as a limit does. */
const expire = (leaf: MemoryLeaf, before: number) => leaf.mesh.purgeStream(dog, { before })

/** Asserts that `id` is the first message of a new epoch behind `last`. */
async function assertNewEpoch(leaf: MemoryLeaf, memory: StoredPosition, last: number, id: string) {
  await eventually('the new epoch', async () => (await leaf.metadata(dog)).epochs.length === 2)
  await eventually(`${id} is stored`, () => memory.stored.includes(`${id}@${last + 1}`))
  assert.equal((await leaf.metadata(dog)).epochs[1]!.from, last + 1)
}

describe('messages without a confirmation', { concurrency: true, timeout: 30_000 }, () => {
  it('wait for the outbox to be read, and nothing is appended meanwhile', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 5, confirmed: 2 })
    const writer = await restart()
    writer.push('m3')
    await writer.stored('m3')
    writer.push('m4')
    await writer.stored('m4')
    assert.deepEqual([leaf.appends, writer.stream.ready], [[], true])
    writer.push('m5', 'm6')
    await writer.stored('m6')
    assert.deepEqual(memory.stored, ['m3@3', 'm4@4', 'm5@5', 'm6@6'])
    assert.deepEqual(writer.divergences, [])
  })

  it('begin a new epoch when the outbox was read and has fewer', async (test) => {
    const { leaf, memory, outbox, restart } = await start(test, { count: 5, confirmed: 2 })
    const writer = await restart()
    writer.push('m3')
    await writer.stored('m3')
    outbox.isRead = true
    writer.stream.onOutboxRead()
    await eventually('the new epoch', () => writer.divergences.length === 1)
    writer.push('new')
    await assertNewEpoch(leaf, memory, 5, 'new')
    const [{ from, to, epoch }] = writer.divergences as [(typeof writer.divergences)[0]]
    assert.deepEqual([from, to, epoch], [4, 5, memory.position!.epoch])
    assert.equal((await leaf.metadata(dog)).epochs[0]!.last, 3)
  })

  it('never match a commit that comes later', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 3, confirmed: 1 })
    const writer = await restart()
    // It is committed while the outbox is still being read.
    writer.push('new')
    await assertNewEpoch(leaf, memory, 3, 'new')
    assert.deepEqual(memory.stored, ['new@4'])
  })

  it('are read only up to the first one that does not match', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 500, confirmed: 0 })
    const { read } = leaf.mesh
    let delivered = 0
    leaf.overrides.read = async (source, sequence, options) => {
      const reader = await read(source, sequence, options)
      return {
        close: () => reader.close(),
        next: async () => {
          const entries = await reader.next()
          delivered += entries.length
          return entries
        },
      }
    }
    const writer = await restart()
    writer.push('m1', 'm2', 'other')
    await assertNewEpoch(leaf, memory, 500, 'other')
    assert.ok(delivered <= 20, `${delivered} messages were read`)
  })

  it('may take longer to read than a request, as long as they arrive', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 30, confirmed: 0 })
    const { read } = leaf.mesh
    leaf.overrides.read = async (source, sequence, options) => {
      const reader = await read(source, sequence, { ...options, maxMessages: 1 })
      return { close: () => reader.close(), next: () => delay(50).then(() => reader.next()) }
    }
    const writer = await restart({ requestTimeout: 1_000 })
    writer.push(...ids(31))
    await writer.stored('m31')
    assert.deepEqual([memory.stored.length, writer.interruptions], [31, 0])
    assert.deepEqual(
      leaf.appends.map(({ id }) => id),
      ['m31'],
    )
  })

  it('are read again after the reader was lost', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 4, confirmed: 0 })
    const { read } = leaf.mesh
    let readers = 0
    leaf.overrides.read = async (source, sequence, options) => {
      const reader = await read(source, sequence, { ...options, maxMessages: 2 })
      const next = () =>
        readers === 1 && memory.stored.length === 2 ? Promise.reject(new MeshError('reader_lost')) : reader.next()
      readers++
      return { close: () => reader.close(), next }
    }
    const writer = await restart()
    writer.push(...ids(5))
    await writer.stored('m5')
    assert.deepEqual(memory.stored, ['m1@1', 'm2@2', 'm3@3', 'm4@4', 'm5@5'])
    assert.equal(writer.divergences.length, 0)
  })
})

describe('a hole behind the confirmed position', { concurrency: true, timeout: 30_000 }, () => {
  it('is proved by the first message after it', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 6, confirmed: 1 })
    await expire(leaf, 5)
    const writer = await restart()
    writer.push('m2', 'm3', 'm4')
    await delay(20)
    assert.deepEqual(memory.stored, [], 'nothing proves it yet')
    writer.push('m5', 'm6', 'm7')
    await writer.stored('m7')
    // The message that had the transactions in the hole is not known.
    assert.deepEqual(memory.stored, ['m2@5', 'm3@5', 'm4@5', 'm5@5', 'm6@6', 'm7@7'])
    assert.deepEqual([writer.divergences, leaf.appends.map(({ id }) => id)], [[], ['m7']])
  })

  it('is not proved by an id at another place', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 6, confirmed: 1 })
    await expire(leaf, 5)
    const writer = await restart()
    writer.push('m2', 'm4', 'm5', 'm6')
    await assertNewEpoch(leaf, memory, 6, 'm2')
    assert.deepEqual(memory.stored, ['m2@7', 'm4@8', 'm5@9', 'm6@10'])
  })

  it('is not proved when no message is left', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 6, confirmed: 1 })
    await expire(leaf, 7)
    const writer = await restart()
    writer.push('m2', 'm3')
    await assertNewEpoch(leaf, memory, 6, 'm2')
    assert.match(writer.divergences[0]!.reason, /does not have the messages 2 to 6/)
  })

  it('is not proved when the outbox is shorter', async (test) => {
    const { leaf, memory, outbox, restart } = await start(test, { count: 6, confirmed: 1 })
    await expire(leaf, 5)
    const writer = await restart()
    writer.push('m2', 'm3')
    outbox.isRead = true
    writer.stream.onOutboxRead()
    await assertNewEpoch(leaf, memory, 6, 'm2')
  })

  it('is not proved when the outbox shows no more before the queue is stored', async (test) => {
    const { leaf, memory, outbox, restart } = await start(test, { count: 6, confirmed: 1 })
    await expire(leaf, 5)
    const writer = await restart()
    outbox.isFull = true
    writer.stream.onOutboxRead()
    await delay(20)
    assert.deepEqual(writer.divergences, [], 'other tables may fill the memory')
    writer.push('m2')
    await assertNewEpoch(leaf, memory, 6, 'm2')
  })

  it('inside of the stream is proved in the same way', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 6, confirmed: 0 })
    const { read } = leaf.mesh
    leaf.overrides.read = async (...args) => {
      const reader = await read(...args)
      const next = async () => {
        const entries = (await reader.next()).filter(({ sequence }) => ![3, 4].includes(sequence))
        return entries.length > 0 ? entries : reader.next()
      }
      return { close: () => reader.close(), next }
    }
    const writer = await restart()
    writer.push(...ids(7))
    await writer.stored('m7')
    assert.deepEqual([writer.divergences, memory.stored.length], [[], 7])
  })

  it('at the end of the stream begins a new epoch', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 6, confirmed: 4 })
    const { ensureStream, messageAt, read } = leaf.mesh
    leaf.overrides.ensureStream = async (...args) => ({ ...(await ensureStream(...args)), messages: 5 })
    leaf.overrides.messageAt = async (source, sequence, options) =>
      sequence < 6 ? messageAt(source, sequence, options) : undefined
    leaf.overrides.read = async (...args) => {
      const reader = await read(...args)
      const next = async () => {
        const entries = (await reader.next()).filter(({ sequence }) => sequence < 6)
        return entries.length > 0 ? entries : reader.next()
      }
      return { close: () => reader.close(), next }
    }
    const writer = await restart({ requestTimeout: 500 })
    writer.push('m5', 'm6')
    await assertNewEpoch(leaf, memory, 6, 'm6')
    assert.deepEqual(memory.stored, ['m5@5', 'm6@7'])
  })

  it('is no reason to give up messages behind it that arrive late', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 6, confirmed: 4 })
    const { ensureStream, read } = leaf.mesh
    leaf.overrides.ensureStream = async (...args) => ({ ...(await ensureStream(...args)), messages: 5 })
    let readers = 0
    leaf.overrides.read = async (...args) => {
      const reader = await read(...args)
      let lose = (_: Error) => {}
      const lost = new Promise<never>((_, reject) => {
        lose = reject
      })
      const close = () => {
        reader.close()
        lose(new MeshError('reader_lost'))
      }
      return readers++ === 0 ? { close, next: () => lost } : reader
    }
    const writer = await restart({ requestTimeout: 300 })
    writer.push('m5', 'm6')
    await writer.stored('m6')
    assert.deepEqual([writer.divergences, memory.stored, readers], [[], ['m5@5', 'm6@6'], 2])
  })

  it('is made by a purge during the comparison', async (test) => {
    const { leaf, memory, restart } = await start(test, { count: 6, confirmed: 1 })
    const writer = await restart({ requestTimeout: 10_000 })
    await writer.stream.purge({})
    writer.push('m2')
    await assertNewEpoch(leaf, memory, 6, 'm2')
    assert.equal((await leaf.state(dog)).messages, 1)
  })
})

it('the table of a stream is the local one', async (test) => {
  const { leaf, restart } = await start(test, { count: 2, confirmed: 1 })
  const sources: unknown[] = []
  const { read } = leaf.mesh
  leaf.overrides.read = async (source, ...rest) => {
    sources.push(source)
    return read(source, ...rest)
  }
  const writer = await restart()
  writer.push('m2')
  await writer.stored('m2')
  assert.deepEqual(sources, [{ node, ...dog }])
})
