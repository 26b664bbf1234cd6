// The pure parts of replication: timestamps, applied ranges, wire format, descriptions of streams.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { compareTimestamps, HybridClock, makeTimestamp, wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import type { Transaction, Write } from '../../lib/index.ts'
import type { Entry } from '../../lib/mesh/mesh.ts'
import { AppliedRangesBuilder, addRange, inRanges } from '../../lib/replication/applied-ranges.ts'
import {
  classifyGap,
  epochAfter,
  formatStreamMetadata,
  parseStreamMetadata,
  withPurge,
} from '../../lib/replication/stream-metadata.ts'
import {
  decode,
  encode,
  encodeHeaders,
  isReplicable,
  messageEpoch,
  messageId,
  partId,
  splitByTable,
  WireError,
} from '../../lib/replication/wire.ts'
import { recordsOf } from '../support/writes.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const timestamp = makeTimestamp(1_700_000_000_000, 0, 'node1')

describe('the clock', () => {
  it('returns timestamps that increase and sort as text, whatever the wall clock does', () => {
    let now = 1_000
    const clock = new HybridClock('node1', 5_000, () => now)
    const timestamps = [clock.timestamp(), clock.timestamp()]
    now = 500
    timestamps.push(clock.timestamp())
    now = 2_000
    timestamps.push(clock.timestamp())
    assert.deepEqual([...timestamps].sort(compareTimestamps), timestamps)
    assert.equal(new Set(timestamps).size, 4)
    assert.equal(wallTimeOf(timestamps[3]!), 2_000)
  })

  it('continues behind merged timestamps, and does not accept timestamps too far in the future', () => {
    const clock = new HybridClock('node1', 5_000, () => 1_000)
    clock.merge(makeTimestamp(4_000, 7, 'node2'))
    assert.ok(clock.timestamp() > makeTimestamp(4_000, 7, 'node2'))
    const far = makeTimestamp(6_001, 0, 'node2')
    assert.equal(clock.accepts(far), false)
    clock.merge(far)
    assert.ok(clock.timestamp() < far)
    clock.resume(far)
    assert.ok(clock.timestamp() > far)
  })

  it('continues in the next millisecond when the counter is exhausted', () => {
    const clock = new HybridClock('node1', 5_000, () => 1_000)
    const last = makeTimestamp(1_000, 0xffffff, 'node1')
    clock.merge(last)
    assert.ok(clock.timestamp() > last)
  })

  it('recognises invalid timestamps', () => {
    for (const text of ['', 'x', '2022-09-02T20:06:35.993Z', `${timestamp}`.slice(0, 19)])
      assert.ok(Number.isNaN(wallTimeOf(text)), text)
  })
})

describe('applied ranges', () => {
  it('contain exactly the added sequences, sorted and joined', () => {
    const range = fc.tuple(fc.nat(60), fc.nat(6)).map(([from, length]) => [from + 1, from + 1 + length] as const)
    fc.assert(
      fc.property(fc.array(range, { maxLength: 20 }), (added) => {
        const ranges = added.reduce<[number, number][]>((all, [from, to]) => addRange(all, from, to), [])
        for (let sequence = 0; sequence <= 70; sequence++) {
          const expected = added.some(([from, to]) => sequence >= from && sequence <= to)
          assert.equal(inRanges(ranges, sequence), expected)
        }
        for (const [index, [from, to]] of ranges.entries()) {
          assert.ok(from <= to)
          if (index > 0) assert.ok(from > ranges[index - 1]![1] + 1, 'adjacent ranges are joined')
        }
      }),
    )
  })

  it('are kept by origin and epoch, and the original is not changed', () => {
    const before = { node1: { a: [[1, 3]] as [number, number][] } }
    const builder = new AppliedRangesBuilder(before)
    for (const sequence of [4, 5, 9]) builder.add('node1', 'a', sequence)
    builder.add('node1', 'b', 1)
    assert.ok(builder.has('node1', 'b', 1) && builder.has('node1', 'a', 5) && !builder.has('node1', 'a', 6))
    assert.deepEqual(builder.result(), {
      node1: {
        a: [
          [1, 5],
          [9, 9],
        ],
        b: [[1, 1]],
      },
    })
    assert.deepEqual(before, { node1: { a: [[1, 3]] } })
  })
})

