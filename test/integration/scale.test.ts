// The scenarios of `npm run scale` at a small size: many tables in one request, and a full mesh. Their durations are not checked.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { manyNodes } from '../scale/many-nodes.ts'
import { manyTables } from '../scale/many-tables.ts'

const allMeasured = (figures: Record<string, number>) =>
  assert.ok(Object.values(figures).every(Number.isFinite), JSON.stringify(figures))

it('subscribes to many tables in one request, and every table replicates a write', {
  timeout: 60_000,
}, async () => {
  allMeasured(await manyTables(120, { before: 200, after: 200 }))
})

it('connects a full mesh, and a write of each node arrives on all', { timeout: 60_000 }, async () => {
  allMeasured(await manyNodes(4, 200))
})
