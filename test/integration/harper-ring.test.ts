// Two enmesh nodes and a simulated HarperDB node in a ring, all of which relay: every transaction reaches each of the others by two ways.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Write } from '../../lib/host/host.ts'
import { eventually, TestCluster, type TestNode } from '../support/cluster.ts'
import type { HarperNode } from '../support/harper-node.ts'
import { startNatsHarperNode } from '../support/nats-harper-node.ts'

const dog = { database: 'dev', table: 'dog' }
const both = [{ ...dog, publish: true, subscribe: true }]
const clustering = { compatibility: 'harperdb4', republishMessages: true }
const tables: [string, string][] = [['dev', 'dog']]
const rows = (from: number, count: number) =>
  Array.from({ length: count }, (_, index) => ({ id: from + index, name: `dog ${from + index}` }))
const write = (operation: 'insert' | 'update', records: Record<string, unknown>[]): Write => ({
  operation,
  ...dog,
  records,
})
const contents = (node: TestNode | HarperNode) =>
  ('host' in node ? node.host : node).contents('dev', 'dog').toSorted((a, b) => Number(a.id) - Number(b.id))

test('a ring with a HarperDB node', async (t) => {
  const cluster = TestCluster.for(t)
  const node1 = await cluster.start('node1', { tables, clustering })
  const { node: harper, clusterPort } = await startNatsHarperNode(t, 'harper', {
    tables: [],
    routes: [node1.ports.cluster],
  })
  harper.republish = true
  const node2 = await cluster.start('node2', { tables, clustering, routes: [clusterPort, node1.ports.cluster] })
  for (const node of [node1, node2]) {
    await eventually('the hubs are linked', async () => {
      const { nodes } = await node.cluster.network({ timeout: 500 })
      return nodes.length === 3
    })
    await harper.addNode(node.name, [{ schema: 'dev', table: 'dog', publish: true, subscribe: true }])
  }
  await node2.cluster.addNode({ node_name: 'node1', subscriptions: both })
  const all = [node1, node2, harper]
  const have = (expected: object[]) =>
    eventually(
      () => `the rows are everywhere: ${all.map((each) => contents(each).length)}`,
      () => all.every((each) => JSON.stringify(contents(each)) === JSON.stringify(expected)),
      20_000,
    )

  await Promise.all([
    node1.host.write('a1', write('insert', rows(1_000, 3))),
    node2.host.write('b1', write('insert', rows(2_000, 3))),
    harper.write(
      'dev',
      ...rows(3_000, 3).map((record) => ({ operation: 'upsert' as const, table: 'dog', id: record.id, record })),
    ),
  ])
  // No single message can hold it.
  await node1.host.write('a2', write('insert', rows(4_000, 600)), write('update', rows(5_000, 600)))
  await have([...rows(1_000, 3), ...rows(2_000, 3), ...rows(3_000, 3), ...rows(4_000, 600), ...rows(5_000, 600)])
  await node2.host.write('b2', { operation: 'delete', ...dog, ids: rows(5_000, 600).map(({ id }) => id) })
  await harper.write('dev', { operation: 'patch', table: 'dog', id: 1_000, record: { name: 'Rex' } })
  const changed = rows(1_000, 3).map((row) => (row.id === 1_000 ? { ...row, name: 'Rex' } : row))
  await have([...changed, ...rows(2_000, 3), ...rows(3_000, 3), ...rows(4_000, 600)])
  // What enmesh nodes commit has a place in a stream, so that it is applied once, whatever way it takes first.
  for (const [node, ids] of [
    [node2, ['a1', 'a2']],
    [node1, ['b1', 'b2']],
  ] as const)
    for (const id of ids)
      assert.equal(node.host.applied.filter((each) => each.split(':')[0] === id).length, 1, `${id} at ${node.name}`)
  for (const node of [node1, node2])
    assert.deepEqual([node.seen('replication:gap'), node.seen('replication:quarantined')], [[], []])
  assert.deepEqual(harper.failures, [])
})
