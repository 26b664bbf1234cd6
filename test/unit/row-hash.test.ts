// Digests of rows and their sums: what they contain, that the order does not matter, and that parts add up to the whole.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, it } from 'node:test'
import type { KeyedRow, PrimaryKey, StoredRow } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { BucketSet, BucketSums, bucketsFor, PartialSums } from '../../lib/replication/copy/buckets.ts'
import { type HashRules, rowDigest } from '../../lib/replication/copy/row-hash.ts'
import { decodeVersions, encodeVersions } from '../../lib/replication/copy/row-versions.ts'
import fc from '../support/properties.ts'

const at = (time: number) => makeTimestamp(time, 0, 'node1')
const rules: HashRules = { primaryKey: 'id', cut: '' }
const digest = (key: PrimaryKey, row: StoredRow, more: Partial<HashRules> = {}) =>
  rowDigest({ key, row }, { ...rules, ...more })

const row: fc.Arbitrary<KeyedRow> = fc.record({
  key: fc.oneof(fc.integer(), fc.string(), fc.bigInt(), fc.double({ noNaN: true, noDefaultInfinity: true })),
  row: fc.record({
    timestamp: fc.nat().map(at),
    record: fc.constant({ id: 1, a: 1 }),
    updated: fc.dictionary(fc.string(), fc.nat().map(at)),
  }),
})
const rows = fc.array(row, { maxLength: 50 })

const sumsOf = (list: readonly KeyedRow[], buckets = 16) => {
  const sums = new BucketSums(buckets)
  for (const each of list) sums.add(each, rules)
  return sums
}

describe('the digest of a row', () => {
  it('is the beginning of SHA-256 over a fixed encoding', () => {
    const updated = { id: at(7), b: at(6), a: at(5) }
    const text = `2 i1 ${at(1)} ${at(5)} 1 a ${at(6)} 1 b`
    const expected = createHash('sha256').update(text).digest().subarray(0, 16).toString('latin1')
    assert.equal(digest(1, { timestamp: at(1), record: { id: 1, a: 1, b: 2, c: 3 }, updated }), expected)
  })

  it('is the same for an integer of any type, and differs for a string', () => {
    const of = (key: PrimaryKey) => digest(key, { timestamp: at(1), record: {} })
    assert.equal(of(1), of(1n))
    assert.equal(of(0), of(-0))
    assert.equal(of(0), of(0n))
    assert.equal(of(2 ** 60), of(2n ** 60n))
    assert.equal(new Set(['1', 1, 1.5, '1n', 'i1'].map(of)).size, 5)
  })

  it('differs when one timestamp differs, or two rows have swapped theirs', () => {
    const record = { id: 1, a: 1, b: 2 }
    const row = { timestamp: at(1), record, updated: { a: at(5) } }
    const others: StoredRow[] = [
      { ...row, timestamp: at(2) },
      { ...row, updated: { a: at(6) } },
      { ...row, updated: { b: at(5) } },
      { timestamp: at(1), record },
      { timestamp: at(5), record },
    ]
    for (const other of others) assert.notEqual(digest(1, row), digest(1, other))
    const two = (first: number, second: number) =>
      sumsOf(
        [
          { key: 1, row: { timestamp: at(first), record } },
          { key: 2, row: { timestamp: at(second), record } },
        ],
        1,
      )
    assert.deepEqual(two(3, 4).differences(two(4, 3)), [0])
    assert.deepEqual(two(3, 4).differences(two(3, 4)), [])
  })

  it('leaves out the values, the timestamp of the primary key, and what may have been dropped', () => {
    const row = { timestamp: at(1), record: { id: 1, a: 1 }, updated: { a: at(5) } }
    assert.equal(digest(1, row), digest(1, { ...row, record: { id: 1, a: 'other' } }))
    assert.equal(digest(1, row), digest(1, { ...row, updated: { id: at(9), a: at(5) } }))
    assert.equal(digest(1, { timestamp: at(3) }, { cut: at(3) }), undefined)
    assert.notEqual(digest(1, { timestamp: at(4) }, { cut: at(3) }), undefined)
    // The tombstone under the update is gone on one node.
    const cut = { cut: at(1) }
    assert.equal(digest(1, row, cut), digest(1, { ...row, timestamp: '' }, cut))
    assert.notEqual(digest(1, { ...row, timestamp: at(2) }, cut), digest(1, row, cut))
    const own = { ...row, record: { ...row.record, b: 1 } }
    assert.notEqual(digest(1, own, cut), digest(1, { ...own, timestamp: '' }, cut))
    assert.notEqual(digest(1, { timestamp: at(1), record: { id: 1 } }, cut), undefined)
  })
})

