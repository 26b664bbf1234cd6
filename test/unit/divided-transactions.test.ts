// A transaction that no single message can hold: HarperDB gets its rows in several messages, and nodes of enmesh get it at once, with one id.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import type { Transaction, Write } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { type Mesh, MeshError, type Message } from '../../lib/mesh/mesh.ts'
import { HarperTimes, type MessageAhead, SingleMessages } from '../../lib/replication/publish/message-format.ts'
import { maxDataBytes, PartEncoder } from '../../lib/replication/publish/part-encoder.ts'
import { OutgoingPart, PendingTransaction } from '../../lib/replication/publish/pending-transaction.ts'
import { decodeStored, Frame } from '../../lib/replication/wire/frame.ts'
import { MAX_EPOCH_LENGTH, MAX_RELAYS } from '../../lib/replication/wire/names.ts'
import { decodePart, encodePart } from '../../lib/replication/wire/part.ts'
import { encodeRows, encodeWhole, MAX_CHAIN } from '../../lib/replication/wire/single-message-encoder.ts'
import { eventually } from '../support/cluster.ts'
import { HarperDatabase, readHarperMessage } from '../support/harper-database.ts'
import type { HarperNode } from '../support/harper-node.ts'
import { startHarperNode } from '../support/memory-harper-node.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'
import { type MemoryNode, Scene } from '../support/memory-scene.ts'
import { dog, StoredPosition, singly, Writer } from '../support/writer.ts'

const MB = 1024 * 1024
const timestamp = makeTimestamp(1_795_730_086_045, 3, node)
const write = (operation: 'insert' | 'update', ...records: Record<string, unknown>[]): Write => ({
  operation,
  ...dog,
  records,
})
const remove = (...ids: number[]): Write => ({ operation: 'delete', ...dog, ids })
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, index) => from + index)
const rows = (count: number, from = 0) => numbers(count, from).map((id) => ({ id, name: `dog ${id}` }))
/** Inserts, updates and deletes in equal parts: at most a half of them is in the list of a single message. */
const mixed = (count: number): Write[] => [
  write('insert', ...rows(count / 2)),
  write('update', ...rows(count / 2, count / 2)),
  remove(...numbers(MAX_CHAIN, count)),
]

type Row = { id: string; key: unknown; reason: string }
function format({ maxBytes = 4 * MB, withheld = [] as Row[] } = {}) {
  const describe = async () => [{ ...dog, primaryKey: 'id', attributes: ['id'] }]
  return new SingleMessages({
    table: dog,
    times: new HarperTimes(),
    maxBytes,
    describe,
    withheld: (row) => withheld.push(row),
  })
}
const encode = (writes: Write[], more: Partial<Transaction> = {}) =>
  encodePart({ id: 't1', timestamp, writes, ...more }, writes, node)

/** Everything that is stored for a part, in order. */
async function messagesOf(data: Uint8Array, messages = format()): Promise<Message[]> {
  await messages.prepare()
  const all: Message[] = []
  const position = () => ({ node, epoch: 'e1', first: all.length + 1 })
  for (let next = messages.aheadOf(position(), data); next; next = messages.aheadOf(position(), data)) {
    all.push(next.message)
    next.stored()
  }
  return [...all, messages.encode(position(), [data])]
}
const frameOf = (message: Message, index: number) =>
  Frame.read({ ...message, sequence: index + 1, time: 1, delivery: 1 })
const decode = (message: Message, index: number) => decodeStored({ node, ...dog }, frameOf(message, index).part(0))
/** The rows of a HarperDB node that reads these messages, and had these. */
function inHarper(messages: readonly Message[], before: object[] = []) {
  const database = new HarperDatabase([{ ...dog, primaryKey: 'id', hasTimes: false }])
  for (const record of before)
    database.apply('dev', [{ operation: 'upsert', table: 'dog', id: (record as { id: number }).id, record }], 1)
  for (const { data } of messages) {
    const { writes, timestamp } = readHarperMessage(data)
    if (Array.isArray(writes)) database.apply('dev', writes, timestamp)
  }
  return byKey(database.find('dev', 'dog')!.contents())
}
const byKey = (all: object[]) =>
  all.toSorted((a, b) => (String(Object.values(a)[0]) < String(Object.values(b)[0]) ? -1 : 1))

