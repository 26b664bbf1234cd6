// Real nodes for the length of a scene, and their end, whatever happens.

import type { Host } from '../../lib/index.ts'
import { type NodeOptions, TestCluster, type TestNode } from '../support/cluster.ts'

const open = new Set<TestCluster>()

/** Ends what any scene has started: for whoever is interrupted. */
export const closeAll = (): Promise<unknown> => Promise.allSettled([...open].map((cluster) => cluster.close()))

/** What `work` yields; the nodes that it starts end with it. */
export async function* scene<T>(work: (cluster: TestCluster) => AsyncIterable<T>): AsyncGenerator<T> {
  const cluster = new TestCluster()
  open.add(cluster)
  try {
    yield* work(cluster)
  } finally {
    await cluster.close()
    open.delete(cluster)
  }
}

/** Nodes `node1` and so on, one for each of these databases, each routed to the first. */
export async function startNodes(
  cluster: TestCluster,
  hosts: readonly Host[],
  options: NodeOptions = {},
): Promise<TestNode[]> {
  const nodes: TestNode[] = []
  for (const [index, host] of hosts.entries()) {
    const routes = nodes.slice(0, 1).map(({ ports }) => ports.cluster)
    nodes.push(await cluster.start(`node${index + 1}`, { ...options, routes, options: { host } }))
  }
  return nodes
}
