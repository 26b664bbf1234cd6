// The one writer of a stream: what it expects of each message, and what it makes of each way in which that fails.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { PublishedPosition } from '../../lib/host/host.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import {
  type StreamPosition,
  StreamWriter,
  type StreamWriterOptions,
} from '../../lib/replication/publish/stream-writer.ts'
import { eventually } from '../support/cluster.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'

const dog = { database: 'dev', table: 'dog' }

/** What the host of one table remembers. */
class Memory {
  position: StreamPosition | undefined
  readonly stored: string[] = []

  get published(): PublishedPosition | undefined {
    return this.position && { ...dog, ...this.position, id: '' }
  }
}

class Writer {
  readonly leaf: MemoryLeaf
  readonly memory: Memory
  readonly log: StreamWriter
  interruptions = 0

  constructor(leaf: MemoryLeaf, memory: Memory, options: Partial<StreamWriterOptions> = {}) {
    this.leaf = leaf
    this.memory = memory
    this.log = new StreamWriter({
      table: dog,
      node,
      mesh: leaf.mesh,
      window: 100,
      requestTimeout: 10_000,
      loadPosition: async () => memory.published,
      savePosition: async (position) => {
        leaf.calls.push('savePosition')
        memory.position = position
      },
      interrupted: () => {
        this.interruptions++
        void this.log.resync().catch(() => {})
      },
      ...options,
    })
  }

  push(...ids: string[]): void {
    for (const id of ids)
      this.log.push({
        id,
        data: Buffer.from(id),
        headers: (epoch) => ({ 'Nats-Msg-Id': id, epoch }),
        stored: (position) => {
          this.memory.stored.push(`${id}@${position.sequence}`)
          this.memory.position = position
        },
      })
  }

  /** Resolves when all of them are told to be stored. */
  async stored(...ids: string[]): Promise<void> {
    await eventually(
      () => `stored: ${this.memory.stored}`,
      () => ids.every((id) => this.memory.stored.some((each) => each.startsWith(`${id}@`))),
    )
  }
}

/** A writer in step with a stream that holds these. */
async function writing(
  test: TestContext,
  ...ids: string[]
): Promise<{ leaf: MemoryLeaf; memory: Memory; writer: Writer }> {
  const leaf = await MemoryLeaf.open(test)
  const memory = new Memory()
  const writer = new Writer(leaf, memory)
  await writer.log.resync()
  writer.push(...ids)
  await writer.stored(...ids)
  leaf.appends.length = 0
  leaf.calls.length = 0
  memory.stored.length = 0
  return { leaf, memory, writer }
}

describe('what is sent', { concurrency: true, timeout: 30_000 }, () => {
  it('expects the sequence ahead of it, and what is in flight ahead of it by its id', async (test) => {
    const { leaf, writer } = await writing(test, 'before')
    writer.push('a', 'b', 'c')
    await writer.stored('c')
    assert.deepEqual(
      leaf.appends.map(({ id, expected }) => [id, expected]),
      [
        ['a', { sequence: 1 }],
        ['b', { sequence: 2, id: 'a' }],
        ['c', { sequence: 3, id: 'b' }],
      ],
    )
  })

  it('does not follow what somebody else put where the one ahead of it was to be', async (test) => {
    const { leaf, memory, writer } = await writing(test)
    await leaf.foreign(dog, 'foreign')
    writer.push('a', 'b')
    await writer.stored('a', 'b')
    assert.deepEqual(await leaf.ids(dog), ['foreign', 'a', 'b'])
    assert.deepEqual(memory.stored, ['a@2', 'b@3'])
  })

  it('nor takes it for its own by the id: another table may have a part of the same transaction', async (test) => {
    const { leaf, memory, writer } = await writing(test)
    await leaf.foreign(dog, 'a')
    writer.push('a')
    await writer.stored('a')
    assert.deepEqual(await leaf.ids(dog), ['a', 'a'])
    assert.deepEqual(memory.stored, ['a@2'])
  })

  it('is no more than the window', async (test) => {
    const { leaf, memory } = await writing(test)
    const writer = new Writer(leaf, memory, { window: 2 })
    await writer.log.resync()
    leaf.held = true
    writer.push('a', 'b', 'c', 'd', 'e')
    await leaf.sent(1)
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(leaf.appends.length, 2)
    await leaf.appends[0]!.pass()
    await leaf.sent(2)
    assert.equal(leaf.appends.length, 3)
    await leaf.release()
    await writer.stored('e')
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c', 'd', 'e'])
  })
})

