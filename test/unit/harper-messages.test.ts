// Messages of HarperDB in all their shapes: each write of a subscribed table is decoded, and what is not applied is named.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseHeaders } from '../../lib/mesh/nats/header-reader.ts'
import { decodeMessage, decodeStored, encodeFrame, Frame } from '../../lib/replication/wire/frame.ts'
import { MissingTableError, type TableLookup } from '../../lib/replication/wire/message-chain.ts'
import { WireError } from '../../lib/replication/wire/names.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { checkDecodeLimits } from '../../lib/util/decode-limits.ts'
import { harperAttributes, harperPack, harperTransaction } from '../support/harper-messages.ts'

const database = 'dev'
const dog = { database, table: 'dog' }
const cat = { database, table: 'cat' }
const source = { node: 'node5', ...dog }
const origin = { node: 'node5', timestamp: 1_795_730_086_045.879_6 }
/** The table `cat` has another primary key; `bird` is not subscribed, and `fish` is and does not exist here. */
const tables: TableLookup = {
  primaryKeyOf: (table) => ({ dog: 'id', cat: 'name', bird: 'id' })[table],
  isSubscribed: (table) => table !== 'bird',
}
const entryOf = (data: Uint8Array) => ({ data, headers: { 'Nats-Msg-Id': 'm1' }, sequence: 7, delivery: 1, time: 5 })
const decode = (value: object, lookup: TableLookup | undefined = tables) =>
  decodeMessage(source, Frame.read(entryOf(harperPack(value))).part(0), lookup)
const writesOf = (value: object) => decode(value).transaction.writes

