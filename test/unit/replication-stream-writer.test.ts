// The only writer of a stream: what each append expects, and how the writer recovers from each failure.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { eventually } from '../support/cluster.ts'
import { type MemoryLeaf, node } from '../support/memory-leaf.ts'
import { dog, type StoredPosition, singly, startWriter, Writer } from '../support/writer.ts'

describe('an append', { concurrency: true, timeout: 30_000 }, () => {
  it('expects the previous sequence, and the id of the message in flight ahead of it', async (test) => {
    const { leaf, writer } = await startWriter(test, 'before')
    writer.push('a', 'b', 'c')
    await writer.stored('c')
    const { epoch } = writer.stream.position
    assert.deepEqual(
      leaf.appends.map(({ id, frameId, expected }) => [id, frameId, expected]),
      [
        ['a', `${epoch}:2:1`, { sequence: 1 }],
        ['b', `${epoch}:3:1`, { sequence: 2, id: `${epoch}:2:1` }],
        ['c', `${epoch}:4:1`, { sequence: 3, id: `${epoch}:3:1` }],
      ],
    )
  })

  it('does not follow a foreign message at the expected sequence', async (test) => {
    const { leaf, memory, writer } = await startWriter(test)
    await leaf.appendForeign(dog, 'foreign')
    writer.push('a', 'b')
    await writer.stored('a', 'b')
    assert.deepEqual(await leaf.ids(dog), ['foreign', 'a', 'b'])
    assert.deepEqual(memory.stored, ['a@2', 'b@3'])
  })

  it('does not match a foreign message by its id: another table may have a part of the same transaction', async (test) => {
    const { leaf, memory, writer } = await startWriter(test)
    await leaf.appendForeign(dog, 'a')
    writer.push('a')
    await writer.stored('a')
    assert.deepEqual(await leaf.ids(dog), ['a', 'a'])
    assert.deepEqual(memory.stored, ['a@2'])
  })

  it('waits while the window is full', async (test) => {
    const { leaf, memory } = await startWriter(test)
    const writer = new Writer(leaf, memory, { frames: { ...singly, inFlight: 2 } })
    await writer.stream.resync()
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

describe('after a rejected append or a lost acknowledgement', { concurrency: true, timeout: 30_000 }, () => {
  it('appends everything again from the rejected message on', async (test) => {
    const { leaf, memory, writer } = await startWriter(test)
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

  it('does not append stored messages again', async (test) => {
    const { leaf, memory, writer } = await startWriter(test)
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

  it('ignores acknowledgements of earlier attempts', async (test) => {
    const { leaf, memory, writer } = await startWriter(test)
    leaf.held = true
    writer.push('a')
    const first = await leaf.sent(0)
    await writer.stream.resync()
    await leaf.sent(1)
    first.answer(undefined, 1)
    assert.deepEqual(memory.stored, [], 'the message is not stored')
    await writer.stream.resync()
    await leaf.sent(2)
    leaf.appends[1]!.answer(new MeshError('disconnected'))
    assert.deepEqual([writer.interruptions, writer.stream.ready], [0, true])
    await leaf.appends[2]!.pass()
    assert.deepEqual(memory.stored, ['a@1'])
  })

  it('rejects an acknowledgement with an unexpected sequence', async (test) => {
    const { leaf, memory, writer } = await startWriter(test)
    leaf.held = true
    writer.push('a')
    const first = await leaf.sent(0)
    first.answer(undefined, 7)
    assert.deepEqual([memory.stored, writer.interruptions], [[], 1])
    await (await leaf.sent(1)).pass()
    assert.deepEqual(memory.stored, ['a@1'])
  })

  it('reads the stored messages again when nothing arrives within the request timeout', async (test) => {
    const { leaf, memory, writer } = await startWriter(test)
    writer.push('a')
    await writer.stored('a')
    memory.confirm(0)
    memory.stored.length = 0
    let lose = () => {}
    leaf.overrides.read = async () => {
      delete leaf.overrides.read
      return {
        next: () => new Promise((_, reject) => (lose = () => reject(new MeshError('reader_lost')))),
        close: () => lose(),
      }
    }
    const restarted = new Writer(leaf, memory, { requestTimeout: 100 })
    await restarted.stream.resync()
    restarted.push('a', 'b')
    await restarted.stored('a', 'b')
    assert.deepEqual([memory.stored, restarted.interruptions], [['a@1', 'b@2'], 1])
  })
})

describe('a restarted writer', { concurrency: true, timeout: 30_000 }, () => {
  it('reports messages that were stored without confirmation, and does not append them again', async (test) => {
    const { leaf, memory } = await startWriter(test, 'confirmed', 'a', 'b')
    memory.confirm(1)
    const { epoch } = memory.position!
    const writer = new Writer(leaf, memory)
    await writer.stream.resync()
    assert.deepEqual(writer.stream.position, { epoch, sequence: 3, index: 3 })
    writer.push('a', 'b', 'c')
    await writer.stored('c')
    assert.deepEqual(memory.stored, ['a@2', 'b@3', 'c@4'])
    assert.deepEqual(
      leaf.appends.map(({ id, expected }) => [id, expected]),
      [['c', { sequence: 3 }]],
    )
    assert.equal(leaf.appends[0]!.epoch, epoch)
  })

  it('continues in the same epoch when the host has no position', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b')
    const { position } = memory
    memory.position = undefined
    const writer = new Writer(leaf, memory)
    await writer.stream.resync()
    assert.deepEqual(memory.position, { ...position, id: '' })
    assert.deepEqual({ ...writer.stream.position, id: '' }, memory.position)
  })

  /** Asserts that a new epoch begins behind `last` and that the description names the end of the old one. */
  async function assertNewEpoch(
    leaf: MemoryLeaf,
    memory: StoredPosition,
    last: number,
    acknowledged: number,
  ): Promise<Writer> {
    const old = memory.position!.epoch
    const writer = new Writer(leaf, memory)
    await writer.stream.resync()
    writer.push('new')
    await writer.stored('new')
    const { epoch, sequence } = memory.position!
    assert.notEqual(epoch, old)
    assert.equal(sequence, last + 1)
    assert.equal(leaf.appends.at(-1)!.epoch, epoch)
    const { epochs } = await leaf.metadata(dog)
    assert.deepEqual(epochs.at(-1), { epoch, from: last + 1 })
    assert.equal(epochs.find((each) => each.epoch === old)?.last, acknowledged)
    return writer
  }

  it('begins a new epoch when the stream ends before the acknowledged position', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    memory.confirm(5)
    await assertNewEpoch(leaf, memory, 3, 5)
  })

  it('begins a new epoch when the stream is gone, and describes the old one', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    leaf.network.wipeDisk(node)
    await assertNewEpoch(leaf, memory, 0, 3)
  })

  it('begins a new epoch when stream and host are in different epochs', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    memory.position = { epoch: 'another', sequence: 3, index: 3, id: '' }
    await assertNewEpoch(leaf, memory, 3, 3)
  })

  it('begins a new epoch when the unconfirmed messages of the stream are not the next ones of the outbox', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    memory.confirm(1)
    await assertNewEpoch(leaf, memory, 3, 1)
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c', 'new'])
  })

  it('rejects a stream whose state is inconsistent', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a')
    const state = await leaf.state(dog)
    leaf.overrides.ensureStream = async () => ({ ...state, messages: 20, lastSequence: 0 })
    await assert.rejects(new Writer(leaf, memory).stream.resync(), /is inconsistent/)
  })
})

describe('a new epoch', { concurrency: true, timeout: 30_000 }, () => {
  it('is stored in the description, then by the host, then used for messages', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    memory.confirm(5)
    let finishSave = () => {}
    const writer = new Writer(leaf, memory, {
      savePosition: async () => {
        leaf.calls.push('savePosition')
        await new Promise<void>((resolve) => {
          finishSave = resolve
        })
      },
    })
    const resynced = writer.stream.resync()
    writer.push('new')
    await eventually('the host stores the position', () => leaf.calls.includes('savePosition'))
    for (let turns = 0; turns < 10; turns++) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual([leaf.calls, writer.stream.ready], [['describe', 'savePosition'], false])
    finishSave()
    await resynced
    await writer.stored('new')
    assert.deepEqual(leaf.calls, ['describe', 'savePosition', 'append'])
  })

  it('does not begin when the host cannot store it', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    memory.confirm(5)
    const writer = new Writer(leaf, memory, { savePosition: () => Promise.reject(new Error('the disk is full')) })
    await assert.rejects(writer.stream.resync(), /the disk is full/)
    writer.push('new')
    assert.deepEqual([leaf.appends.length, writer.stream.ready], [0, false])
  })

  it('of a recreated stream follows the end of the old one, which the first description contains', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    const { epoch } = memory.position!
    leaf.network.wipeDisk(node)
    const { describeStream } = leaf.overrides
    const before: unknown[] = []
    leaf.overrides.describeStream = async (...args) => {
      before.push(await leaf.metadata(dog))
      return describeStream!(...args)
    }
    await new Writer(leaf, memory).stream.resync()
    const old = { epoch, from: 0, last: 3, lastIndex: 3 }
    assert.deepEqual(before, [{ epochs: [old], purged: [] }])
    assert.deepEqual((await leaf.metadata(dog)).epochs, [old, { epoch: memory.position!.epoch, from: 1 }])
  })

  it('begins for a lost stream even if the old epoch had no messages', async (test) => {
    const { leaf, memory } = await startWriter(test)
    const { epoch } = memory.position!
    leaf.network.wipeDisk(node)
    const { describeStream } = leaf.overrides
    leaf.overrides.describeStream = async () => {
      throw new MeshError('timeout')
    }
    await assert.rejects(new Writer(leaf, memory).stream.resync(), { code: 'timeout' })
    leaf.overrides.describeStream = describeStream!
    await new Writer(leaf, memory).stream.resync()
    assert.notEqual(memory.position!.epoch, epoch)
    assert.deepEqual((await leaf.metadata(dog)).epochs.at(-1), { epoch: memory.position!.epoch, from: 1 })
  })

  it('begins behind the messages of a stream that lost its description', async (test) => {
    const { leaf, memory, writer } = await startWriter(test, 'a', 'b', 'c')
    const { epoch } = memory.position!
    const { ensureStream, describeStream } = leaf.mesh
    leaf.overrides.ensureStream = async (table, description) => {
      await describeStream(table, description)
      return ensureStream(table, description)
    }
    await writer.stream.resync()
    assert.deepEqual((await leaf.metadata(dog)).epochs, [
      { epoch, from: 0, last: 3, lastIndex: 3 },
      { epoch: memory.position!.epoch, from: 4 },
    ])
  })

  it('that failed to begin leaves the end of the old one in the description', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
    const { epoch } = memory.position!
    memory.confirm(5)
    const { describeStream } = leaf.overrides
    leaf.overrides.describeStream = async () => {
      throw new MeshError('timeout')
    }
    await assert.rejects(new Writer(leaf, memory).stream.resync(), { code: 'timeout' })
    leaf.overrides.describeStream = describeStream!
    const writer = new Writer(leaf, memory)
    await writer.stream.resync()
    const { epochs } = await leaf.metadata(dog)
    assert.deepEqual(epochs[0], { epoch, from: 1, last: 5, lastIndex: 5 })
  })
})

