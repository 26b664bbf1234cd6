// A node of HarperDB sends no heartbeats: it is neither down nor a reason to be isolated.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { type ClusterNode, MemoryHost, TestClock } from '../../lib/testing.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { startHarperNode } from '../support/memory-harper-node.ts'

const dog = { database: 'dev', table: 'dog' }

it('a node whose only peer runs HarperDB is healthy, also after a restart', { timeout: 30_000 }, async (test) => {
  const clock = new TestClock()
  const { network, nodes } = await openCluster(test, [new MemoryHost({ tables: [dog] })], {}, { clock })
  const [one] = nodes as [ClusterNode]
  await startHarperNode(test, network, 'harper', [{ ...dog, primaryKey: 'id', attributes: ['id'] }])
  await one.cluster.addNode({
    node_name: 'harper',
    subscriptions: [{ ...dog, publish: false, subscribe: true }],
  })
  const states: string[] = []
  one.cluster.on('mesh:state', ({ state }) => void states.push(state))
  await clock.advance(10_000)
  assert.deepEqual([one.cluster.health().degraded, one.cluster.meshState, states], [[], 'connected', []])
  await one.stop()
  await one.start()
  await clock.advance(10_000)
  assert.deepEqual([one.cluster.health().degraded, one.cluster.meshState], [[], 'connected'])
})
