// What `npm run scale` does, with few: many tables in one request, and a mesh in which all replicate with all. How long it takes
// is not judged here.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { manyNodes } from '../scale/many-nodes.ts'
import { manyTables } from '../scale/many-tables.ts'

const allMeasured = (figures: Record<string, number>) =>
  assert.ok(Object.values(figures).every(Number.isFinite), JSON.stringify(figures))

it('many tables are agreed on in one request, read on both nodes, and each carries a write', {
  timeout: 60_000,
}, async () => {
  allMeasured(await manyTables(120, { before: 200, after: 200 }))
})

it('nodes in a full mesh agree pair by pair, and a write of each arrives on all', { timeout: 60_000 }, async () => {
  allMeasured(await manyNodes(4, 200))
})
