// The format of stream messages: what is encoded is decoded, and nothing else is, whatever the message is.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Packr } from 'msgpackr'
import type { Transaction, Write } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import type { Entry } from '../../lib/mesh/mesh.ts'
import {
  decodeStored,
  encodeFrame,
  Frame,
  MAX_FRAME_BYTES,
  MAX_FRAME_TRANSACTIONS,
  MessageVersionError,
  storedId,
} from '../../lib/replication/wire/frame.ts'
import { frameId } from '../../lib/replication/wire/message-ids.ts'
import { isReplicable, partId, WireError } from '../../lib/replication/wire/names.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { splitByTable } from '../../lib/replication/wire/writes.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'
import { recordsOf } from '../support/writes.ts'

const seed = seedOf()
console.log(`SEED=${seed}`)
const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const time = 1_700_000_000_000
const timestamp = makeTimestamp(time, 0, 'node1')
const packr = new Packr({ useRecords: false, mapsAsObjects: true, useBigIntExtension: true, moreTypes: true })

const encode = (transaction: Transaction) => encodePart(transaction, transaction.writes, 'node1')
const received = (message: Pick<Entry, 'data' | 'headers'>, sequence = 1): Entry => ({
  ...message,
  sequence,
  delivery: 1,
  time: 5,
})
const entryOf = (transactions: readonly Transaction[], { first = 1, sequence = 1 } = {}): Entry =>
  received(encodeFrame({ node: 'node1', epoch: 'epoch1', first }, transactions.map(encode)), sequence)
const decodeAll = (entry: Entry) => {
  const frame = Frame.read(entry)
  assert.equal(frame.fault, undefined)
  return Array.from({ length: frame.count }, (_, offset) => {
    const decoded = frame.decode(source, offset)
    assert.deepEqual(decodeStored(source, frame.part(offset)), decoded)
    return decoded
  })
}
const put = (id: unknown): Write => ({ operation: 'upsert', ...dog, records: [{ id }] })
const transaction = (id: string, writes: Write[] = [put(id)]): Transaction => ({ id, timestamp, writes })
const roundTrip = (writes: Write[]): Write[] =>
  decodeAll(entryOf([{ ...transaction('t1', writes), user: 'admin' }]))[0]!.writes