describe('when the stream refuses, or its answer is lost', { concurrency: true, timeout: 30_000 }, () => {
  it('everything in flight is sent again, from the one that was refused on', async (test) => {
    const { leaf, memory, writer } = await writing(test)
    leaf.held = true
    writer.push('a', 'b', 'c')
    await leaf.sent(2)
    await leaf.appends[0]!.pass()
    leaf.appends[1]!.answer(new MeshError('rejected'))
    const again = await leaf.sent(3)
    assert.deepEqual([again.id, again.expected], ['b', { sequence: 1 }])
    await leaf.release()
    await writer.stored('c')
    assert.deepEqual(memory.stored, ['a@1', 'b@2', 'c@3'])
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c'])
  })

  it('what the stream has by its number is not sent again', async (test) => {
    const { leaf, memory, writer } = await writing(test)
    leaf.held = true
    writer.push('a', 'b', 'c')
    await leaf.sent(2)
    await leaf.appends[0]!.store()
    await leaf.appends[1]!.store()
    leaf.appends[0]!.answer(new MeshError('timeout'))
    const again = await leaf.sent(3)
    assert.deepEqual([again.id, again.expected], ['c', { sequence: 2 }])
    assert.deepEqual(memory.stored, ['a@1', 'b@2'])
  })

  it('an answer to an older attempt says nothing', async (test) => {
    const { leaf, memory, writer } = await writing(test)
    leaf.held = true
    writer.push('a')
    const first = await leaf.sent(0)
    await writer.log.resync()
    await leaf.sent(1)
    first.answer(undefined, 1)
    assert.deepEqual(memory.stored, [], 'it was never stored')
    await writer.log.resync()
    await leaf.sent(2)
    leaf.appends[1]!.answer(new MeshError('disconnected'))
    assert.deepEqual([writer.interruptions, writer.log.ready], [0, true])
    await leaf.appends[2]!.pass()
    assert.deepEqual(memory.stored, ['a@1'])
  })

  it('an acknowledgement of another sequence is not believed', async (test) => {
    const { leaf, memory, writer } = await writing(test)
    leaf.held = true
    writer.push('a')
    const first = await leaf.sent(0)
    first.answer(undefined, 7)
    assert.deepEqual([memory.stored, writer.interruptions], [[], 1])
    await (await leaf.sent(1)).pass()
    assert.deepEqual(memory.stored, ['a@1'])
  })

  it('a look at what was stored does not wait for ever for a reader that gives nothing', async (test) => {
    const { leaf, memory, writer } = await writing(test)
    writer.push('a')
    await writer.stored('a')
    memory.position!.sequence = 0
    let lose = () => {}
    leaf.overrides.read = async () => ({
      next: () => new Promise((_, reject) => (lose = () => reject(new MeshError('reader_lost')))),
      close: () => lose(),
    })
    await assert.rejects(new Writer(leaf, memory, { requestTimeout: 100 }).log.resync(), { code: 'reader_lost' })
  })
})

