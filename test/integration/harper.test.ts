// Nodes of HarperDB in the same cluster, simulated with plain nats.js: links of the hubs, requests, and reading from their streams.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { eventually, TestCluster, type TestNode } from '../support/cluster.ts'
import { startNatsHarperNode } from '../support/nats-harper-node.ts'

const dog = { database: 'dev', table: 'dog', primaryKey: 'id', attributes: ['id', 'name'] }
const cat = { ...dog, table: 'cat' }
const reads = (table: string) => ({ database: 'dev', table, publish: false, subscribe: true })
const isLinked = (node: TestNode) =>
  eventually('the hubs are linked', async () =>
    (await node.cluster.network({ timeout: 500 })).nodes.some(({ name }) => name === 'harper'),
  )

describe('a HarperDB node', { concurrency: true }, () => {
  test('is linked by its own route, is read from, and receives the removal', async (t) => {
    const cluster = TestCluster.for(t)
    const node1 = await cluster.start('node1')
    const { node: harper } = await startNatsHarperNode(t, 'harper', {
      tables: [dog, cat],
      routes: [node1.ports.cluster],
    })
    await isLinked(node1)
    await node1.cluster.addNode({ node_name: 'harper', subscriptions: [reads('dog'), reads('cat')] })
    const [{ status } = { status: '' }] = [await harper.ask('node1', { operation: 'cluster_status' })]
    assert.equal(status, 'success')
    const put = (table: string, id: number) => ({
      operation: 'upsert' as const,
      table,
      id,
      record: { id, name: 'Rex' },
    })
    await harper.write('dev', put('dog', 1), put('dog', 2), put('cat', 1))
    await harper.write('dev', { operation: 'patch', table: 'dog', id: 1, record: { name: 'Max' } })
    await harper.write('dev', { operation: 'delete', table: 'dog', id: 2 }, put('cat', 2))
    await harper.defineAttributes('dev', 'dog', 'age')
    await harper.write('dev', put('cat', 3))
    await eventually('all is applied', () => node1.host.applied.length === 5)
    assert.deepEqual(node1.host.contents('dev', 'dog'), [{ id: 1, name: 'Max' }])
    assert.deepEqual(
      node1.host.contents('dev', 'cat').map(({ id }) => id),
      [1, 2, 3],
    )
    assert.deepEqual(node1.seen('connection:rejected'), [])
    await node1.cluster.removeNode({ node_name: 'harper' })
    assert.equal(harper.nodes.size, 0)
  })

  test('is linked by a route of this node, and what it wrote before is read from the start time on', async (t) => {
    const cluster = TestCluster.for(t)
    const { node: harper, clusterPort } = await startNatsHarperNode(t, 'harper', { tables: [dog] })
    const node1 = await cluster.start('node1', { routes: [clusterPort] })
    await isLinked(node1)
    await harper.write('dev', { operation: 'upsert', table: 'dog', id: 1, record: { id: 1 } })
    const start_time = new Date(Date.now() - 60_000).toISOString()
    await node1.cluster.addNode({ node_name: 'harper', subscriptions: [{ ...reads('dog'), start_time }] })
    await eventually('it is applied', () => node1.host.contents('dev', 'dog').length === 1)
    const both = { schema: 'dev', table: 'dog', publish: true, subscribe: true, hash_attribute: 'id' }
    const before = performance.now()
    const answer = await harper.ask('node1', { operation: 'update_node', subscriptions: [both] })
    assert.match(String(answer.message), /is an enmesh node/)
    assert.ok(performance.now() - before < 1_000, 'at once')
  })
})
