// Copied rows as transactions: their ids name the row on one line, whatever its key is.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PrimaryKey } from '../../lib/host/host.ts'
import { HybridClock, makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { transactionsOfRow } from '../../lib/replication/copy/row-transactions.ts'

const timestamp = makeTimestamp(1, 0, 'node2')
const options = {
  source: { node: 'node2', database: 'dev', table: 'dog' },
  primaryKey: 'id',
  clock: new HybridClock('node1', 1_000),
  sequence: 7,
}

const idOf = (key: PrimaryKey): string =>
  transactionsOfRow(options, { key, row: { timestamp, record: { id: key } } }).transactions[0]!.id

test('the id of a copied row contains its key if it is short text on one line, and a hash otherwise', () => {
  assert.equal(idOf(17), `copy:dog:n17:${timestamp}`)
  assert.equal(idOf(17n), `copy:dog:i17:${timestamp}`)
  assert.equal(idOf('Rex'), `copy:dog:sRex:${timestamp}`)
  for (const key of ['', 'a b', 'a\nb', 'é', 'x'.repeat(64), 'x'.repeat(100_000)])
    assert.match(idOf(key), key === '' ? /^copy:dog:s:/ : /^copy:dog:h[0-9a-f]{16}:[0-9a-f]{12}-000000-node2$/)
})

test('different keys have different ids', () => {
  const keys: PrimaryKey[] = [1, 1n, '1', 'n1', 's1', 'h1', 'a b', 'a  b', 'a\nb', 1.5, -1, -0]
  assert.equal(new Set(keys.map(idOf)).size, keys.length)
})
