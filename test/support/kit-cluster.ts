// A cluster of the testing kit whose hosts a test supplies: node1, node2 and so on, in memory, without subscriptions.

import type { TestContext } from 'node:test'
import { type ClusterNode, type MemoryHost, MemoryNetwork, startCluster, type TestClock } from '../../lib/testing.ts'
import { requestOptions } from './memory-scene.ts'

/** It ends with the test. */
export async function openCluster(
  test: Pick<TestContext, 'after'>,
  hosts: readonly MemoryHost[],
  options: object = {},
  { clustering = {}, clock }: { clustering?: Record<string, unknown>; clock?: TestClock } = {},
) {
  const network = new MemoryNetwork(clock ? { clock } : {})
  const names = hosts.map((_, index) => `node${index + 1}`)
  const cluster = await startCluster(names, {
    network,
    subscribe: false,
    host: (name) => hosts[names.indexOf(name)]!,
    options: { ...requestOptions(clock), ...options },
    clustering: () => clustering,
  })
  test.after(async () => {
    try {
      await cluster.close()
    } finally {
      await network.close()
    }
  })
  return { network, cluster, nodes: cluster.nodes as readonly ClusterNode[] }
}
