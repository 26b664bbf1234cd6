// A HarperDB node reads from a node with `clustering.compatibility: harperdb4`: both have the same rows, with all kinds of writes from either side.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Write } from '../../lib/host/host.ts'
import { eventually } from '../support/cluster.ts'
import type { HarperWrite } from '../support/harper-messages.ts'
import type { HarperNode } from '../support/harper-node.ts'
import { startHarperNode } from '../support/memory-harper-node.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { type MemoryNode, Scene } from '../support/memory-scene.ts'

const harperdb4 = { compatibility: 'harperdb4' }
const both = (table: string) => ({ schema: 'dev', table, publish: true, subscribe: true })
const write = (operation: 'insert' | 'update' | 'upsert', table: string, ...records: object[]): Write =>
  ({ operation, database: 'dev', table, records }) as Write
const remove = (table: string, ...ids: number[]): Write => ({ operation: 'delete', database: 'dev', table, ids })
const put = (table: string, record: { id: number }): HarperWrite => ({
  operation: 'upsert',
  table,
  id: record.id,
  record,
})

async function start(name: string, scene: Scene, clustering: object = harperdb4) {
  return scene.start(name, {
    host: new MemoryHost([
      ['dev', 'dog'],
      ['dev', 'cat'],
    ]),
    clustering: { ...clustering },
  })
}
async function pair(test: TestContext) {
  const scene = new Scene(test)
  const harper = await startHarperNode(test, scene.network, 'harper', [])
  const node = await start('node1', scene)
  await harper.addNode('node1', [both('dog'), both('cat')])
  return { scene, harper, node }
}
const rowsOf = (node: MemoryNode | HarperNode, table: string) =>
  ('host' in node ? node.host : node).contents('dev', table)
async function equal(table: string, nodes: (MemoryNode | HarperNode)[], expected: object[]) {
  await eventually(
    () => `the rows are equal: ${JSON.stringify(nodes.map((each) => rowsOf(each, table)))}`,
    () => {
      try {
        for (const each of nodes) assert.deepEqual(rowsOf(each, table), expected)
        return true
      } catch {
        return false
      }
    },
  )
}