describe('a writer that was started anew', { concurrency: true, timeout: 30_000 }, () => {
  it('goes on by number: what the stream stored unconfirmed is told, and not sent', async (test) => {
    const { leaf, memory } = await writing(test, 'confirmed', 'a', 'b')
    memory.position!.sequence = 1
    const { epoch } = memory.position!
    const writer = new Writer(leaf, memory)
    await writer.log.resync()
    assert.deepEqual(writer.log.position, { epoch, sequence: 3 })
    writer.push('a', 'b', 'c')
    await writer.stored('c')
    assert.deepEqual(memory.stored, ['a@2', 'b@3', 'c@4'])
    assert.deepEqual(
      leaf.appends.map(({ id, expected }) => [id, expected]),
      [['c', { sequence: 3 }]],
    )
    assert.equal(leaf.appends[0]!.epoch, epoch)
  })

  it('goes on in the same epoch when its host remembers nothing', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b')
    const { position } = memory
    memory.position = undefined
    const writer = new Writer(leaf, memory)
    await writer.log.resync()
    assert.deepEqual(writer.log.position, position)
    assert.deepEqual(memory.position, position)
  })

  /** Begins a new epoch behind `last`, and says where the old one ended. */
  async function beginsAnew(leaf: MemoryLeaf, memory: Memory, last: number, acknowledged: number): Promise<Writer> {
    const old = memory.position!.epoch
    const writer = new Writer(leaf, memory)
    await writer.log.resync()
    writer.push('new')
    await writer.stored('new')
    const { epoch, sequence } = memory.position!
    assert.notEqual(epoch, old)
    assert.equal(sequence, last + 1)
    assert.equal(leaf.appends.at(-1)!.epoch, epoch)
    const { epochs } = await leaf.label(dog)
    assert.deepEqual(epochs.at(-1), { epoch, from: last + 1 })
    assert.equal(epochs.find((each) => each.epoch === old)?.last, acknowledged)
    return writer
  }

  it('begins a new epoch when the stream has less than was acknowledged', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    memory.position!.sequence = 5
    await beginsAnew(leaf, memory, 3, 5)
  })

  it('begins a new epoch when the stream is gone, and tells of the old one', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    leaf.network.wipeDisk(node)
    await beginsAnew(leaf, memory, 0, 3)
  })

  it('begins a new epoch when the stream is in another one than the host knows', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    memory.position = { epoch: 'another', sequence: 3 }
    await beginsAnew(leaf, memory, 3, 3)
  })

  it('begins a new epoch when what the stream has unconfirmed is not what comes next', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    memory.position!.sequence = 1
    await beginsAnew(leaf, memory, 3, 1)
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c', 'new'])
  })

  it('rejects a stream whose state is inconsistent', async (test) => {
    const { leaf, memory } = await writing(test, 'a')
    const state = await leaf.state(dog)
    leaf.overrides.ensureStream = async () => ({ ...state, messages: 20, lastSequence: 0 })
    await assert.rejects(new Writer(leaf, memory).log.resync(), /is inconsistent/)
  })
})

describe('a new epoch', { concurrency: true, timeout: 30_000 }, () => {
  it('is in the description of the stream, then with the host, and only then in messages', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    memory.position!.sequence = 5
    let remember = () => {}
    const writer = new Writer(leaf, memory, {
      savePosition: async () => {
        leaf.calls.push('savePosition')
        await new Promise<void>((resolve) => {
          remember = resolve
        })
      },
    })
    const looking = writer.log.resync()
    writer.push('new')
    await eventually('the host is told', () => leaf.calls.includes('savePosition'))
    for (let turns = 0; turns < 10; turns++) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual([leaf.calls, writer.log.ready], [['describe', 'savePosition'], false])
    remember()
    await looking
    await writer.stored('new')
    assert.deepEqual(leaf.calls, ['describe', 'savePosition', 'append'])
  })

  it('is not begun when the host refuses to remember it', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    memory.position!.sequence = 5
    const writer = new Writer(leaf, memory, { savePosition: () => Promise.reject(new Error('the disk is full')) })
    await assert.rejects(writer.log.resync(), /the disk is full/)
    writer.push('new')
    assert.deepEqual([leaf.appends.length, writer.log.ready], [0, false])
  })

  it('of a stream made anew is told behind the end of the old one, which the stream tells from its first moment', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    const { epoch } = memory.position!
    leaf.network.wipeDisk(node)
    const { describeStream } = leaf.overrides
    const before: unknown[] = []
    leaf.overrides.describeStream = async (...args) => {
      before.push(await leaf.label(dog))
      return describeStream!(...args)
    }
    await new Writer(leaf, memory).log.resync()
    const old = { epoch, from: 0, last: 3 }
    assert.deepEqual(before, [{ epochs: [old], purged: [] }])
    assert.deepEqual((await leaf.label(dog)).epochs, [old, { epoch: memory.position!.epoch, from: 1 }])
  })

  it('is not the old one because nothing was ever stored in that, when its stream was lost', async (test) => {
    const { leaf, memory } = await writing(test)
    const { epoch } = memory.position!
    leaf.network.wipeDisk(node)
    const { describeStream } = leaf.overrides
    leaf.overrides.describeStream = async () => {
      throw new MeshError('timeout')
    }
    await assert.rejects(new Writer(leaf, memory).log.resync(), { code: 'timeout' })
    leaf.overrides.describeStream = describeStream!
    await new Writer(leaf, memory).log.resync()
    assert.notEqual(memory.position!.epoch, epoch)
    assert.deepEqual((await leaf.label(dog)).epochs.at(-1), { epoch: memory.position!.epoch, from: 1 })
  })

  it('begins behind the messages that a store kept when it lost what the stream told', async (test) => {
    const { leaf, memory, writer } = await writing(test, 'a', 'b', 'c')
    const { epoch } = memory.position!
    const { ensureStream, describeStream } = leaf.mesh
    leaf.overrides.ensureStream = async (table, description) => {
      await describeStream(table, description)
      return ensureStream(table, description)
    }
    await writer.log.resync()
    assert.deepEqual((await leaf.label(dog)).epochs, [
      { epoch, from: 0, last: 3 },
      { epoch: memory.position!.epoch, from: 4 },
    ])
  })

  it('that got no further than half of its beginning still leaves the end of the old one told', async (test) => {
    const { leaf, memory } = await writing(test, 'a', 'b', 'c')
    const { epoch } = memory.position!
    memory.position!.sequence = 5
    const { describeStream } = leaf.overrides
    leaf.overrides.describeStream = async () => {
      throw new MeshError('timeout')
    }
    await assert.rejects(new Writer(leaf, memory).log.resync(), { code: 'timeout' })
    leaf.overrides.describeStream = describeStream!
    const writer = new Writer(leaf, memory)
    await writer.log.resync()
    const { epochs } = await leaf.label(dog)
    assert.deepEqual(epochs[0], { epoch, from: 1, last: 5 })
  })
})

