// Rows and primary keys as bytes and as text: every value that a database holds survives, and invalid bytes are clear errors.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Packr } from 'msgpackr'
import type { KeyedRow, PrimaryKey } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { keyIdentity } from '../../lib/replication/copy/key-identity.ts'
import { keyOfText, keyText } from '../../lib/replication/copy/key-text.ts'
import {
  decodeKey,
  decodeKeys,
  decodePage,
  decodeRow,
  encodeKey,
  encodeKeys,
  encodePage,
  encodeRow,
  RowPageError,
} from '../../lib/replication/copy/row-page.ts'
import fc from '../support/properties.ts'

const packr = new Packr({ useRecords: false, mapsAsObjects: true, useBigIntExtension: true })
const at = makeTimestamp(5, 0, 'node1')

const plain = { noNullPrototype: true } as const
/** MessagePack has no -0, which is the same number. */
const double = (limits: fc.DoubleConstraints) =>
  fc.double({ noNaN: true, ...limits }).map((each) => (each === 0 ? 0 : each))
const key = fc.oneof<fc.Arbitrary<PrimaryKey>[]>(
  fc.string({ unit: 'grapheme' }),
  double({ noDefaultInfinity: true }),
  fc.integer(),
  fc.bigInt(),
)
const value = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  double({}),
  fc.bigInt(),
  fc.boolean(),
  fc.constant(null),
  fc.date({ noInvalidDate: true }),
  fc.uint8Array().map((bytes) => Buffer.from(bytes)),
  fc.array(fc.string()),
  fc.record({ nested: fc.integer(), date: fc.date({ noInvalidDate: true }) }, plain),
)
const name = fc.string({ minLength: 1 }).filter((text) => text !== '__proto__')
const timestamp = fc.nat().map((time) => makeTimestamp(time, 0, 'node1'))
const record = fc.dictionary(name, value, plain)
const row: fc.Arbitrary<KeyedRow> = fc.record(
  {
    key,
    row: fc.oneof(
      fc.record({ timestamp }, plain),
      fc.record({ timestamp, record }, plain),
      fc.record(
        { timestamp: fc.oneof(timestamp, fc.constant('')), record, updated: fc.dictionary(name, timestamp, plain) },
        plain,
      ),
    ),
  },
  plain,
)

describe('primary keys', () => {
  it('survive as text in JSON, and as bytes, with their types', () => {
    fc.assert(
      fc.property(key, (each) => {
        assert.deepStrictEqual(keyOfText(JSON.parse(JSON.stringify(keyText(each)))), each)
        const onWire = each === 0 ? 0 : each
        assert.deepStrictEqual(decodeKey(encodeKey(each)), onWire)
        assert.deepStrictEqual(decodeKeys(encodeKeys([each, each])), [onWire, onWire])
      }),
      { examples: [['1'], [1], [1n], [-0], ['1n'], [''], ['n1'], [2 ** 53], [2n ** 64n], [1e300], [5e-324]] },
    )
  })

  it('of different types have different texts', () => {
    assert.equal(new Set(['1', 1, 1n].map(keyText)).size, 3)
    for (const text of ['', 'x1', 'i1.5', 'n', 'nInfinity', 'none'])
      assert.throws(() => keyOfText(text), /text of a primary key/)
  })

  it('have one identity for one integer, whatever its type', () => {
    fc.assert(fc.property(fc.maxSafeInteger(), (each) => assert.equal(keyIdentity(each), keyIdentity(BigInt(each)))))
    assert.equal(keyIdentity(-0), keyIdentity(0n))
    assert.equal(keyIdentity(1e21), keyIdentity(10n ** 21n))
    assert.equal(new Set(['1', 1, 1.5, '1.5', 'i1', 's1'].map(keyIdentity)).size, 6)
  })
})

describe('rows', () => {
  it('survive in pages, and alone', () => {
    fc.assert(
      fc.property(fc.array(row), fc.option(timestamp, { nil: undefined }), (rows, horizon) => {
        const page = decodePage(encodePage(rows.map(encodeRow), horizon))
        assert.deepStrictEqual(page, horizon === undefined ? { rows } : { rows, horizon })
        for (const each of rows) assert.deepStrictEqual(decodeRow(encodeRow(each)), each)
      }),
    )
  })

  it('of a hostile node are rejected with a clear error', () => {
    const rejected: [unknown, RegExp][] = [
      ['text', /invalid row/],
      [[1, at], /invalid row/],
      [[1, at, null, {}, 1], /invalid row/],
      [[null, at, null], /invalid primary key/],
      [[Number.NaN, at, null], /invalid primary key/],
      [[{}, at, null], /invalid primary key/],
      [[new Date(), at, null], /invalid primary key/],
      [[Buffer.alloc(1), at, null], /invalid primary key/],
      [[1, 'yesterday', null], /invalid timestamp/],
      [[1, `${at}\n`, null], /invalid timestamp/],
      [[1, 5, null], /invalid timestamp/],
      [[1, at, []], /invalid record/],
      [[1, at, 'text'], /invalid record/],
      [[1, at, new Date()], /invalid record/],
      [[1, at, Buffer.alloc(1)], /invalid record/],
      [[1, at, {}, []], /invalid record/],
      [[1, at, {}, { a: '' }], /invalid timestamp/],
      [[1, at, {}, { a: 1 }], /invalid timestamp/],
      [[1, at, null, { a: at }], /without a record/],
    ]
    for (const [each, expected] of rejected) {
      assert.throws(() => decodeRow(packr.pack(each)), { name: 'RowPageError', message: expected })
      assert.throws(() => decodePage(packr.pack([null, [each]])), { name: 'RowPageError', message: expected })
    }
  })

  it('are limited in number and in values', () => {
    const rows = Array.from({ length: 3 }, (_, id) => encodeRow({ key: id, row: { timestamp: at } }))
    assert.throws(() => decodePage(encodePage(rows, undefined), 2), /has 3 rows, more than 2/)
    const many = Array.from({ length: 600_000 }, () => ({}))
    assert.throws(() => decodeRow(packr.pack([1, at, { many }])), /a row contains more than \d+ values/)
    assert.throws(() => decodeKeys(packr.pack(Array(10_001).fill(1))), /more than 10000 primary keys/)
    assert.throws(() => decodeKey(encodeKey('x'.repeat(70_000))), /more than 65536 bytes/)
  })

  it('that are damaged anywhere are either an error or valid rows', () => {
    const bytes = encodePage([encodeRow({ key: 1, row: { timestamp: at, record: { id: 1, date: new Date(0) } } })], at)
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), (position, byte) => {
        const damaged = Buffer.from(bytes)
        damaged[position] = byte
        try {
          decodePage(damaged)
        } catch (error) {
          assert.ok(error instanceof RowPageError, String(error))
        }
      }),
      { numRuns: 2_000 },
    )
    for (const [value, expected] of [
      [5, /is not a page/],
      [[null], /is not a page/],
      [[null, {}], /is not a page/],
      [['x', []], /invalid timestamp/],
    ] as const)
      assert.throws(() => decodePage(packr.pack(value)), expected)
  })
})
