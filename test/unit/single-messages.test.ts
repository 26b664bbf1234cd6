// Messages that HarperDB reads: what is written is a message of its form, and every enmesh node reads it as the transaction that was committed.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Transaction, Write } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import type { Message } from '../../lib/mesh/mesh.ts'
import { HarperTimes, SingleMessages } from '../../lib/replication/publish/message-format.ts'
import { decodeMessage, decodeStored, Frame, storedId } from '../../lib/replication/wire/frame.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { encodeDefinition, harperTime } from '../../lib/replication/wire/single-message-encoder.ts'
import { harperUnpack } from '../support/harper-messages.ts'

const dog = { database: 'dev', table: 'dog' }
const now = 1_795_730_086_045
const node = 'node1'
const timestamp = makeTimestamp(now, 3, node)
const place = { node, epoch: 'e1', first: 5 }
const insert = (...records: Record<string, unknown>[]): Write => ({ operation: 'insert', ...dog, records })
const update = (...records: Record<string, unknown>[]): Write => ({ operation: 'update', ...dog, records })
const remove = (...ids: (number | string)[]): Write => ({ operation: 'delete', ...dog, ids })

async function format() {
  const describe = async () => [{ ...dog, primaryKey: 'id', attributes: ['id'] }]
  const withheld = () => assert.fail('a row was withheld')
  const messages = new SingleMessages({ table: dog, times: new HarperTimes(), maxBytes: 1e6, describe, withheld })
  await messages.prepare()
  return messages
}
const partOf = (writes: Write[], more: Partial<Transaction> = {}) =>
  encodePart({ id: 't1', timestamp, user: 'ann', writes, ...more }, writes, node)
const encode = async (writes: Write[], more: Partial<Transaction> = {}) =>
  (await format()).encode(place, [partOf(writes, more)])
const bodyOf = ({ data }: Message) => {
  const { __enmesh, ...body } = harperUnpack(data) as Record<string, unknown>
  return body
}
const stored = (message: Message, sequence = 9) => ({ ...message, sequence, time: 1, delivery: 1 })
const decode = (message: Message, from = node) =>
  decodeStored({ node: from, ...dog }, Frame.read(stored(message)).part(0))
/** As a HarperDB node stores it again in its own stream. */
const forwarded = ({ data, headers }: Message, by: string): Message => ({
  data,
  headers: { ...headers, transacted_nodes: `${headers.transacted_nodes},${by}` },
})

describe('a single message', () => {
  it('has a put or a patch for each row, the largest group in its lists, and one row in each further write', async () => {
    const born = new Date(5)
    const photo = Uint8Array.from([1, 2])
    const message = await encode([
      insert({ id: 1, born, photo }, { id: 2, big: 2n ** 60n }),
      update({ id: 3, n: 1 }),
      remove(4),
    ])
    const __origin = { user: 'ann', timestamp: now + 3 / 4_096, node_name: node }
    assert.deepEqual(bodyOf(message), {
      operation: 'upsert',
      schema: 'dev',
      table: 'dog',
      hash_values: [1, 2],
      records: [
        { id: 1, born, photo },
        { id: 2, big: 2n ** 60n },
      ],
      next: {
        operation: 'delete',
        table: 'dog',
        id: 4,
        record: undefined,
        next: { operation: 'patch', table: 'dog', id: 3, record: { id: 3, n: 1 } },
      },
      __origin,
    })
    assert.deepEqual(message.headers, {
      'Nats-Msg-Id': 'e1:5:1',
      origin: node,
      transacted_nodes: node,
      transacted_count: '1',
      epoch: 'e1',
      v: '1',
      first: '5',
      count: '1',
    })
  })

  it('has one write for each row, with the same effect as all of them', async () => {
    const message = await encode([
      insert({ id: 1, a: 1, b: 1 }),
      update({ id: 1, b: 2 }),
      update({ id: 2, a: 1 }),
      update({ id: 2, b: 1 }),
      insert({ id: 3 }),
      remove(3),
      remove(4),
      update({ id: 4, a: 1 }),
      remove('1'),
    ])
    const { writes } = decode(message)
    assert.deepEqual(writes, [
      {
        operation: 'upsert',
        ...dog,
        records: [
          { id: 1, a: 1, b: 2 },
          { id: 4, a: 1 },
        ],
      },
      { operation: 'update', ...dog, records: [{ id: 2, a: 1, b: 1 }] },
      { operation: 'delete', ...dog, ids: ['1'] },
      { operation: 'delete', ...dog, ids: [3] },
    ])
  })

  it('is decoded as the transaction that was committed', async () => {
    const trace = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' }
    const message = await encode([update({ id: 1, n: 2 })], { trace })
    assert.deepEqual(decode(message), {
      id: 't1',
      timestamp,
      user: 'ann',
      writes: [update({ id: 1, n: 2 })],
      origin: { node, relayedBy: [], epoch: 'e1', index: 5 },
      sequence: 9,
      index: 5,
      trace,
    })
    assert.equal(storedId(Frame.read(stored(message)).part(0)), 't1')
  })

  it('of a restamp names the timestamps that it voids, and HarperDB gets no rows', async () => {
    const voids = { node, from: makeTimestamp(now, 0, node), to: timestamp }
    const message = await encode([], { voids })
    assert.deepEqual([decode(message).voids, decode(message).writes], [voids, []])
    assert.deepEqual(bodyOf(message).operation, 'define_schema')
    assert.equal(Frame.read(stored(message)).isForHarperOnly, false)
  })

  it('of a relayed transaction names its origin, its place there, and the nodes that relayed it', async () => {
    const origin = { node: 'node3', epoch: 'e3', index: 9, relayedBy: ['node2', node] }
    const relayed = await encode([insert({ id: 1 })], { origin, timestamp: makeTimestamp(now, 0, 'node3') })
    assert.deepEqual([relayed.headers.origin, relayed.headers.transacted_nodes], ['node3', 'node3,node2,node1'])
    assert.deepEqual(decode(relayed).origin, origin)
    const ofHarper = { node: 'harper', relayedBy: [node] }
    assert.deepEqual(decode(await encode([insert({ id: 1 })], { origin: ofHarper })).origin, ofHarper)
  })

  it('that a HarperDB node forwards has the place of that stream, and keeps the place in its own', async () => {
    const own = forwarded(await encode([insert({ id: 1 })]), 'harper')
    const frame = Frame.read(stored(own, 30))
    assert.deepEqual([frame.epoch, frame.first, frame.isSingle, frame.fault], ['', 30, true, undefined])
    assert.deepEqual(decode(own, 'harper').origin, { node, epoch: 'e1', index: 5, relayedBy: ['harper'] })
    const origin = { node: 'node3', epoch: 'e3', index: 9, relayedBy: [node] }
    const twice = forwarded(await encode([insert({ id: 1 })], { origin }), 'harper')
    assert.deepEqual(decode(twice, 'harper').origin, { ...origin, relayedBy: [node, 'harper'] })
  })

  it('of attributes is no transaction of a database', async () => {
    const message = encodeDefinition(place, dog, ['age'], { timestamp, time: harperTime(timestamp) })
    const frame = Frame.read(stored(message))
    assert.ok(frame.isForHarperOnly)
    assert.deepEqual(bodyOf(message), {
      operation: 'define_schema',
      schema: 'dev',
      table: 'dog',
      attributes: [{ name: 'age', attribute: 'age', indexed: true }],
      __origin: { user: null, timestamp: now + 3 / 4_096, node_name: node },
    })
    const { transaction, extras } = decodeMessage({ node, ...dog }, frame.part(0))
    assert.deepEqual([transaction.writes, extras!.attributes.get('dog')], [[], ['age']])
    assert.equal(Frame.read(stored(await encode([insert({ id: 1 })]))).isForHarperOnly, false)
  })
})

