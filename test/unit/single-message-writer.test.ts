// The writer of a stream that HarperDB reads: one message in flight, without headers that a relaying node would repeat, attributes ahead
// of the transactions that use them, and a new epoch when the format changes.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { HarperTimes, SingleMessages } from '../../lib/replication/publish/message-format.ts'
import { parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { Frame } from '../../lib/replication/wire/frame.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { eventually } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'
import { dog, StoredPosition, singly, Writer } from '../support/writer.ts'

const frames = { ...singly, partial: 1, inFlight: 1 }
const singleMessages = () =>
  new SingleMessages({
    table: dog,
    times: new HarperTimes(),
    maxBytes: 1e6,
    withheld: () => assert.fail('a row was withheld'),
    describe: async () => [{ ...dog, primaryKey: 'id', attributes: ['id'] }],
  })
function createWriter(leaf: MemoryLeaf, memory: StoredPosition): Writer {
  const writer = new Writer(leaf, memory, { frames, format: singleMessages() })
  writer.partOf = (id) =>
    encodePart({ id, timestamp: makeTimestamp(1, 0, node), writes: [] }, [insert('dog', { id, name: 'Rex' })], node)
  return writer
}

async function start(test: TestContext, ...ids: string[]) {
  const leaf = await MemoryLeaf.open(test)
  const memory = new StoredPosition()
  const writer = createWriter(leaf, memory)
  await writer.stream.resync()
  writer.push(...ids)
  await writer.stored(...ids)
  return { leaf, memory, writer }
}

/** The stored messages: `-` for a definition, or the id. */
async function contents(leaf: MemoryLeaf): Promise<string[]> {
  const state = (await leaf.mesh.streamState({ node, ...dog }, { timeout: 1_000 }))!
  const all: string[] = []
  for (let sequence = 1; sequence <= state.lastSequence; sequence++) {
    const frame = Frame.read((await leaf.mesh.messageAt({ node, ...dog }, sequence, { timeout: 1_000 }))!)
    all.push(`${frame.isForHarperOnly ? '-' : frame.idAt(0)}@${frame.first}`)
  }
  return all
}
const metadataOf = async (leaf: MemoryLeaf) =>
  parseStreamMetadata((await leaf.mesh.streamState({ node, ...dog }, { timeout: 1_000 }))!.description)

describe('a writer of single messages', () => {
  it('defines attributes first, and has one message in flight without an expected one', async (test) => {
    const { leaf, writer } = await start(test, 't1', 't2')
    assert.deepEqual(await contents(leaf), ['-@1', 't1@2', 't2@3'])
    assert.deepEqual(
      leaf.appends.map(({ expected }) => expected),
      [undefined, undefined, undefined],
    )
    leaf.held = true
    writer.push('t3', 't4')
    const third = await leaf.sent(3)
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(leaf.appends.length, 4)
    leaf.held = false
    await third.pass()
    await writer.stored('t4')
    assert.deepEqual(writer.stream.position.index, 5)
    assert.deepEqual((await metadataOf(leaf)).single, 1)
  })

  it('continues where it stopped: definitions are no transactions of the outbox', async (test) => {
    const { leaf, memory } = await start(test, 't1')
    // Definition and transaction are stored, and the process ends before they are confirmed.
    memory.position = { ...memory.position!, sequence: 0, index: 0, id: '' }
    memory.stored.length = 0
    const next = createWriter(leaf, memory)
    await next.stream.resync()
    next.push('t1', 't2')
    await next.stored('t1', 't2')
    assert.deepEqual(await contents(leaf), ['-@1', 't1@2', '-@3', 't2@4'])
    assert.deepEqual([next.divergences, (await metadataOf(leaf)).epochs.length], [[], 1])
  })

  it('continues after a definition whose transaction was not stored', async (test) => {
    const { leaf, memory, writer } = await start(test, 't1')
    leaf.held = true
    writer.push('t2')
    const lost = await leaf.sent(2)
    leaf.held = false
    lost.answer(new MeshError('timeout'))
    await writer.stored('t2')
    // Only the definition of another process.
    const other = createWriter(leaf, memory)
    await other.stream.resync()
    leaf.held = true
    const sent = leaf.appends.length
    other.push('t3')
    await (await leaf.sent(sent)).store()
    leaf.held = false
    const last = createWriter(leaf, memory)
    await last.stream.resync()
    last.push('t3')
    await last.stored('t3')
    assert.deepEqual(await contents(leaf), ['-@1', 't1@2', 't2@3', '-@4', '-@5', 't3@6'])
    assert.deepEqual([last.divergences, (await metadataOf(leaf)).epochs.length], [[], 1])
  })

  it('whose message was stored after it had been sent again begins a new epoch, and loses nothing', async (test) => {
    const { leaf, writer } = await start(test, 't1')
    leaf.held = true
    writer.push('t2')
    const late = await leaf.sent(2)
    late.answer(new MeshError('timeout'))
    const again = await leaf.sent(3)
    await late.store()
    leaf.held = false
    await again.pass()
    writer.push('t3')
    await writer.stored('t2', 't3')
    const stored = await contents(leaf)
    assert.deepEqual(stored.filter((each) => each.startsWith('t3')).length, 1, `${stored}`)
    assert.ok(stored.some((each) => each.startsWith('t2')))
  })
})

describe('a change of the format', () => {
  it('begins a new epoch in both directions, and the description tells where single messages begin', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    const memory = new StoredPosition()
    const write = async (writer: Writer, id: string) => {
      await writer.stream.resync()
      writer.push(id)
      await writer.stored(id)
      assert.deepEqual(writer.divergences, [])
    }
    await write(new Writer(leaf, memory), 't1')
    await write(createWriter(leaf, memory), 't2')
    const { epochs, single } = await metadataOf(leaf)
    assert.deepEqual([epochs.length, epochs[0]!.last, epochs[1]!.from, single], [2, 1, 2, 2])
    await write(createWriter(leaf, memory), 't3')
    assert.deepEqual((await metadataOf(leaf)).single, 2, 'the same epoch')
    await write(new Writer(leaf, memory), 't4')
    const off = await metadataOf(leaf)
    assert.deepEqual([off.epochs.length, off.single], [3, undefined])
  })

  it('counts the messages of HarperDB in the stream of a node that ran it', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    await leaf.mesh.ensureStream(dog, '')
    await new Promise<void>((resolve, reject) =>
      leaf.mesh.append(dog, { data: Uint8Array.of(0x80), headers: {} }, undefined, (error) =>
        error ? reject(error) : resolve(),
      ),
    )
    leaf.appends.length = 0
    const writer = createWriter(leaf, new StoredPosition())
    await writer.stream.resync()
    const { epochs, single } = await metadataOf(leaf)
    assert.deepEqual([epochs[0]!.from, single], [2, 1])
    await eventually('it is ready', () => writer.stream.ready)
  })
})
