// Two nodes on a clock of the test: node2 subscribes to the table of node1, and has applied its first row.

import type { TestContext } from 'node:test'
import { type ClusterNode, MemoryHost, TestClock } from '../../lib/testing.ts'
import { openCluster } from './kit-cluster.ts'

export const dog = { database: 'dev', table: 'dog' }

export async function lagPair(test: TestContext) {
  const clock = new TestClock()
  const hosts = [1, 2].map(() => new MemoryHost({ tables: [dog] }))
  const { cluster, nodes } = await openCluster(test, hosts, {}, { clock })
  const [one, two] = nodes as [ClusterNode, ClusterNode]
  await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] })
  await one.host.insert('dev', 'dog', { id: 'applied' })
  await cluster.converged()
  return { clock, cluster, one, two }
}