describe('the wire format', () => {
  const entryOf = (transaction: Transaction, writes: Write[], sequence = 1): Entry => ({
    data: encode(transaction, writes, 'node1'),
    headers: encodeHeaders(transaction, 'node1', 'epoch1'),
    sequence,
    delivery: 1,
    time: 0,
  })
  const roundTrip = (writes: Write[]): Write[] =>
    decode(source, entryOf({ id: 't1', timestamp, user: 'admin', writes }, writes)).writes

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

  it('preserves id, timestamp, user and origin', () => {
    const writes: Write[] = [{ operation: 'delete', ...dog, ids: [1, 'two', 3n] }]
    const decoded = decode(source, entryOf({ id: 't1', timestamp, user: 'admin', writes }, writes, 7))
    assert.deepEqual(decoded, {
      id: 't1',
      timestamp,
      user: 'admin',
      writes,
      origin: { node: 'node1', relayedBy: [], epoch: 'epoch1', index: 7 },
      sequence: 7,
      index: 7,
    })
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
    const writes: Write[] = [1, 2, 3].map((id) => ({ operation: 'upsert', ...dog, records: [{ id }] }))
    assert.deepEqual(roundTrip(writes), [{ operation: 'upsert', ...dog, records: [{ id: 1 }, { id: 2 }, { id: 3 }] }])
    assert.equal(recordsOf(writes[0]).length, 1)
  })

  it('rejects what is not a valid transaction of the table', () => {
    const good = entryOf({ id: 't1', timestamp, writes: [] }, [{ operation: 'insert', ...dog, records: [{ id: 1 }] }])
    const bad = (data: Uint8Array) => () => decode(source, { ...good, data })
    assert.throws(bad(Buffer.from('garbage')), WireError)
    assert.throws(bad(new Uint8Array([0xc1])), WireError)
    assert.throws(bad(new Uint8Array()), WireError)
    assert.throws(() => decode({ ...source, table: 'cat' }, good), WireError)
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (data) => {
        try {
          decode(source, { ...good, data })
        } catch (error) {
          assert.ok(error instanceof WireError, String(error))
        }
      }),
    )
  })

  it('rejects names that are invalid or too long in a header, wherever they occur', () => {
    const writes: Write[] = [{ operation: 'delete', ...dog, ids: [1] }]
    const origin = { node: 'node3', epoch: 'e3', index: 9, relayedBy: ['node3'] }
    const good = { id: 't1', timestamp, writes, origin }
    const read = (transaction: Transaction) => () => decode(source, entryOf(transaction, writes))
    assert.doesNotThrow(read({ ...good, origin: { ...origin, node: '__proto__', epoch: 'constructor' } }))
    for (const name of ['a\r\nb', 'a\nb', 'a,b', 'a b', '', 'n'.repeat(256)])
      for (const bad of [{ node: name }, { relayedBy: ['node3', name] }]) {
        const wire = encode({ ...good, origin: { ...origin, ...bad } }, writes, 'node1')
        const entry = { data: wire, headers: {}, sequence: 1, delivery: 1, time: 0 }
        assert.throws(() => decode(source, entry), WireError, JSON.stringify(bad).slice(0, 60))
      }
    for (const id of ['a\nb', 'x'.repeat(1_025)]) {
      const entry = { data: encode({ ...good, id }, writes, 'node1'), headers: {}, sequence: 1, delivery: 1, time: 0 }
      assert.throws(() => decode(source, entry), WireError)
    }
    assert.throws(read({ ...good, origin: { ...origin, relayedBy: Array.from({ length: 65 }, () => 'n') } }), WireError)
  })

  it('ignores epochs and ids that are too long, and limits the ids of parts', () => {
    const entry = (epoch: string, id: string): Entry => ({
      data: new Uint8Array(),
      headers: { epoch, 'Nats-Msg-Id': id },
      sequence: 1,
      delivery: 1,
      time: 0,
    })
    const [e, i] = ['e'.repeat(64), 'i'.repeat(1_024)]
    assert.deepEqual([messageEpoch(entry(e, i)), messageId(entry(e, i))], [e, i])
    assert.deepEqual([messageEpoch(entry(`${e}e`, i)), messageId(entry(e, `${i}i`))], ['', ''])
    assert.equal(partId('t1', dog), 't1:dev.dog')
    const long = partId(i, dog)
    assert.match(long, /^[0-9a-f]{64}$/)
    assert.notEqual(partId(i, { ...dog, table: 'cat' }), long)
  })

  it('splits a transaction by table, in the order in which the tables occur', () => {
    const cat = { database: 'dev', table: 'cat' }
    const writes: Write[] = [dog, cat, dog].map((table, id) => ({ operation: 'insert', ...table, records: [{ id }] }))
    assert.deepEqual(splitByTable({ id: 't', timestamp, writes }), [
      { table: dog, writes: [writes[0], writes[2]] },
      { table: cat, writes: [writes[1]] },
    ])
    assert.deepEqual(splitByTable({ id: 't', timestamp, writes: [] }), [])
  })

  it('recognises names that cannot be part of a subject', () => {
    for (const table of ['two words', 'a.b', '*', '>', '', 'tab\t', 'nul\u0000'])
      assert.equal(isReplicable({ database: 'dev', table }), false, table)
    assert.ok(isReplicable({ database: 'dev', table: 'Größe_1-$' }))
  })
})