describe('a part', () => {
  it('preserves values', () => {
    const record = {
      id: 1,
      nested: { list: [1, { deep: null }, [true]], empty: {} },
      text: 'Zürich 東京 🐕',
      large: 'x'.repeat(1_000_000),
      when: new Date('2022-09-02T20:06:35.993Z'),
      bytes: Buffer.from([0, 1, 255]),
      big: 2n ** 80n,
      int64: 9_007_199_254_740_993n,
      number: 1.5e300,
      missing: undefined,
    }
    const [write] = roundTrip([{ operation: 'insert', ...dog, records: [record] }])
    assert.deepEqual(recordsOf(write)[0], record)
  })

  it('preserves the types of binary values', () => {
    const record = {
      id: 1,
      buffer: Buffer.from([1, 2]),
      bytes: new Uint8Array([0, 255]),
      doubles: new Float64Array([0, 1.5, 1e300]).subarray(1),
      words: new Uint16Array([1, 258]),
      longs: new BigInt64Array([-5n]),
      raw: new Uint8Array([1, 2, 3]).buffer,
      set: new Set([1, 'two']),
    }
    const [write] = roundTrip([{ operation: 'insert', ...dog, records: [record] }])
    assert.deepStrictEqual(recordsOf(write), [record])
  })

  it('converts other values as the README says', () => {
    const record = { zero: -0, map: new Map([['a', 1]]), ['__proto__']: 1 }
    const [write] = roundTrip([{ operation: 'insert', ...dog, records: [record] }])
    assert.deepStrictEqual(recordsOf(write), [{ zero: 0, map: { a: 1 }, __proto_: 1 }])
  })

  it('preserves the order of many alternating writes', () => {
    const writes: Write[] = Array.from({ length: 500 }, (_, id) =>
      id % 2 === 0
        ? { operation: 'insert', ...dog, records: [{ id }] }
        : { operation: 'delete', ...dog, ids: [id - 1] },
    )
    assert.deepEqual(roundTrip(writes), writes)
  })

  it('joins adjacent writes of the same operation without changing the originals', () => {
    const writes: Write[] = [1, 2, 3].map(put)
    assert.deepEqual(roundTrip(writes), [{ operation: 'upsert', ...dog, records: [{ id: 1 }, { id: 2 }, { id: 3 }] }])
    assert.equal(recordsOf(writes[0]).length, 1)
  })

  it('of the source has the epoch of its message and its own index; of another node, those of its origin', () => {
    const relayed = {
      ...transaction('t2'),
      origin: { node: 'node3', epoch: 'e3', index: 9, relayedBy: ['node2', 'node1'] },
    }
    const unknown = { ...transaction('t3'), origin: { node: 'node4', relayedBy: ['node1'] } }
    const decoded = decodeAll(
      entryOf([{ ...transaction('t1'), user: 'admin' }, relayed, unknown], { first: 41, sequence: 7 }),
    )
    assert.deepEqual(decoded[0], {
      id: 't1',
      timestamp,
      user: 'admin',
      writes: [put('t1')],
      origin: { node: 'node1', relayedBy: [], epoch: 'epoch1', index: 41 },
      sequence: 7,
      index: 41,
    })
    assert.deepEqual(
      decoded.slice(1).map(({ origin, index, sequence }) => ({ origin, index, sequence })),
      [
        { origin: relayed.origin, index: 42, sequence: 7 },
        { origin: unknown.origin, index: 43, sequence: 7 },
      ],
    )
  })

  it('has its own trace context; an invalid one is dropped', () => {
    const trace = { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' }
    const decoded = decodeAll(
      entryOf([
        { ...transaction('t1'), trace },
        transaction('t2'),
        { ...transaction('t3'), trace: { traceparent: 'x' } },
      ]),
    )
    assert.deepEqual(
      decoded.map((each) => each.trace),
      [trace, undefined, undefined],
    )
  })

  it('has the timestamp of any node', () => {
    const origin = { node: 'node3', relayedBy: ['node3'] }
    for (const issuer of ['node1', 'node2', 'node3', 'n'.repeat(255), '東京'])
      for (const counter of [0, 127, 128, 0xffffff])
        for (const each of [{}, { origin }, { voids: { node: 'node2', from: timestamp, to: timestamp } }]) {
          const given = { ...transaction('t1'), timestamp: makeTimestamp(time + 5, counter, issuer), ...each }
          assert.equal(decodeAll(entryOf([given]))[0]!.timestamp, given.timestamp)
        }
    assert.throws(() => encode({ ...transaction('t1'), timestamp: 'yesterday' }), /timestamp 'yesterday' is invalid/)
  })

  it('voids timestamps of the node that committed it only', () => {
    const voids = { node: 'node1', from: timestamp, to: timestamp }
    const read = (each: Transaction) => decodeAll(entryOf([each]))[0]!.voids
    assert.deepEqual(read({ ...transaction('t1'), voids }), voids)
    assert.equal(read({ ...transaction('t1'), voids, origin: { node: 'node2', relayedBy: ['node1'] } }), undefined)
  })

  it('is rejected when it is no valid transaction', () => {
    const good = Frame.read(entryOf([transaction('t1')])).part(0)
    const bad = (data: Uint8Array) => () => decodeStored(source, { ...good, data })
    const values = [
      {},
      [],
      ['t1', time, 0, null, [2, [{ id: 1 }]]],
      ['', time, 0, null, [], null],
      ['t1', 'yesterday', 0, null, [], null],
      ...[-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 48].map((each) => ['t1', each, 0, null, [], null]),
      ...[-1, 0.5, Number.NaN, 2 ** 24].map((each) => ['t1', time, each, null, [], null]),
      ...['', 'a b', 'n'.repeat(256)].map((issuer) => ['t1', time, 0, null, [], { issuer }]),
      ['t1', time, 0, null, [4, [{ id: 1 }]], null],
      ['t1', time, 0, null, [2], null],
      ['t1', time, 0, null, [2, [7]], null],
      ['t1', time, 0, null, [3, [{ id: 1 }]], null],
      ['t1', time, 0, null, ['constructor', [{ id: 1 }]], null],
      ['t1', time, 0, null, [], { voids: { node: 'a' } }],
      ['t1', time, 0, null, [], null, 'more'],
    ]
    for (const value of values) assert.throws(bad(packr.pack(value)), WireError, JSON.stringify(value))
    for (const data of [Buffer.from('garbage'), new Uint8Array([0xc1]), new Uint8Array()])
      assert.throws(bad(data), WireError)
  })

  it('is rejected with names that are invalid or too long, wherever they occur', () => {
    const origin = { node: 'node3', epoch: 'e3', index: 9, relayedBy: ['node3'] }
    const good = { ...transaction('t1'), origin }
    const read = (each: Transaction) => () => decodeAll(entryOf([each]))
    assert.doesNotThrow(read({ ...good, origin: { ...origin, node: '__proto__', epoch: 'constructor' } }))
    for (const name of ['a\r\nb', 'a\nb', 'a,b', 'a b', '', 'n'.repeat(256)])
      for (const bad of [{ node: name }, { relayedBy: ['node3', name] }])
        assert.throws(read({ ...good, origin: { ...origin, ...bad } }), WireError, JSON.stringify(bad).slice(0, 60))
    for (const id of ['a\nb', 'x'.repeat(1_025)]) assert.throws(read({ ...good, id }), WireError)
    assert.throws(read({ ...good, origin: { ...origin, relayedBy: Array.from({ length: 65 }, () => 'n') } }), WireError)
  })
})

describe('a frame', () => {
  it('has its parts in order, each with its index and id', () => {
    const property = fc.property(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 1e9 }), (count, first) => {
      const ids = Array.from({ length: count }, (_, offset) => `t${first + offset}`)
      const entry = entryOf(
        ids.map((id) => transaction(id)),
        { first, sequence: 9 },
      )
      const frame = Frame.read(entry)
      assert.deepEqual(
        [frame.sequence, frame.epoch, frame.first, frame.last, frame.count, frame.fault],
        [9, 'epoch1', first, first + count - 1, count, undefined],
      )
      assert.equal(entry.headers['Nats-Msg-Id'], frameId('epoch1', first, count))
      for (const [offset, { id, index }] of decodeAll(entry).entries()) {
        assert.deepEqual([id, index, frame.idAt(offset)], [ids[offset], first + offset, id])
        assert.equal(storedId(frame.part(offset)), id)
      }
    })
    fc.assert(property, { seed, numRuns: 50 })
  })

  it('with one bad part has all others', () => {
    const parts = ['t1', 't2', 't3'].map((id) => encode(transaction(id)))
    parts[1] = Buffer.from('garbage')
    const frame = Frame.read(received(encodeFrame({ node: 'node1', epoch: 'e', first: 5 }, parts)))
    assert.deepEqual([frame.fault, frame.idAt(0), frame.idAt(1), frame.idAt(2)], [undefined, 't1', '', 't3'])
    assert.throws(() => decodeStored(source, frame.part(1)), WireError)
    assert.equal(decodeStored(source, frame.part(2)).index, 7)
  })

  it('is unreadable as a whole when body and headers disagree, with the range that its headers name', () => {
    const good = entryOf([transaction('t1'), transaction('t2')], { first: 5 })
    const read = (change: Partial<Record<string, string>>, data = good.data) => {
      const { fault, first, count } = Frame.read({
        ...good,
        data,
        headers: { ...good.headers, ...change } as Entry['headers'],
      })
      return { isUnreadable: fault !== undefined, first, count }
    }
    assert.deepEqual(read({}), { isUnreadable: false, first: 5, count: 2 })
    for (const count of ['1', '3', '4096'])
      assert.deepEqual(read({ count }), { isUnreadable: true, first: 5, count: Number(count) })
    for (const count of ['0', '-1', '1.5', '1e3', '', 'two', '99999999999999999'])
      assert.deepEqual(read({ count }), { isUnreadable: true, first: 5, count: 1 }, count)
    assert.deepEqual(read({ count: `${MAX_FRAME_TRANSACTIONS + 1}` }), { isUnreadable: true, first: 5, count: 1 })
    for (const first of ['0', '-4', '', 'x', '1e3'])
      assert.deepEqual(read({ first }), { isUnreadable: true, first: undefined, count: 1 })
    for (const epoch of ['', 'e'.repeat(65)]) assert.equal(read({ epoch }).isUnreadable, true)
    const bodies = [
      new Uint8Array(),
      Buffer.from('garbage'),
      packr.pack([1, 2]),
      packr.pack('text'),
      packr.pack(['a', 'b']),
    ]
    for (const data of bodies) assert.deepEqual(read({}, data), { isUnreadable: true, first: 5, count: 2 })
  })

  it('of several transactions has a limited size, so that its decoding has a limited cost; one transaction has not', () => {
    const large = transaction('t1', [put('x'.repeat(MAX_FRAME_BYTES))])
    assert.match(Frame.read(entryOf([large, transaction('t2')])).fault!, /2 transactions in more than/)
    assert.equal(Frame.read(entryOf([large])).fault, undefined)
  })

  it('of another version is not read', () => {
    const good = entryOf([transaction('t1')])
    for (const v of ['2', '0', 'x', ''])
      assert.throws(() => Frame.read({ ...good, headers: { ...good.headers, v } }), MessageVersionError)
    assert.throws(
      () => Frame.read({ ...good, sequence: 12, headers: { ...good.headers, v: '2' } }),
      /message 12 has version '2', this node reads version 1/,
    )
  })

  it('of any bytes and headers is read, or a WireError is thrown', () => {
    const header = fc.option(fc.oneof(fc.constantFrom('1', '2', '0', '5000', 'e1'), fc.string({ maxLength: 70 })), {
      nil: undefined,
    })
    const headers = fc.record({ epoch: header, first: header, count: header, origin: header, 'Nats-Msg-Id': header })
    const data = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 5 }).map((parts) => packr.pack(parts)),
    )
    const property = fc.property(data, headers, fc.boolean(), (data, headers, hasVersion) => {
      const given = Object.fromEntries(
        Object.entries(headers).filter(([, value]) => value !== undefined),
      ) as Entry['headers']
      const frame = Frame.read(received({ data, headers: { ...given, ...(hasVersion && { v: '1' }) } }))
      assert.ok(frame.count >= 1)
      for (let offset = 0; frame.fault === undefined && offset < frame.count; offset++) {
        assert.equal(typeof frame.idAt(offset), 'string')
        try {
          frame.decode(source, offset)
        } catch (error) {
          assert.ok(error instanceof WireError, String((error as Error).stack))
        }
      }
    })
    fc.assert(property, { seed, numRuns: 3_000 })
  })
})