describe('a message of HarperDB', () => {
  it('is a transaction with values of all types', () => {
    const records = [
      {
        id: 1,
        name: 'Rex',
        born: new Date(5),
        photo: Buffer.from('ab'),
        n: 70,
        none: null,
        nested: { a: [1, { b: 2 }] },
      },
      { id: 2, name: 'Ida', big: 2n ** 60n, gone: undefined },
    ]
    const value = harperTransaction(
      database,
      origin,
      ...records.map((record) => ({ operation: 'upsert' as const, table: 'dog', id: record.id, record })),
    )
    const { transaction } = decode(value)
    assert.deepEqual(transaction, {
      id: 'm1',
      timestamp: '01a219da989d-000e13-node5',
      user: 'admin',
      writes: [{ operation: 'upsert', ...dog, records }],
      origin: { node: 'node5', relayedBy: [], epoch: '', index: 7 },
      sequence: 7,
      index: 7,
    })
  })

  it('is read from the bytes that msgpackr writes by default', () => {
    // Two rows as one record definition and its use, and a chain of two with different keys.
    const bytes = Buffer.from(
      'd4724097a96f7065726174696f6ea6736368656d61a57461626c65a85f5f6f726967696eab686173685f76616c756573a772' +
        '65636f726473a46e657874a6757073657274a3646576a3646f67d4724193a475736572a974696d657374616d70a96e6f6465' +
        '5f6e616d65a561646d696ecb427a219da989de13a56e6f64653592010292d4724292a26964a4626f726e01d7ff01312d0000' +
        '0000004202d7ff016e360000000000d4724395a96f7065726174696f6ea57461626c65a26964a67265636f7264a46e657874' +
        'a57061746368a3636174a3546f6dd4724491a361676504d4724594a96f7065726174696f6ea57461626c65a26964a6726563' +
        '6f7264a664656c657465a3636174a34f6c64d40000',
      'hex',
    )
    const { timestamp, writes } = decodeMessage(source, Frame.read(entryOf(bytes)).part(0), tables).transaction
    assert.equal(timestamp, '01a219da989d-000e13-node5')
    assert.deepEqual(writes, [
      {
        operation: 'upsert',
        ...dog,
        records: [
          { id: 1, born: new Date(5) },
          { id: 2, born: new Date(6) },
        ],
      },
      { operation: 'update', ...cat, records: [{ name: 'Tom', age: 4 }] },
      { operation: 'delete', ...cat, ids: ['Old'] },
    ])
  })

  it('keeps times within a millisecond apart, in their order', () => {
    // The steps of HarperDB's clock are 0.000488 ms.
    const times = Array.from({ length: 400 }, (_, step) => 1_795_730_086_045 + step * 0.000_488)
    const timestamps = times.map(
      (timestamp) => decode(harperAttributes(database, 'dog', { ...origin, timestamp }, [])).transaction.timestamp,
    )
    const distinct = new Set(times)
    assert.ok(distinct.size > 200)
    assert.equal(new Set(timestamps).size, distinct.size)
    assert.deepEqual([...timestamps].sort(), timestamps)
  })

  it('with a patch is an update with the key put in', () => {
    const patch = { operation: 'patch' as const, table: 'dog', id: 1, record: { n: 2 } }
    const expected = [{ operation: 'update', ...dog, records: [{ id: 1, n: 2 }] }]
    assert.deepEqual(writesOf(harperTransaction(database, origin, patch)), expected)
    const [, second] = writesOf(
      harperTransaction(database, origin, { ...patch, operation: 'upsert', record: { id: 1 } }, patch),
    )
    assert.deepEqual([second], expected)
  })

  it('with a chain writes several rows, also of other tables of the database', () => {
    const value = harperTransaction(
      database,
      origin,
      { operation: 'upsert', table: 'dog', id: 1, record: { id: 1 } },
      { operation: 'upsert', table: 'dog', id: 2, record: { id: 2 } },
      { operation: 'delete', table: 'dog', id: 3 },
      { operation: 'patch', table: 'cat', id: 'Tom', record: { age: 4 } },
      { operation: 'upsert', table: 'cat', id: 'Kit', record: { name: 'Kit' } },
      { operation: 'delete', table: 'cat', id: 'Old' },
    )
    assert.deepEqual(writesOf(value), [
      { operation: 'upsert', ...dog, records: [{ id: 1 }, { id: 2 }] },
      { operation: 'delete', ...dog, ids: [3] },
      { operation: 'update', ...cat, records: [{ name: 'Tom', age: 4 }] },
      { operation: 'upsert', ...cat, records: [{ name: 'Kit' }] },
      { operation: 'delete', ...cat, ids: ['Old'] },
    ])
  })

  it('names the writes to tables that are not subscribed, and does not contain them', () => {
    const value = harperTransaction(
      database,
      origin,
      { operation: 'upsert', table: 'dog', id: 1, record: { id: 1 } },
      { operation: 'upsert', table: 'bird', id: 1, record: { id: 1 } },
      { operation: 'delete', table: 'bird', id: 2 },
    )
    const { transaction, extras } = decode(value)
    assert.deepEqual(transaction.writes, [{ operation: 'upsert', ...dog, records: [{ id: 1 }] }])
    assert.deepEqual(extras!.notSubscribed, new Map([['bird', 2]]))
  })

  it('cannot be decoded yet when it writes a subscribed table that does not exist here', () => {
    const fish = { operation: 'upsert' as const, table: 'fish', id: 1, record: { id: 1 } }
    const value = harperTransaction(database, origin, { ...fish, table: 'dog' }, fish)
    assert.throws(() => decode(value), MissingTableError)
  })

  it('names operations that cannot be applied, and contains the other writes', () => {
    const put = { operation: 'upsert' as const, table: 'dog', id: 1, record: { id: 1 } }
    const value = harperTransaction(
      database,
      origin,
      put,
      { ...put, operation: 'publish' },
      { ...put, operation: 'invalidate' },
    )
    const { transaction, extras } = decode(value)
    assert.deepEqual(extras!.unsupported, ['publish', 'invalidate'])
    assert.deepEqual(transaction.writes, [{ operation: 'upsert', ...dog, records: [{ id: 1 }] }])
  })

  it('may define attributes', () => {
    const { transaction, extras } = decode(harperAttributes(database, 'dog', origin, ['age', 'name']))
    assert.deepEqual([transaction.writes, extras!.attributes], [[], new Map([['dog', ['age', 'name']]])])
  })

  it('may define many attributes in many links', () => {
    const define = { operation: 'define_schema', table: 'dog', attributes: ['a'] }
    const next = Array.from({ length: 400 }).reduce<object>((rest) => ({ ...define, next: rest }), define)
    const attributes = Array.from({ length: 400_000 }, () => 'a')
    const data = harperPack({ ...harperAttributes(database, 'dog', origin, []), attributes, next })
    const started = performance.now()
    const { extras } = decodeMessage(source, Frame.read(entryOf(data)).part(0), tables)
    assert.equal(extras!.attributes.get('dog')!.length, attributes.length + 401)
    assert.ok(performance.now() - started < 2_000, 'the list is not copied for each link')
  })

  it('is invalid with a key that is no primary key, or of another database', () => {
    const put = { operation: 'upsert' as const, table: 'dog', id: 1, record: { id: 1 } }
    assert.throws(() => decode(harperTransaction(database, origin, { ...put, id: [1, 2] })), WireError)
    assert.throws(() => decode(harperTransaction(database, origin, put, { ...put, table: 'cat', id: null })), WireError)
    assert.throws(() => decode(harperTransaction('other', origin, put)), /a write to 'other.dog'/)
    assert.throws(
      () => decode({ ...harperTransaction(database, origin, put), next: { ...put, schema: 'other' } }),
      WireError,
    )
    const ahead = { ...origin, timestamp: 2 ** 48 }
    assert.throws(() => decode(harperTransaction(database, ahead, put)), WireError)
  })

  it('names the nodes that relayed it in one header line for each', () => {
    const headers = parseHeaders(
      Buffer.from(
        'NATS/1.0\r\ntransacted_nodes: node5\r\norigin: node6\r\ntransacted_nodes: node6\r\norigin: x\r\n\r\n',
      ),
    )
    assert.deepEqual(headers, { transacted_nodes: 'node5,node6', origin: 'node6' })
    const put = { operation: 'upsert' as const, table: 'dog', id: 1, record: { id: 1 } }
    const entry = { ...entryOf(harperPack(harperTransaction(database, origin, put))), headers }
    assert.deepEqual(decodeStored(source, Frame.read(entry).part(0)).origin.relayedBy, ['node6'])
  })

  it('may have the headers of a frame', () => {
    const headers = { origin: 'node5', epoch: 'e1', v: '1', first: '30', count: '1' }
    const put = { operation: 'upsert' as const, table: 'dog', id: 1, record: { id: 1 } }
    const frame = Frame.read({ ...entryOf(harperPack(harperTransaction(database, origin, put))), headers })
    assert.deepEqual([frame.fault, decodeStored(source, frame.part(0)).index], [undefined, 30])
  })
})