describe('the messages of a divided transaction', () => {
  it('have all rows for HarperDB, and the transaction at the end for nodes of enmesh', async () => {
    for (const count of [2 * MAX_CHAIN, 5_000]) {
      const writes = mixed(count)
      const messages = await messagesOf(encode(writes))
      assert.deepEqual(inHarper(messages, [{ id: count + 1 }]), byKey(rows(count)))
      assert.deepEqual(
        messages.map((each, index) => frameOf(each, index).isForHarperOnly),
        [...messages.slice(1).map(() => true), false],
      )
      const decoded = messages.map(decode)
      assert.ok(decoded.slice(0, -1).every(({ writes }) => writes.length === 0))
      const origin = { node, relayedBy: [], epoch: 'e1', index: messages.length }
      const place = { origin, sequence: messages.length, index: messages.length }
      assert.deepEqual(decoded.at(-1), { id: 't1', timestamp, writes, ...place })
    }
  })

  it('are one while the chain of its rows is short enough', async () => {
    const transaction = (count: number) => encode([write('insert', ...rows(2_000)), remove(...numbers(count, 9_000))])
    const lengths = [MAX_CHAIN, MAX_CHAIN + 1].map(async (count) => (await messagesOf(transaction(count))).length)
    const [attributes, lists, whole] = [1, 2, 1]
    assert.deepEqual(await Promise.all(lengths), [attributes + 1, attributes + lists + whole])
  })

  it('are as large as messages may be', async () => {
    const maxBytes = MB
    const writes = [write('insert', ...numbers(700).map((id) => ({ id: `${id}`.padEnd(1_000, 'k') })))]
    const messages = await messagesOf(encode(writes), format({ maxBytes }))
    assert.ok(messages.length > 2 && messages.every(({ data }) => data.byteLength <= maxBytes))
    assert.equal(inHarper(messages).length, 700)
    assert.deepEqual(decode(messages.at(-1)!, messages.length - 1).writes, writes)
    const one = [write('insert', { id: 1, text: 'x'.repeat(maxBytes - 4_096) })]
    assert.equal((await messagesOf(encode(one), format({ maxBytes }))).length, 2, 'with its attributes')
  })

  it('lack a row that HarperDB could not get, which is reported', async () => {
    const withheld: Row[] = []
    const id = 'k'.repeat(600_000)
    const data = encode([write('insert', { id }, { id: 5 }), remove(...numbers(3))])
    const messages = await messagesOf(data, format({ maxBytes: MB, withheld }))
    assert.deepEqual(inHarper(messages), [{ id: 5 }])
    assert.deepEqual(withheld, [{ id: 't1', key: id, reason: `has more than ${MB} bytes` }])
    assert.equal(decode(messages.at(-1)!, 0).writes.length, 2)
  })

  it('of a relayed or restamped transaction say what its one message would say', async () => {
    const origin = { node: 'node3', epoch: 'e3', index: 9, relayedBy: ['node2', node] }
    const trace = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' }
    const at = makeTimestamp(7, 0, 'node3')
    const messages = await messagesOf(encode(mixed(1_200), { origin, trace, user: 'ann', timestamp: at }))
    const { writes, ...rest } = decode(messages.at(-1)!, 8)
    assert.deepEqual(rest, { id: 't1', timestamp: at, origin, trace, user: 'ann', sequence: 9, index: messages.length })
    assert.equal(writes.length, 3)
    assert.ok(messages.slice(1).every(({ headers }) => headers.transacted_nodes === 'node3,node2,node1'))
  })

  it('that a HarperDB node forwards are applied, whichever of them it forwards', async () => {
    const messages = (await messagesOf(encode(mixed(1_200)))).map(({ data, headers }) => ({
      data,
      headers: { ...headers, transacted_nodes: `${headers.transacted_nodes},harper` },
    }))
    const decoded = messages.map((each, index) =>
      decodeStored({ node: 'harper', ...dog }, frameOf(each, index).part(0)),
    )
    const written = decoded.slice(0, -1).flatMap(({ writes }) => writes)
    assert.equal(
      written.reduce((sum, each) => sum + (each.operation === 'delete' ? each.ids : each.records).length, 0),
      1_700,
    )
    assert.deepEqual(decoded.at(-1)!.writes, mixed(1_200))
    assert.deepEqual(decoded.at(-1)!.origin, { node, relayedBy: ['harper'], epoch: 'e1', index: messages.length })
  })

  it('continue after an interruption, and begin again in another epoch', async () => {
    const withheld: Row[] = []
    const messages = format({ maxBytes: MB, withheld })
    const data = encode([write('insert', { id: 'k'.repeat(600_000) }), ...mixed(1_200)])
    const sentIn = async (epoch: string, stored = 9) => {
      await messages.prepare()
      const all: string[] = []
      for (let next: MessageAhead | undefined; all.length < stored; all.push(JSON.stringify(bodyOf(next)))) {
        next = messages.aheadOf({ node, epoch, first: 1 }, data)
        if (!next) break
        next.stored()
      }
      return all
    }
    const bodyOf = ({ message }: MessageAhead) => readHarperMessage(message.data).writes
    const first = await sentIn('e1', 3)
    const rest = await sentIn('e1')
    assert.deepEqual([rest.length, await sentIn('e1')], [1, []])
    messages.encode({ node, epoch: 'e1', first: 5 }, [data])
    assert.deepEqual(await sentIn('e1'), [], 'the last one was refused')
    const [, ...rows] = [...first, ...rest]
    assert.deepEqual(await sentIn('e2'), rows, 'without the attributes')
    assert.equal(withheld.length, 1, 'reported once')
    const next = encode(mixed(1_200), { id: 't2' })
    assert.ok(messages.aheadOf({ node, epoch: 'e2', first: 9 }, next), 'the next transaction begins with its first one')
  })

  it('fit, however long the user is who committed it', async () => {
    const [user, more] = ['u'.repeat(70_000), '\u{1d11e}'.repeat(500)]
    const relayedBy = [...numbers(MAX_RELAYS)].map((number) => `${number}`.padEnd(255, '\u20ac'))
    const database = { database: '\u20ac'.repeat(100), table: '\u20ac'.repeat(100) }
    const origin = { node: '\u20ac'.repeat(255), epoch: 'e'.repeat(MAX_EPOCH_LENGTH), index: 9, relayedBy }
    const own = { id: `${more}${'\u20ac'.repeat(24)}`, user, origin, timestamp: makeTimestamp(7, 0, origin.node) }
    const mesh = { maxPayload: MB } as Mesh
    const text = 'x'.repeat(maxDataBytes(mesh) - encode([write('insert', { id: 'k', text: '' })], own).length - 4)
    const data = encode([write('insert', { id: 'k', text })], own)
    assert.equal(data.byteLength, maxDataBytes(mesh))
    const [part, position] = [decodePart({ node, ...dog }, node, data), { node, epoch: 'e'.repeat(64), first: 2 ** 50 }]
    const whole = encodeWhole(position, database, part, { data, time: 1 })
    const headers = Object.entries(whole.headers).flat().join('')
    assert.ok(whole.data.byteLength + Buffer.byteLength(headers) < mesh.maxPayload)
    const rows = encodeRows(position, database, part, { rows: [{ operation: 'delete', key: 1 }], time: 1 })
    assert.ok(rows.data.byteLength < 4_096)
    const all = await messagesOf(encode(mixed(1_200), { user }), format({ maxBytes: MB }))
    assert.equal(decode(all.at(-1)!, all.length - 1).user, user)
  })

  it('look for new attributes once', async (test) => {
    const count = 10_100
    const record = Object.fromEntries(numbers(count).map((number) => [`attribute ${number}`, 1]))
    const messages = format()
    await messages.prepare()
    const { mock } = test.mock.method(Set.prototype, 'add')
    const all = await messagesOf(encode([...mixed(1_200), write('insert', { id: -1, ...record })]), messages)
    const calls = mock.callCount()
    mock.restore()
    assert.ok(all.length > 3 && calls < 2 * count, `${calls} names for ${all.length} messages`)
  })
})

