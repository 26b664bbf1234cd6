// A HarperDB node as a peer: each side reads the requests, answers and table descriptions of the other, and this node reads its streams.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import { eventually } from '../support/cluster.ts'
import { startHarperNode } from '../support/memory-harper-node.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { Scene } from '../support/memory-scene.ts'

const dog = { database: 'dev', table: 'dog' }
const reads = { ...dog, publish: false, subscribe: true }

async function pair(test: TestContext) {
  const scene = new Scene(test)
  const harper = await startHarperNode(test, scene.network, 'harper', [
    { ...dog, primaryKey: 'id', attributes: ['id', 'name'] },
    { database: 'dev', table: 'keyless', attributes: [] },
  ])
  const node = await scene.start('node1', { host: new MemoryHost([['dev', 'cat']]) })
  return { scene, harper, node }
}

it('HarperDB reads the answers of this node and its table descriptions', async (test) => {
  const { harper } = await pair(test)
  const status = await harper.ask('node1', { operation: 'cluster_status' })
  assert.deepEqual([status.status, typeof status.message], ['success', 'object'])
  assert.deepEqual(await harper.describe('node1'), [
    { database: 'dev', table: 'cat', primaryKey: 'id', attributes: ['id'] },
  ])
  const unknown = await harper.ask('node1', { operation: 'drop_all' })
  assert.deepEqual([unknown.status, unknown.message], ['error', "Operation 'drop_all' not found"])
})

it('this node subscribes to HarperDB, and leaves out its tables without a primary key', async (test) => {
  const { harper, node } = await pair(test)
  await node.cluster.addNode({ node_name: 'harper', subscriptions: [reads] })
  const { requests, nodes } = harper
  assert.deepEqual(nodes.get('node1')![0]!.publish, true)
  assert.deepEqual(requests.map(({ operation }) => operation).slice(0, 2), ['describe_all', 'add_node'])
  assert.deepEqual((await node.host.describe()).map(({ table }) => table).sort(), ['cat', 'dog'])
  await harper.write('dev', { operation: 'upsert', table: 'dog', id: 1, record: { id: 1, name: 'Rex' } })
  await harper.write('dev', { operation: 'patch', table: 'dog', id: 1, record: { age: 3 } })
  await eventually('both are applied', () => node.host.applied.length === 2)
  assert.deepEqual(node.host.contents('dev', 'dog'), [{ id: 1, name: 'Rex', age: 3 }])
  await node.cluster.removeNode({ node_name: 'harper' })
  assert.equal(nodes.has('node1'), false)
})

it('HarperDB creates a table as this node describes it', async (test) => {
  const { harper, node } = await pair(test)
  const cat = { database: 'dev', table: 'cat', publish: false, subscribe: true }
  await node.cluster.addNode({ node_name: 'harper', subscriptions: [cat] })
  const { database, table, primaryKey, attributes } = harper.tables.at(-1)!
  assert.deepEqual([database, table, primaryKey, attributes], ['dev', 'cat', 'id', ['id']])
})

it('this node creates a table as HarperDB describes it in a request', async (test) => {
  const { harper, node } = await pair(test)
  const attributes = [{ name: 'id', isPrimaryKey: true }, { name: 'age' }]
  const answer = await harper.ask('node1', {
    operation: 'add_node',
    subscriptions: [
      { schema: 'dev', table: 'bird', publish: false, subscribe: true, hash_attribute: 'id', attributes },
    ],
  })
  assert.deepEqual([answer.status, answer.message], ['success', "Successfully added 'harper' to manifest"])
  const created = (await node.host.describe()).find(({ table }) => table === 'bird')
  assert.deepEqual(created?.attributes, ['id', 'age'])
})

it('HarperDB cannot subscribe to this node, which is refused at once with the reason, from either side', async (test) => {
  const { harper, node } = await pair(test)
  const both = { schema: 'dev', table: 'cat', publish: true, subscribe: true, hash_attribute: 'id' }
  for (const operation of ['add_node', 'update_node']) {
    const answer = await harper.ask('node1', { operation, subscriptions: [both] })
    assert.equal(answer.status, 'error')
    assert.match(String(answer.message), /'node1' is an enmesh node, .* 'subscribe' of 'dev.cat' must be false/)
  }
  assert.deepEqual(node.cluster.manifest.nodes, [])
  const request = { node_name: 'harper', subscriptions: [{ ...reads, publish: true }] }
  await assert.rejects(node.cluster.addNode(request), { code: 'peer_rejected', message: /it runs HarperDB/ })
  assert.deepEqual([node.cluster.manifest.nodes, harper.nodes.size], [[], 0])
})