describe('a relayed transaction of a stream without epochs', () => {
  it('has no running number, which could be used again', () => {
    const relayed = {
      id: 't1',
      timestamp: '01a219d895de-000130-node5',
      writes: [{ operation: 'delete' as const, ...dog, ids: [1] }],
      origin: { node: 'node5', epoch: '', index: 7, relayedBy: ['node2'] },
    }
    const data = encodePart(relayed, relayed.writes, 'node2')
    const message = encodeFrame({ node: 'node2', epoch: 'e2', first: 1 }, [data])
    const frame = Frame.read({ ...message, sequence: 1, delivery: 1, time: 5 })
    const { origin } = decodeStored({ ...source, node: 'node2' }, frame.part(0))
    assert.deepEqual(origin, { node: 'node5', relayedBy: ['node2'] })
  })
})

describe('records', () => {
  /** Objects without keys: each is one byte. */
  const bomb = (bytes: number) => {
    const data = Buffer.alloc(bytes, 0x41)
    data[0] = 0xdd
    data.writeUInt32BE(bytes - 9, 1)
    // The definition and its first object.
    data.set([0xd4, 0x72, 0x41, 0x90], 5)
    return data
  }

  it('count as containers, and their definitions as more', () => {
    assert.equal(checkDecodeLimits(bomb(400_000)), undefined)
    assert.match(checkDecodeLimits(bomb(600_000)) ?? '', /more than 4194304 values/)
    const numbers = bomb(600_000).fill(0x42, 9)
    assert.equal(checkDecodeLimits(numbers), undefined, 'an integer is one value')
    const definition = [0xd4, 0x72, 0x41, 0x91, 0xa1, 0x61, 0x01]
    const definitions = Buffer.alloc(700_000, Buffer.from(definition))
    assert.match(checkDecodeLimits(definitions) ?? '', /more than 4194304 values/)
  })

  it('of a large transaction are within the limit', () => {
    const rows = Array.from({ length: 20_000 }, (_, id) => ({
      operation: 'upsert' as const,
      table: 'dog',
      id,
      record: { id, name: `dog ${id}`, n: 70 },
    }))
    const [write] = writesOf(harperTransaction(database, origin, ...rows))
    assert.ok(write?.operation === 'upsert' && write.records.length === 20_000)
  })
})