describe('a message of HarperDB', () => {
  const body = {
    operation: 'upsert',
    schema: 'dev',
    table: 'dog',
    records: [{ id: 1 }],
    next: { operation: 'delete', schema: 'dev', table: 'dog', hash_values: [2] },
    __origin: { timestamp: 1_700_000_000_000, node_name: 'node1', user: 'admin' },
  }
  const entry = (value: object, headers: Entry['headers'] = { 'Nats-Msg-Id': 'm7' }) =>
    received({ data: packr.pack(value), headers }, 7)

  it('is one transaction, whose index is its sequence', () => {
    const frame = Frame.read(entry(body))
    assert.deepEqual([frame.epoch, frame.first, frame.count, frame.idAt(0)], ['', 7, 1, 'm7'])
    assert.deepEqual(decodeAll(entry(body)), [
      {
        id: 'm7',
        timestamp,
        user: 'admin',
        writes: [put(1), { operation: 'delete', ...dog, ids: [2] }],
        origin: { node: 'node1', relayedBy: [], epoch: '', index: 7 },
        sequence: 7,
        index: 7,
      },
    ])
    const [relayed] = decodeAll(entry(body, { 'Nats-Msg-Id': 'm7', transacted_nodes: 'node1,node2' }))
    assert.deepEqual(relayed!.origin.relayedBy, ['node2'])
  })

  it('with the headers of a frame has the epoch and index of its headers', () => {
    const headers = { 'Nats-Msg-Id': 'm7', origin: 'node1', epoch: 'e1', v: '1', first: '30', count: '1' }
    const [decoded] = decodeAll(entry(body, headers))
    assert.deepEqual([decoded!.origin.epoch, decoded!.index, decoded!.origin.index], ['e1', 30, 30])
    assert.match(Frame.read(entry(body, { ...headers, count: '2' })).fault!, /one transaction/)
  })

  it('is rejected when it is no transaction of the table', () => {
    const part = (value: object, headers?: Entry['headers']) => Frame.read(entry(value, headers)).part(0)
    for (const value of [
      {},
      { ...body, table: 'cat' },
      { ...body, __origin: undefined },
      { ...body, next: { table: 'dog' } },
    ])
      assert.throws(() => decodeStored(source, part(value)), WireError)
    assert.throws(() => decodeStored(source, part(body, { transacted_nodes: 'a b' })), WireError)
    assert.equal(Frame.read(entry(body, { 'Nats-Msg-Id': 'i'.repeat(1_025) })).idAt(0), '')
  })
})

describe('names', () => {
  it('of parts are limited', () => {
    const long = 'i'.repeat(1_024)
    assert.equal(partId('t1', dog), 't1:dev.dog')
    assert.match(partId(long, dog), /^[0-9a-f]{64}$/)
    assert.notEqual(partId(long, { ...dog, table: 'cat' }), partId(long, dog))
  })

  it('that cannot be part of a subject are recognised', () => {
    for (const table of ['two words', 'a.b', '*', '>', '', 'tab\t', 'nul\u0000'])
      assert.equal(isReplicable({ database: 'dev', table }), false, table)
    assert.ok(isReplicable({ database: 'dev', table: 'Größe_1-$' }))
  })
})

it('a transaction is split by table, in the order in which the tables occur', () => {
  const cat = { database: 'dev', table: 'cat' }
  const writes: Write[] = [dog, cat, dog].map((table, id) => ({ operation: 'insert', ...table, records: [{ id }] }))
  assert.deepEqual(splitByTable({ id: 't', timestamp, writes }), [
    { table: dog, writes: [writes[0], writes[2]] },
    { table: cat, writes: [writes[1]] },
  ])
  assert.deepEqual(splitByTable({ id: 't', timestamp, writes: [] }), [])
})
