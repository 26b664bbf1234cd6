// Copies between managers on a network in memory: existing rows, restarts, losses, removal, and what the cluster shows of them.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { EventName } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryHost } from '../../lib/testing.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { hostWithRows, storedRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }
const both = [{ ...dog, publish: true, subscribe: true }]

const seen = (node: ClusterNode, event: EventName) => {
  const payloads: { reason?: string; rows?: number; repair?: boolean }[] = []
  node.cluster.on(event, (payload: unknown) => void payloads.push(payload as never))
  return payloads
}

function assertEqual(nodes: readonly ClusterNode[]): void {
  for (const { name, host } of nodes) assert.deepEqual(storedRows(host), storedRows(nodes[0]!.host), name)
}

describe('a cluster', { concurrency: true, timeout: 180_000 }, () => {
  it('copies existing rows to a new node, creates the table there, and reports it', async (test) => {
    const { cluster, nodes } = await openCluster(test, [hostWithRows('node1', 5_000), new MemoryHost()])
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    const copied = seen(two, 'replication:copied')
    const repaired = seen(two, 'replication:repaired')
    const states = seen(two, 'subscription:state') as unknown as { state: string }[]
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    for (let id = 0; id < 50; id++) {
      await one.host.update('dev', 'dog', { id: id * 100, late: 'one' })
      await two.host.insert('dev', 'dog', { id: `new ${id}` })
      await one.host.delete('dev', 'dog', id * 100 + 1)
    }
    await eventually('the rows are copied', () => copied.length > 0)
    await cluster.converged()
    assertEqual(nodes)
    assert.deepEqual([copied[0]!.reason, repaired], ['initial', []])
    assert.ok(states.some(({ state }) => state === 'copying'))
    const { apply } = two.cluster.metrics()!
    assert.equal(apply.copied, copied[0]!.rows)
    assert.equal(two.cluster.subscriptions()[0]!.copied, apply.copied)
  })

  it('of three nodes with different rows ends with all rows on a fourth one, whatever the order of its subscriptions', async (test) => {
    const hosts = ['node1', 'node2', 'node3'].map((name) => {
      const host = hostWithRows(name, 0)
      host.commitAs({
        id: name,
        timestamp: `000000000000-000000-${name}`,
        writes: [{ operation: 'insert', ...dog, records: [{ id: name }] }],
      })
      host.outbox = []
      return host
    })
    const { cluster, nodes } = await openCluster(test, [...hosts, new MemoryHost()])
    const four = nodes[3]!
    const copied = seen(four, 'replication:copied')
    await four.cluster.configureCluster({
      connections: ['node1', 'node2', 'node3'].map((node_name) => ({ node_name, subscriptions: both })),
    })
    await eventually('three copies', () => copied.length === 3)
    await cluster.converged()
    assert.deepEqual(
      four.host.records('dev', 'dog').map(({ id }) => id),
      ['node1', 'node2', 'node3'],
    )
  })

  it('repairs a gap, deletes included, and says so', async (test) => {
    const { network, cluster, nodes } = await openCluster(test, [hostWithRows('node1', 100), hostWithRows('node2', 0)])
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await cluster.converged()
    const gaps = seen(two, 'replication:gap')
    const repaired = seen(two, 'replication:repaired')
    network.cut('node1', 'node2')
    await one.host.delete('dev', 'dog', 7)
    await one.host.update('dev', 'dog', { id: 8, late: true })
    await eventually('the stream has them', () => one.host.outbox.length === 0)
    await one.cluster.purgeStream(dog)
    network.heal()
    await eventually('it is repaired', () => repaired.length > 0)
    await cluster.converged()
    assert.deepEqual(
      gaps.map(({ reason, repair }) => [reason, repair]),
      [['purged', true]],
    )
    assert.equal(repaired[0]!.reason, 'gap')
    assertEqual(nodes)
  })

  it('without the option repair, or with a source without readRows, leaves a gap as it is', async (test) => {
    for (const [readRows, repair] of [
      [true, false],
      [false, true],
    ]) {
      const hosts = [0, 1].map(() => new MemoryHost({ tables: [dog], readRows: readRows! }))
      const { network, cluster, nodes } = await openCluster(test, hosts, { repair })
      const [one, two] = nodes as [ClusterNode, ClusterNode]
      await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
      await cluster.converged()
      const gaps = seen(two, 'replication:gap')
      network.cut('node1', 'node2')
      await one.host.insert('dev', 'dog', { id: 1 })
      await eventually('the stream has it', () => one.host.outbox.length === 0)
      await one.cluster.purgeStream(dog)
      network.heal()
      await eventually('the gap', () => gaps.length > 0)
      await cluster.converged()
      assert.equal(gaps[0]!.repair, false)
      assert.deepEqual(two.host.records('dev', 'dog'), [])
    }
  })

  it('gives a restored database back what it wrote itself', async (test) => {
    const { cluster, nodes } = await openCluster(test, [hostWithRows('node1', 10), hostWithRows('node2', 0)])
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await one.host.insert('dev', 'dog', { id: 'kept' })
    await cluster.converged()
    const { rows, checkpoints, publishedPositions } = structuredClone({
      rows: one.host.rows,
      checkpoints: one.host.checkpoints,
      publishedPositions: one.host.publishedPositions,
    })
    await one.host.insert('dev', 'dog', { id: 'after the copy was made' })
    await cluster.converged()
    await one.stop()
    const restore = <V>(map: Map<string, V>, from: Map<string, V>) => {
      map.clear()
      for (const [key, value] of from) map.set(key, value)
    }
    restore(one.host.rows, rows)
    restore(one.host.checkpoints, checkpoints)
    restore(one.host.publishedPositions, publishedPositions)
    await one.start()
    const repaired = seen(one, 'replication:repaired')
    await eventually(
      'it is repaired',
      () => repaired.length > 0 || one.host.get('dev', 'dog', 'after the copy was made'),
    )
    await cluster.converged()
    assert.ok(one.host.get('dev', 'dog', 'after the copy was made'))
    assertEqual(nodes)
  })
})