describe('a writer that is interrupted between the messages of a divided transaction', () => {
  const createWriter = (leaf: MemoryLeaf, memory: StoredPosition): Writer => {
    const writer = new Writer(leaf, memory, { frames: { ...singly, partial: 1, inFlight: 1 }, format: format() })
    writer.partOf = (id) => encode(id === 't2' ? mixed(1_200) : [write('insert', { id: 1 })], { id })
    return writer
  }
  async function contents(leaf: MemoryLeaf): Promise<Message[]> {
    const { lastSequence } = await leaf.state(dog)
    const all: Message[] = []
    for (let sequence = 1; sequence <= lastSequence; sequence++)
      all.push((await leaf.mesh.messageAt({ node, ...dog }, sequence, { timeout: 1_000 }))!)
    return all
  }

  it('loses nothing, wherever that is', async (test) => {
    for (const [kept, isKilled] of [1, 2, 3, 4, 5].flatMap(
      (kept) =>
        [
          [kept, true],
          [kept, false],
        ] as const,
    )) {
      const leaf = await MemoryLeaf.open(test)
      const memory = new StoredPosition()
      const writer = createWriter(leaf, memory)
      await writer.stream.resync()
      writer.push('t1')
      await writer.stored('t1')
      leaf.held = true
      const first = leaf.appends.length
      writer.push('t2', 't3')
      for (let index = 0; index < kept - 1; index++) await (await leaf.sent(first + index)).pass()
      // The last one is stored, and the process does not hear of it.
      await (await leaf.sent(first + kept - 1)).store()
      leaf.held = false
      const next = isKilled ? createWriter(leaf, memory) : writer
      await next.stream.resync()
      if (isKilled) next.push('t2', 't3')
      await next.stored('t2', 't3')
      const messages = await contents(leaf)
      const ids = messages.map((each, index) => frameOf(each, index)).filter(({ isForHarperOnly }) => !isForHarperOnly)
      assert.deepEqual(
        ids.map((frame) => frame.idAt(0)),
        ['t1', 't2', 't3'],
      )
      assert.equal(inHarper(messages).length, 1_200)
      assert.deepEqual([next.divergences, (await leaf.metadata(dog)).epochs.length], [[], 1])
    }
  })

  it('sends only the last one again that was refused', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    const writer = createWriter(leaf, new StoredPosition())
    await writer.stream.resync()
    let refusals = 0
    leaf.overrides.append = (table, message, expected, done) => {
      if (frameOf(message, 0).isForHarperOnly || refusals === 5) return leaf.append(table, message, expected, done)
      refusals++
      queueMicrotask(() => done(new MeshError('too_large'), 0))
    }
    writer.push('t2')
    await writer.stored('t2')
    const [attributes, lists, whole] = [1, 3, 1]
    assert.equal((await leaf.state(dog)).lastSequence, attributes + lists + whole)
  })
})

