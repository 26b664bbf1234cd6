// Last writer wins: in any order of arrival, a row ends as if its writes had been applied in the order of their timestamps.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { type Attributes, mergeRow, type RowChange, type StoredRow } from '../../lib/host/merge-row.ts'
import fc from '../support/properties.ts'

type Change = { operation: RowChange['operation']; record: Attributes }

const at = (time: number) => makeTimestamp(time, 0, 'node1')
const put = (time: number, record: Attributes): RowChange => ({
  operation: 'put',
  timestamp: at(time),
  record: { id: 1, ...record },
})
const update = (time: number, record: Attributes): RowChange => ({
  operation: 'update',
  timestamp: at(time),
  record: { id: 1, ...record },
})
const remove = (time: number): RowChange => ({ operation: 'delete', timestamp: at(time) })

const arrive = (changes: RowChange[]): Attributes | undefined =>
  changes.reduce<StoredRow | undefined>((row, change) => mergeRow(row, change), undefined)?.record

const permutations = <T>(items: T[]): T[][] =>
  items.length < 2
    ? [items]
    : items.flatMap((item, i) => permutations(items.toSpliced(i, 1)).map((rest) => [item, ...rest]))

function inAnyOrder(changes: RowChange[], expected: Attributes | undefined): void {
  for (const order of permutations(changes)) assert.deepEqual(arrive(order), expected, JSON.stringify(order))
}

test('concurrent updates of different attributes both survive', () => {
  inAnyOrder([put(1, { a: 1, b: 1 }), update(2, { a: 2 }), update(3, { b: 3 })], { id: 1, a: 2, b: 3 })
})

test('of two updates of one attribute the newer wins', () => {
  inAnyOrder([put(1, { a: 1 }), update(2, { a: 2 }), update(3, { a: 3 })], { id: 1, a: 3 })
})

test('an upsert does not undo a newer update, and removes attributes that it lacks', () => {
  inAnyOrder([put(1, { a: 1, b: 1, c: 1 }), put(2, { a: 2, b: 2 }), update(3, { b: 3 })], { id: 1, a: 2, b: 3 })
})

test('an update older than an upsert has no effect', () => {
  inAnyOrder([update(1, { a: 1, b: 1 }), put(2, { a: 2 })], { id: 1, a: 2 })
})

test('an update of an absent row upserts, even if it sets no attribute', () => {
  inAnyOrder([update(1, { a: 1 })], { id: 1, a: 1 })
  inAnyOrder([remove(1), update(2, {})], { id: 1 })
})

test('a delete removes older values and keeps those of newer updates', () => {
  inAnyOrder([put(1, { a: 1, b: 1 }), remove(2)], undefined)
  inAnyOrder([put(1, { a: 1, b: 1 }), update(2, { b: 2 }), remove(3), update(4, { a: 4 })], { id: 1, a: 4 })
})

test('attributes may have the names of object members', () => {
  inAnyOrder([put(1, { constructor: 1 }), update(2, { toString: 2 })], { id: 1, constructor: 1, toString: 2 })
})

test('a change without effect returns the same row', () => {
  const row = mergeRow(undefined, put(5, { a: 1 }))
  assert.equal(mergeRow(row, update(4, { a: 2 })), row)
  assert.equal(mergeRow(row, remove(4)), row)
})

// A record has some of four attributes; the values distinguish the changes.
const attributes = fc.dictionary(fc.constantFrom('a', 'b', 'c', 'constructor'), fc.integer(), { maxKeys: 4 })
const change: fc.Arbitrary<Change> = fc.record({
  operation: fc.constantFrom('put', 'update', 'delete'),
  record: attributes,
})
const transactions = fc.array(fc.array(change, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 8 })

/** Transactions in the order of their timestamps, and the same in another order, some of them twice. */
const arrivals = transactions
  .map((all) =>
    all.map((changes, i) => changes.map((each) => ({ ...each, record: { id: 1, ...each.record }, timestamp: at(i) }))),
  )
  .chain((sent) =>
    fc.array(fc.constantFrom(...sent), { maxLength: 4 }).chain((again) => {
      const all = [...sent, ...again]
      return fc.record({
        sent: fc.constant(sent),
        arrived: fc.shuffledSubarray(all, { minLength: all.length, maxLength: all.length }),
      })
    }),
  )

function naive(changes: RowChange[]): Attributes | undefined {
  let record: Attributes | undefined
  for (const change of changes) {
    if (change.operation === 'delete') record = undefined
    else record = change.operation === 'put' ? change.record : { ...record, ...change.record }
  }
  return record
}

test('any order of arrival, with repeats, results in the row of the timestamp order', () => {
  fc.assert(
    fc.property(arrivals, ({ sent, arrived }) => {
      assert.deepEqual(arrive(arrived.flat()), naive(sent.flat()))
    }),
    { numRuns: 2000 },
  )
})
