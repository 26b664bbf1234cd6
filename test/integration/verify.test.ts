// A comparison on real servers: rows that one node has lost are found, and copied from the other one, whatever their size.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startCluster } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const rowsOf = JSON.stringify(['dev', 'dog'])

test('lost rows are found and repaired on both nodes, one of 20 MB included', { timeout: 120_000 }, async () => {
  await using cluster = await startCluster(2, { tables: [dog] })
  const [node1, node2] = cluster.nodes
  for (let index = 0; index < 2_000; index += 100) {
    const records = Array.from({ length: 100 }, (_, id) => ({ id: index + id, name: 'Rex' }))
    await node1!.host.insert('dev', 'dog', ...records)
  }
  await node1!.host.insert('dev', 'dog', { id: 'large', bytes: Buffer.alloc(20 * 1024 * 1024, 1) })
  await cluster.converged(60_000)
  const source = { node: 'node1', ...dog }
  const equal = { rows: 2_001, missingHere: 0, missingThere: 0, different: 0, inFlight: 0, repaired: 0 }
  assert.deepEqual(await node2!.cluster.verify(source), equal)
  for (const key of ['large', 7]) node2!.host.rows.get(rowsOf)!.delete(JSON.stringify([key]))
  node1!.host.rows.get(rowsOf)!.delete(JSON.stringify([8]))
  const found = { ...equal, rows: 1_999, missingHere: 2, missingThere: 1 }
  assert.deepEqual(await node2!.cluster.verify(source), found)
  assert.deepEqual(await node2!.cluster.verify(source, { repair: true }), { ...found, repaired: 3 })
  assert.deepEqual(await node2!.cluster.verify(source), equal)
  assert.equal((node2!.host.get('dev', 'dog', 'large')!.bytes as Buffer).length, 20 * 1024 * 1024)
  assert.equal(node1!.host.get('dev', 'dog', 8)?.name, 'Rex')
})