describe('a large transaction behind a relaying node that HarperDB reads from', {
  concurrency: true,
  timeout: 30_000,
}, () => {
  const harperdb4 = { compatibility: 'harperdb4', republishMessages: true }
  const both = [{ ...dog, publish: true, subscribe: true }]
  const start = (
    scene: Scene,
    name: string,
    clustering: Record<string, unknown> = {},
    host = new MemoryHost([['dev', 'dog']]),
  ) => scene.start(name, { host, clustering })
  const rowsOf = (each: MemoryNode | HarperNode) => ('host' in each ? each.host : each).contents('dev', 'dog')
  const have = async (nodes: (MemoryNode | HarperNode)[], expected: object[], last: (row: object) => boolean) => {
    await eventually(
      () => `the rows are there: ${nodes.map((each) => rowsOf(each).length)}`,
      () => nodes.every((each) => rowsOf(each).some(last)),
      20_000,
    )
    for (const each of nodes) assert.deepEqual(byKey(rowsOf(each)), byKey(expected))
  }
  const joinHarper = async (test: TestContext, scene: Scene) => {
    const harper = await startHarperNode(test, scene.network, 'harper', [])
    await harper.addNode('relay', [{ schema: 'dev', table: 'dog', publish: true, subscribe: true }])
    return harper
  }

  it('reaches everyone, enmesh nodes at once', async (test) => {
    const scene = new Scene(test)
    const source = await start(scene, 'source')
    const relay = await start(scene, 'relay', harperdb4)
    await relay.cluster.addNode({ node_name: 'source', subscriptions: both })
    const behind = await start(scene, 'behind')
    await behind.cluster.addNode({ node_name: 'relay', subscriptions: both })
    const harper = await joinHarper(test, scene)
    await source.host.write('t1', write('insert', ...rows(1_000)))
    await source.host.write('t2', remove(...numbers(501)), write('update', ...rows(502, 1_000)))
    await source.host.write('t3', remove(...numbers(501, 501)), ...mixed(1_600))
    await source.host.write('t4', write('insert', { id: 1_600, name: 'dog 1600' }))
    await have([source, relay, behind, harper], rows(1_601), (row) => (row as { id: number }).id === 1_600)
    const received = behind.host.from('relay', 'dog').filter(({ writes }) => writes.length > 0)
    assert.deepEqual(
      received.map(({ id }) => id.slice(0, 2)),
      ['t1', 't2', 't3', 't4'],
    )
    assert.deepEqual(
      received.map(({ origin }) => origin.node),
      ['source', 'source', 'source', 'source'],
    )
    assert.deepEqual([behind.gaps(), behind.events['replication:quarantined'], harper.failures], [[], [], []])
    assert.deepEqual([relay.cluster.metrics()!.publish.rejected, relay.cluster.metrics()!.publish.withheld], [0, 0])
  })

  it('that was in the outbox before the setting was turned on reaches everyone', async (test) => {
    const scene = new Scene(test)
    const relay = await start(scene, 'relay')
    const behind = await start(scene, 'behind')
    await behind.cluster.addNode({ node_name: 'relay', subscriptions: both })
    const { host } = relay
    const stamps = numbers(2).map(() => host.timestamp!())
    await relay.cluster.close()
    for (const [index, writes] of [mixed(1_600), [write('update', { id: 0, age: 1 })]].entries())
      host.commitAs({ id: `t${index}`, timestamp: stamps[index]!, writes })
    assert.equal(host.outbox.length, 2)
    const text = await readFile(relay.configFile, 'utf8')
    await writeFile(relay.configFile, text.replace(/^clustering:\n/m, 'clustering:\n  compatibility: harperdb4\n'))
    await relay.open()
    const harper = await joinHarper(test, scene)
    await relay.host.write('t9', write('update', { id: 0, age: 2 }))
    const expected = rows(1_600).map((row) => (row.id === 0 ? { ...row, age: 2 } : row))
    await have([relay, behind], expected, (row) => (row as { age?: number }).age === 2)
    await eventually('HarperDB reads from now on', () => rowsOf(harper).length > 0)
    assert.deepEqual(relay.events['replication:diverged'], [])
  })
})

describe('a transaction of HarperDB that names its attributes once', () => {
  const mesh = { maxPayload: MB / 2 } as Mesh
  const encoder = new PartEncoder(mesh, { node, partStored: () => {}, transactionStored: () => {} })
  const encodeAll = (transaction: Transaction) => encoder.encode(new PendingTransaction(transaction), transaction)

  it('is relayed if its messages can hold it', () => {
    const names = numbers(20).map((n) => `a long name of an attribute ${n}`)
    const records = rows(800).map((row) => ({ ...row, ...Object.fromEntries(names.map((name) => [name, 1])) }))
    const writes = [write('insert', ...records)]
    const own = { id: 't1', timestamp, writes }
    assert.equal((encodeAll(own) as unknown as { code: string }).code, 'transaction_too_large')
    const parts = encodeAll({ ...own, origin: { node: 'harper', relayedBy: [node] } })
    assert.ok(Array.isArray(parts) && parts[0] instanceof OutgoingPart)
    assert.deepEqual(decodePart({ node, ...dog }, node, parts[0].data).writes, writes)
  })
})