describe('a HarperDB node that reads from an enmesh node', { concurrency: true, timeout: 30_000 }, () => {
  it('has the same rows, with writes of every kind from either side', async (test) => {
    const { harper, node } = await pair(test)
    const born = new Date(5)
    const photo = Uint8Array.of(1, 2)
    const { host } = node
    await host.write('t1', write('insert', 'dog', { id: 1, name: 'Rex', born, photo }, { id: 2, n: 1 }))
    await host.write('t2', write('update', 'dog', { id: 1, age: 3 }), write('upsert', 'cat', { id: 1, name: 'Tom' }))
    await host.write(
      't3',
      remove('dog', 2),
      write('insert', 'dog', { id: 3 }, { id: 4 }),
      write('update', 'dog', { id: 5, a: 1 }),
    )
    await equal(
      'dog',
      [harper, node],
      [{ id: 1, name: 'Rex', born, photo, age: 3 }, { id: 3 }, { id: 4 }, { id: 5, a: 1 }],
    )
    await equal('cat', [harper, node], [{ id: 1, name: 'Tom' }])
    await harper.write('dev', put('dog', { id: 6 }), put('cat', { id: 2 }), {
      operation: 'delete',
      table: 'dog',
      id: 3,
    })
    await harper.write('dev', { operation: 'patch', table: 'dog', id: 1, record: { age: 4 } })
    await equal(
      'dog',
      [harper, node],
      [{ id: 1, name: 'Rex', born, photo, age: 4 }, { id: 4 }, { id: 5, a: 1 }, { id: 6 }],
    )
    await equal('cat', [harper, node], [{ id: 1, name: 'Tom' }, { id: 2 }])
    assert.deepEqual(harper.failures, [])
    assert.deepEqual(node.events['replication:quarantined'], [])
  })

  it('knows the attributes before the rows', async (test) => {
    const { harper, node } = await pair(test)
    await node.host.write('t1', write('insert', 'dog', { id: 1, name: 'Rex' }))
    await equal('dog', [harper], [{ id: 1, name: 'Rex' }])
    await node.host.write('t2', write('update', 'dog', { id: 1, owner: 'Ida' }))
    await equal('dog', [harper], [{ id: 1, name: 'Rex', owner: 'Ida' }])
    const { attributes } = harper.tables.find(({ table }) => table === 'dog')!
    assert.deepEqual(attributes.toSorted(), ['id', 'name', 'owner'])
  })

  it('gets many changes of one row in their order, also within a millisecond', async (test) => {
    const { harper, node } = await pair(test)
    await node.host.write('t0', write('insert', 'dog', { id: 1 }))
    const changes = Array.from({ length: 300 }, (_, n) =>
      node.host.write(`t${n + 1}`, write('update', 'dog', { id: 1, n, [`n${n % 7}`]: n })),
    )
    await Promise.all(changes)
    await equal('dog', [harper], node.host.contents('dev', 'dog') as object[])
    assert.equal(harper.contents('dev', 'dog')[0]!.n, 299)
  })

  it('is added and removed by an operation of either side', async (test) => {
    const scene = new Scene(test)
    const harper = await startHarperNode(test, scene.network, 'harper', [])
    const node = await start('node1', scene)
    const subscriptions = [{ database: 'dev', table: 'dog', publish: true, subscribe: true }]
    await node.cluster.addNode({ node_name: 'harper', subscriptions })
    assert.deepEqual(
      harper.nodes.get('node1')!.map(({ subscribe }) => subscribe),
      [true],
    )
    await eventually('it reads', async () => {
      await node.host.write(`t${Math.random()}`, write('upsert', 'dog', { id: 1 }))
      return harper.contents('dev', 'dog').length === 1
    })
    await harper.addNode('node1', [{ ...both('dog'), subscribe: false }])
    await eventually('it publishes no more', () => node.cluster.manifest.nodes[0]?.subscriptions[0]?.publish === false)
    await harper.removeNode('node1')
    await eventually('it is removed', () => node.cluster.manifest.nodes.length === 0)
    await node.cluster.addNode({ node_name: 'harper', subscriptions })
    await node.cluster.updateNode({ node_name: 'harper', subscriptions: [{ ...subscriptions[0]!, subscribe: false }] })
    assert.equal(harper.nodes.get('node1')![0]!.publish, false)
    await node.cluster.removeNode({ node_name: 'harper' })
    await eventually('it knows', () => harper.nodes.size === 0)
  })

  it('relays to another enmesh node, which applies a transaction that arrives by two paths once', async (test) => {
    const { scene, harper, node } = await pair(test)
    harper.republish = true
    const other = await start('node2', scene)
    await harper.addNode('node2', [both('dog'), both('cat')])
    await node.host.write('t1', write('insert', 'dog', { id: 1, name: 'Rex' }))
    await equal('dog', [harper, other], [{ id: 1, name: 'Rex' }])
    const { origin } =
      other.host.applied.length > 0
        ? other.host.from('harper', 'dog').find(({ id }) => id.startsWith('t1'))!
        : { origin: undefined }
    assert.deepEqual([origin?.node, origin?.relayedBy], ['node1', ['harper']])
    await other.host.write('t2', write('update', 'dog', { id: 1, age: 3 }))
    await equal('dog', [harper, node, other], [{ id: 1, name: 'Rex', age: 3 }])
    await node.cluster.addNode({
      node_name: 'node2',
      subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: true }],
    })
    await node.host.write('t3', write('insert', 'dog', { id: 2 }))
    await equal('dog', [harper, node, other], [{ id: 1, name: 'Rex', age: 3 }, { id: 2 }])
    assert.equal(other.host.applied.filter((id) => id.startsWith('t3')).length, 1)
    assert.deepEqual(harper.failures, [])
  })

  it('in a ring with a relaying enmesh node gets every transaction, and its own ones not again', async (test) => {
    const scene = new Scene(test)
    const first = await startHarperNode(test, scene.network, 'harper1', [])
    const second = await startHarperNode(test, scene.network, 'harper2', [])
    const node = await start('node1', scene, { ...harperdb4, republishMessages: true })
    for (const each of [first, second]) await each.addNode('node1', [both('dog'), both('cat')])
    await first.write('dev', put('dog', { id: 1 }), put('cat', { id: 1 }))
    await second.write('dev', put('dog', { id: 2 }))
    // A change within the millisecond of the one before would have the same time for HarperDB.
    await equal('dog', [node], [{ id: 1 }, { id: 2 }])
    await node.host.write('t1', write('update', 'dog', { id: 1, age: 3 }))
    await equal('dog', [first, second, node], [{ id: 1, age: 3 }, { id: 2 }])
    await equal('cat', [first, second, node], [{ id: 1 }])
    assert.deepEqual([first.failures, second.failures, node.events['replication:quarantined']], [[], [], []])
  })
})
