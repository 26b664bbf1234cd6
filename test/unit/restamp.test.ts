// The restamp as a pure function: rows of the future get timestamps of the present, and a peer that applies its transactions ends with
// the same rows, whatever it had before.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HybridClock, makeTimestamp, wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import { isVoided, mergeRow, type RowChange, rowChanges, type StoredRow } from '../../lib/host/merge-row.ts'
import { Restamp } from '../../lib/host/restamp.ts'
import fc from '../support/properties.ts'

const NOW = 1_000_000
const LIMIT = NOW + 1_000
const at = (time: number, node = 'node1') => makeTimestamp(time, 0, node)
const table = { database: 'dev', table: 'dog', primaryKey: 'id' }

function restamp(rows: readonly StoredRow[], highest = at(9e6)) {
  const plan = new Restamp({
    node: 'node1',
    limit: LIMIT,
    highest,
    createClock: () => new HybridClock('node1', 1_000, () => NOW),
  })
  const pass = plan.begin()
  for (const [index, row] of rows.entries()) pass.add({ ...table, key: index, row })
  return { ...pass.finish(), clock: plan.clock! }
}

const row = (timestamp: string, record?: object, updated?: Record<string, string>): StoredRow => ({
  timestamp,
  ...(record && { record: record as Record<string, unknown> }),
  ...(updated && { updated }),
})

test('rows at or below the limit stay, and the new timestamps are above them', () => {
  const kept = at(NOW + 900, 'node2')
  const { rows, transactions, lastTimestamp, clock } = restamp([row(kept, { id: 0 }), row(at(5e6), { id: 1 })])
  assert.equal(rows.length, 1)
  const [only] = rows
  assert.ok(only!.row.timestamp > kept && wallTimeOf(only!.row.timestamp) <= LIMIT)
  assert.ok(lastTimestamp >= only!.row.timestamp && clock.timestamp() > lastTimestamp)
  assert.equal(transactions.length, 1)
})

test('a put keeps its order with a later update of an attribute', () => {
  const { rows, transactions } = restamp([row(at(5e6), { id: 0, a: 1, b: 2 }, { b: at(6e6) })])
  const { timestamp, updated } = rows[0]!.row
  assert.ok(updated!.b! > timestamp)
  assert.deepEqual(
    transactions.map(({ writes }) => writes.map(({ operation }) => operation)),
    [['upsert'], ['update']],
  )
})

test('only the attributes with timestamps of the future change', () => {
  const before = row(at(5), { id: 0, a: 1, b: 2 }, { a: at(6), b: at(6e6) })
  const { rows } = restamp([before])
  assert.deepEqual([rows[0]!.row.timestamp, rows[0]!.row.updated!.a], [at(5), at(6)])
  assert.ok(wallTimeOf(rows[0]!.row.updated!.b!) <= LIMIT)
})

test('a tombstone becomes a delete', () => {
  const { rows, transactions } = restamp([row(at(5e6))])
  assert.equal(rows[0]!.row.record, undefined)
  assert.deepEqual(transactions[0]!.writes, [{ operation: 'delete', database: 'dev', table: 'dog', ids: [0] }])
})

test('the range has the timestamps of this node above the limit, up to the highest', () => {
  const { voids } = restamp([row(at(5e6), { id: 0 }), row(at(8e6, 'node2'), { id: 1 })], at(7e6)).transactions[0]!
  assert.ok(voids)
  for (const [timestamp, expected] of [
    [at(LIMIT), false],
    [at(LIMIT + 1), true],
    [at(7e6), true],
    [at(7e6 + 1), false],
    [at(5e6, 'node2'), false],
    [at(5e6, 'node11'), false],
  ] as const)
    assert.equal(isVoided(voids, timestamp), expected, timestamp)
})

test('many and large rows are split', () => {
  const large = 'x'.repeat(600_000)
  const { transactions } = restamp(Array.from({ length: 3 }, (_, id) => row(at(5e6), { id, large })))
  assert.equal(transactions.length, 3)
  assert.equal(restamp(Array.from({ length: 2_500 }, (_, id) => row(at(5e6), { id }))).transactions.length, 3)
})

const attributes = fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.nat(9), { minKeys: 1 })
const change = fc.record({
  operation: fc.constantFrom('put' as const, 'update' as const, 'delete' as const),
  record: attributes,
  future: fc.boolean(),
})

test('a peer that accepted any part of the history ends with the same row', () => {
  fc.assert(
    fc.property(
      fc.array(change, { minLength: 1, maxLength: 8 }),
      fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
      (list, accepted) => {
        const past = list.filter(({ future }) => !future)
        const changes = [...past, ...list.filter(({ future }) => future)].map(
          ({ future, ...each }, index): RowChange => {
            const timestamp = at(future ? 5e6 + index : index)
            const record = { id: 0, ...each.record }
            return each.operation === 'delete' ? { operation: 'delete', timestamp } : { ...each, timestamp, record }
          },
        )
        const apply = (all: readonly RowChange[]) =>
          all.reduce<StoredRow | undefined>((stored, each) => mergeRow(stored, each), undefined)
        const local = apply(changes)!
        const { rows, transactions } = restamp([local])
        // Everything of the past, and some of the future.
        let peer = apply(changes.filter((_, index) => index < past.length || accepted[index]))
        for (const { timestamp, writes, voids } of transactions)
          for (const write of writes)
            for (const each of rowChanges(write, timestamp, 'id')) peer = mergeRow(peer, each.change, { voids })
        const expected = rows[0]?.row ?? local
        assert.deepEqual(peer?.record, expected.record)
        assert.equal(peer?.timestamp ?? '', expected.timestamp)
      },
    ),
  )
})