describe('sums of digests', () => {
  it('do not depend on the order of the rows', () => {
    const shuffled = rows.chain((list) =>
      fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length })),
    )
    fc.assert(fc.property(shuffled, ([list, other]) => assert.deepEqual(sumsOf(list).differences(sumsOf(other)), [])))
  })

  it('of parts, on the wire and in fewer buckets are those of the whole', () => {
    fc.assert(
      fc.property(fc.array(rows, { maxLength: 5 }), (parts) => {
        const whole = sumsOf(parts.flat())
        const joined = new BucketSums(16)
        for (const part of parts) {
          const sums = new PartialSums(16)
          for (const each of part) sums.add(each, rules)
          joined.addEncoded(sums.encode())
        }
        assert.deepEqual(joined.differences(whole), [])
        assert.deepEqual(sumsOf(parts.flat(), 1024).fold(16).differences(whole), [])
      }),
    )
  })

  it('of many buckets are those of the whole', () => {
    const list = Array.from({ length: 10_000 }, (_, key) => ({ key, row: { timestamp: at(key), record: {} } }))
    const [sums, parts, joined] = [new BucketSums(8192), new PartialSums(8192), new BucketSums(8192)]
    for (const each of list) {
      sums.add(each, rules)
      parts.add(each, rules)
    }
    joined.addEncoded(parts.encode())
    assert.deepEqual(joined.differences(sums), [])
  })

  it('carry from word to word, modulo 2^128', () => {
    const expected = (count: number) => {
      let sum = 0n
      for (let key = 0; key < count; key++) {
        const bytes = Buffer.from(digest(key, { timestamp: at(1), record: {} })!, 'latin1')
        sum += bytes.readBigUInt64LE(0) + (bytes.readBigUInt64LE(8) << 64n)
      }
      return BigInt.asUintN(128, sum)
    }
    const sums = new PartialSums(1)
    for (let key = 0; key < 1_000; key++) sums.add({ key, row: { timestamp: at(1), record: {} } }, rules)
    const entry = Buffer.from(sums.encode())
    assert.equal(entry.readUInt32LE(4), 1_000)
    assert.equal(entry.readBigUInt64LE(8) + (entry.readBigUInt64LE(16) << 64n), expected(1_000))
  })

  it('have one bucket for about 32 rows, and at most 2^20', () => {
    assert.deepEqual([0, 1, 32, 33, 1_000_000, 1e9].map(bucketsFor), [1, 1, 1, 2, 32_768, 2 ** 20])
    const sums = sumsOf(
      Array.from({ length: 32_768 }, (_, key) => ({ key, row: { timestamp: at(1), record: {} } })),
      1024,
    )
    const counts = Array.from({ length: 1024 }, (_, bucket) => sums.count(bucket))
    assert.ok(Math.min(...counts) > 8 && Math.max(...counts) < 64, `${Math.min(...counts)} to ${Math.max(...counts)}`)
  })

  it('of a hostile node are rejected', () => {
    const sums = new BucketSums(2)
    assert.throws(() => sums.addEncoded(Buffer.alloc(23)), /incomplete sums/)
    assert.throws(() => sums.addEncoded(Buffer.alloc(24, 1)), /bucket \d+ of 2/)
    assert.throws(() => new BucketSet(16, Buffer.alloc(1)), /invalid set of buckets/)
    const version = { key: 1, digest: 'x'.repeat(16) }
    assert.deepEqual(decodeVersions(encodeVersions([version])), [version])
    for (const other of [
      { key: 1, digest: 'x' },
      { key: null, digest: version.digest },
    ])
      assert.throws(() => decodeVersions(encodeVersions([other as never])), { name: 'RowPageError' })
  })
})