describe('the description of a stream', () => {
  const epochs = [
    { epoch: 'a1', from: 1, last: 100 },
    { epoch: 'b2', from: 81 },
  ]

  it('contains the epochs and the purged ranges', () => {
    const metadata = { epochs, purged: [[1, 5] as [number, number], [90, 95] as [number, number]] }
    assert.deepEqual(parseStreamMetadata(formatStreamMetadata(dog, metadata)), metadata)
    assert.deepEqual(parseStreamMetadata('some other stream'), { epochs: [], purged: [] })
    const purged = Array.from({ length: 40 }, (_, index): [number, number] => [10 * index + 1, 10 * index + 5])
    assert.ok(formatStreamMetadata(dog, { epochs, purged }).length < 1000, 'its length is limited')
  })

  it('shows the epoch of a sequence', () => {
    const metadata = parseStreamMetadata('dev.dog epoch=a1@1..100 epoch=b2@81')
    assert.deepEqual(
      [0, 79, 80, 200].map((sequence) => epochAfter(metadata, sequence)),
      ['a1', 'a1', 'b2', 'b2'],
    )
    assert.equal(epochAfter(parseStreamMetadata(''), 5), '')
  })

  it('shows why messages are gone', () => {
    const metadata = withPurge(withPurge(withPurge({ epochs, purged: [] }, 11, 20), 21, 30), 41, 50)
    const texts = (from: number, to: number, first = 1000) =>
      classifyGap(metadata, from, to, first)
        .map((gap) => `${gap.from}-${gap.to} ${gap.reason}`)
        .join(', ')
    assert.equal(texts(1, 60), '1-10 expired, 11-30 purged, 31-40 expired, 41-50 purged, 51-60 expired')
    assert.equal(texts(15, 25), '15-25 purged')
    assert.equal(texts(30, 31), '30-30 purged, 31-31 expired')
    assert.equal(texts(51, 60, 1), '51-60 purged', 'retention removes only the oldest messages')
    assert.deepEqual(classifyGap(parseStreamMetadata(''), 1, 3, 9), [{ from: 1, to: 3, reason: 'purged' }])
  })
})