describe('the end of the stream', { concurrency: true, timeout: 30_000 }, () => {
  it('has no index when its last message is gone before it was compared with the outbox', async (test) => {
    const { leaf, memory } = await startWriter(test, 'a', 'b')
    memory.confirm(1)
    await leaf.mesh.purgeStream(dog, {})
    const writer = new Writer(leaf, memory)
    await writer.stream.resync()
    const { epoch } = memory.position!
    assert.deepEqual(writer.stream.position, { epoch, sequence: 2, index: undefined })
    writer.push('b')
    await writer.stored('b')
    assert.deepEqual(writer.stream.position, { epoch: memory.position!.epoch, sequence: 3, index: 1 })
    assert.notEqual(memory.position!.epoch, epoch)
  })
})

describe('a purge', { concurrency: true, timeout: 30_000 }, () => {
  it('runs with nothing in flight, and appends wait for its end', async (test) => {
    const { leaf, writer } = await startWriter(test, 'before')
    leaf.held = true
    writer.push('a', 'b')
    await leaf.sent(1)
    const purged = writer.stream.purge({})
    await new Promise((resolve) => setImmediate(resolve))
    writer.push('c')
    for (let turns = 0; turns < 10; turns++) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(leaf.calls, ['append', 'append'])
    await leaf.release()
    await purged
    await writer.stored('c')
    assert.deepEqual(leaf.calls, ['append', 'append', 'describe', 'purge', 'append'])
    assert.deepEqual(await leaf.ids(dog), ['c'])
  })

  it('names the range in the description before the purge', async (test) => {
    const { leaf, writer } = await startWriter(test, 'a', 'b', 'c')
    leaf.overrides.purgeStream = async () => {
      throw new MeshError('timeout')
    }
    await assert.rejects(writer.stream.purge({ keep: 1 }), { code: 'timeout' })
    assert.deepEqual((await leaf.metadata(dog)).purged, [{ from: 1, to: 2, firstIndex: 1, lastIndex: 2 }])
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c'])
  })

  it('waits for the previous purge', async (test) => {
    const { leaf, writer } = await startWriter(test, 'a', 'b', 'c', 'd')
    await Promise.all([
      writer.stream.purge({ before: 2 }),
      writer.stream.purge({ before: 3 }),
      writer.stream.purge({ keep: 1 }),
    ])
    assert.deepEqual(leaf.calls, ['describe', 'purge', 'describe', 'purge', 'describe', 'purge'])
    assert.deepEqual((await leaf.metadata(dog)).purged, [{ from: 1, to: 3, firstIndex: 1, lastIndex: 3 }])
    assert.deepEqual(await leaf.ids(dog), ['d'])
  })

  it('and a resync keep the changes of each other in the description', async (test) => {
    for (const first of ['resync', 'purge']) {
      const { leaf, memory } = await startWriter(test, 'a', 'b', 'c')
      memory.confirm(5)
      const writer = new Writer(leaf, memory)
      const steps = [() => writer.stream.resync(), () => writer.stream.purge({ keep: 1 })]
      await Promise.all((first === 'resync' ? steps : steps.reverse()).map((step) => step()))
      writer.push('new')
      await writer.stored('new')
      const { epochs, purged } = await leaf.metadata(dog)
      assert.deepEqual(
        [epochs.at(-1)?.epoch, purged],
        [memory.position!.epoch, [{ from: 1, to: 2, firstIndex: 1, lastIndex: 2 }]],
        `${first} first`,
      )
    }
  })

  it('does not wait for messages that were in flight when the leaf disconnected', async (test) => {
    const { leaf, writer } = await startWriter(test, 'before')
    leaf.held = true
    writer.push('a')
    const sent = await leaf.sent(0)
    const purged = writer.stream.purge({})
    sent.answer(new MeshError('disconnected'))
    await purged
    await leaf.release()
    await writer.stored('a')
    assert.deepEqual(await leaf.ids(dog), ['a'])
  })
})