describe('a purge', { concurrency: true, timeout: 30_000 }, () => {
  it('runs with nothing in flight, and nothing is sent before it is over', async (test) => {
    const { leaf, writer } = await writing(test, 'before')
    leaf.held = true
    writer.push('a', 'b')
    await leaf.sent(1)
    const purged = writer.log.purge({})
    writer.push('c')
    for (let turns = 0; turns < 10; turns++) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(leaf.calls, ['append', 'append'])
    await leaf.release()
    await purged
    await writer.stored('c')
    assert.deepEqual(leaf.calls, ['append', 'append', 'describe', 'purge', 'append'])
    assert.deepEqual(await leaf.ids(dog), ['c'])
  })

  it('names what goes before it goes', async (test) => {
    const { leaf, writer } = await writing(test, 'a', 'b', 'c')
    leaf.overrides.purgeStream = async () => {
      throw new MeshError('timeout')
    }
    await assert.rejects(writer.log.purge({ keep: 1 }), { code: 'timeout' })
    assert.deepEqual((await leaf.label(dog)).purged, [[1, 2]])
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c'])
  })

  it('follows the one before it', async (test) => {
    const { leaf, writer } = await writing(test, 'a', 'b', 'c', 'd')
    await Promise.all([writer.log.purge({ before: 2 }), writer.log.purge({ before: 3 }), writer.log.purge({ keep: 1 })])
    assert.deepEqual(leaf.calls, ['describe', 'purge', 'describe', 'purge', 'describe', 'purge'])
    assert.deepEqual((await leaf.label(dog)).purged, [[1, 3]])
    assert.deepEqual(await leaf.ids(dog), ['d'])
  })

  it('and a look at the stream do not undo each other: both change its description', async (test) => {
    for (const first of ['look', 'purge']) {
      const { leaf, memory } = await writing(test, 'a', 'b', 'c')
      memory.position!.sequence = 5
      const writer = new Writer(leaf, memory)
      const steps = [() => writer.log.resync(), () => writer.log.purge({ keep: 1 })]
      await Promise.all((first === 'look' ? steps : steps.reverse()).map((step) => step()))
      writer.push('new')
      await writer.stored('new')
      const { epochs, purged } = await leaf.label(dog)
      assert.deepEqual([epochs.at(-1)?.epoch, purged], [memory.position!.epoch, [[1, 2]]], `${first} first`)
    }
  })

  it('does not wait for what was in flight when the leaf went', async (test) => {
    const { leaf, writer } = await writing(test, 'before')
    leaf.held = true
    writer.push('a')
    const sent = await leaf.sent(0)
    const purged = writer.log.purge({})
    sent.answer(new MeshError('disconnected'))
    await purged
    await leaf.release()
    await writer.stored('a')
    assert.deepEqual(await leaf.ids(dog), ['a'])
  })
})
