// Making room among the registers deletes only removed ones.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { emptyManifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Registers } from '../../lib/peers/registers.ts'

test('reserve deletes only removed registers, the oldest first', async () => {
  const clock = { timestamp: () => '9', resume: () => {} }
  const registers = await Registers.open(undefined, emptyManifest, clock, silentLogger)
  const put = (node: string, table: string, revision: string, removed: boolean) =>
    registers.set(node, { database: 'dev', table, publish: true, subscribe: true, removed, revision })
  put('node2', 'a', '1', false)
  put('node2', 'b', '4', true)
  put('node3', 'c', '2', true)
  put('node3', 'd', '3', false)
  put('node4', 'e', '3', true)
  put('node2', 'b', '4', true)
  assert.equal(registers.size, 5)
  assert.equal(registers.reserve(1, 6), true)
  assert.equal(registers.size, 5)
  assert.equal(registers.reserve(2, 5), true)
  assert.deepEqual([registers.size, registers.nodes()], [3, ['node2', 'node3']])
  assert.deepEqual(
    registers.forNode('node2').map(({ table }) => table),
    ['a', 'b'],
  )
  assert.equal(registers.reserve(4, 5), false)
  assert.equal(registers.size, 3)
})
