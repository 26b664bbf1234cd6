// A copied row: the writes that stand for it give, merged into any row, what merging the writes of both rows gives.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { writesOfRow } from '../../lib/host/copied-row.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { mergeRow, type RowChange, rowChanges, type StoredRow } from '../../lib/host/merge-row.ts'
import fc from '../support/properties.ts'

const table = { database: 'dev', table: 'dog', primaryKey: 'id' }

const attributes = fc.dictionary(fc.constantFrom('a', 'b', 'c', 'constructor'), fc.nat(3), { noNullPrototype: true })
type Generated = { operation: RowChange['operation']; time: number; node: string; attributes: Record<string, unknown> }

const change: fc.Arbitrary<Generated> = fc.record({
  operation: fc.constantFrom<RowChange['operation']>('put', 'update', 'delete'),
  time: fc.integer({ min: 1, max: 9 }),
  node: fc.constantFrom('node1', 'node2'),
  attributes,
})

const toChange = ({ operation, time, node, attributes: set }: Generated): RowChange => {
  const timestamp = makeTimestamp(time, 0, node)
  return operation === 'delete' ? { operation, timestamp } : { operation, timestamp, record: { id: 1, ...set } }
}

const merge = (changes: readonly RowChange[], row?: StoredRow): StoredRow | undefined =>
  changes.reduce<StoredRow | undefined>((merged, each) => mergeRow(merged, each), row)

/** The changes that the writes of a copied row make, at their timestamps. */
const changesOf = (row: StoredRow): RowChange[] =>
  writesOfRow(table, { key: 1, row }).flatMap(({ timestamp, write }) =>
    rowChanges(write, timestamp, table.primaryKey).map((each) => each.change),
  )

/** A put and an update with one timestamp are one transaction, whose order a stored row no longer has. */
const distinct = (changes: RowChange[]) => new Map(changes.map((each) => [each.timestamp, each]))

test('a row that is copied into any other row gives the merge of both', () => {
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), fc.array(change, { maxLength: 6 }), (there, here) => {
      const all = distinct([...there, ...here].map(toChange))
      const ofSource = [...distinct(there.map(toChange)).keys()].map((timestamp) => all.get(timestamp)!)
      const ofTarget = [...distinct(here.map(toChange)).keys()].map((timestamp) => all.get(timestamp)!)
      const source = merge(ofSource)!
      assert.deepEqual(merge(changesOf(source), merge(ofTarget)), merge(ofSource, merge(ofTarget)))
    }),
  )
})

test('a row that is copied into an absent row, or over itself, is the same row', () => {
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), (changes) => {
      const row = merge([...distinct(changes.map(toChange)).values()])!
      const copied = merge(changesOf(row))
      assert.deepEqual(copied, row)
      assert.equal(merge(changesOf(row), row), row)
    }),
  )
})

test('a row whose timestamp is unknown has no put', () => {
  const row = merge([{ operation: 'update', timestamp: makeTimestamp(5, 0, 'node1'), record: { id: 1, a: 1 } }])!
  assert.deepEqual(
    writesOfRow(table, { key: 1, row }).map(({ write }) => write.operation),
    ['update'],
  )
})