describe('attributes', () => {
  it('are defined before the first transaction that sets them, once they are stored not again', async () => {
    const messages = await format()
    const define = (...writes: Write[]) => messages.aheadOf(place, partOf(writes))
    const namesOf = (message: Message | undefined) =>
      message && (bodyOf(message).attributes as { name: string }[]).map(({ name }) => name)
    const first = define(insert({ id: 1, name: 'Rex' }), update({ id: 2, age: 3 }))
    assert.deepEqual(namesOf(first?.message), ['name', 'age'])
    assert.deepEqual(namesOf(define(insert({ id: 1, name: 'Rex' }))?.message), ['name'], 'the first was not stored')
    first!.stored()
    assert.equal(define(insert({ id: 1, name: 'Rex' })), undefined)
    assert.equal(define(remove(1)), undefined)
    assert.deepEqual(namesOf(define(insert({ id: 1, name: 'Rex', owner: 'Ida' }))?.message), ['owner'])
  })

  it('are defined in several messages if one would be too large, without those that no table has', async () => {
    const messages = await format()
    const names = Array.from({ length: 300 }, (_, index) => `${index}`.padStart(1_024, 'n'))
    const data = partOf([
      insert({ id: 1, ...Object.fromEntries(names.map((name) => [name, 1])), ['n'.repeat(1_025)]: 1 }),
    ])
    const defined: string[] = []
    for (let next = messages.aheadOf(place, data); next; next = messages.aheadOf(place, data)) {
      assert.ok(next.message.data.byteLength < 300_000)
      defined.push(...(bodyOf(next.message).attributes as { name: string }[]).map(({ name }) => name))
      next.stored()
    }
    assert.deepEqual(defined, names)
    const many = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`a${index}`, 1]))
    assert.equal(messages.aheadOf(place, partOf([insert({ id: 1, ...many })])), undefined, 'more than a table has')
  })
})

describe('times for HarperDB', () => {
  it('are in the order of the timestamps of a node, and are read as the same timestamps', () => {
    const times = new HarperTimes()
    const stamps = [0, 1, 4_095, 4_096, 9_000].map((counter) => makeTimestamp(now, counter, node))
    stamps.push(makeTimestamp(now + 1, 0, node), makeTimestamp(now + 1, 1, node), makeTimestamp(now + 9, 0, node))
    const ordered = stamps.map((each) => times.of(each))
    assert.deepEqual(
      [...new Set(ordered)].sort((a, b) => a - b),
      ordered,
    )
    assert.equal(times.of(stamps.at(-1)!), ordered.at(-1), 'the same again')
    assert.deepEqual(ordered.slice(0, 3), [now, now + 1 / 4_096, now + 4_095 / 4_096])
    assert.equal(ordered.at(-1), now + 9)
    assert.equal(times.of(makeTimestamp(now, 0, 'node2')), now)
  })
})
