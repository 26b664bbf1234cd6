// Many nodes in this process, with their servers on this machine. Every pair of nodes replicates one table.

import { setTimeout as delay } from 'node:timers/promises'
import { eventually, serversOf, subscriptionsOf, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { residentOf, residentOfAll, sharesOf } from '../support/usage.ts'

const PATIENCE = 300_000
const SETTLE = 3_000
const WATCHED = 20_000

const seconds = (since: number) => (performance.now() - since) / 1_000

/** `watched`: ms for which the idle cost is measured. */
export async function manyNodes(count: number, watched = WATCHED): Promise<Record<string, number>> {
  const cluster = new TestCluster()
  try {
    const names = Array.from({ length: count }, (_, index) => `node${index + 1}`)
    const options = { requestTimeout: 60_000, publishTimeout: 60_000 }
    const memoryBefore = await residentOf(process.pid)
    let since = performance.now()
    const nodes = await cluster.startAll(names, { tables: [['dev', 'dog']], options })
    const started = seconds(since)
    const sees = async ({ cluster }: TestNode) => (await cluster.network({ timeout: 1_000 })).nodes.length === count
    await eventually('the mesh is whole', async () => (await Promise.all(nodes.map(sees))).every(Boolean), PATIENCE)
    const whole = seconds(since)

    since = performance.now()
    for (const [index, node] of nodes.entries())
      for (const other of nodes.slice(index + 1))
        await eventually(
          `${node.name} agrees with ${other.name}`,
          () =>
            node.cluster
              .updateNode({ node_name: other.name, subscriptions: subscriptionsOf({ dog: 'both' }) })
              .catch(() => delay(100).then(() => undefined)),
          PATIENCE,
        )
    const agreed = seconds(since)
    await eventually(
      'all are read',
      () =>
        delay(50).then(() =>
          nodes.every(({ cluster }) => {
            const all = cluster.subscriptions()
            return all.length === count - 1 && all.every(({ state }) => state === 'live')
          }),
        ),
      PATIENCE,
    )

    since = performance.now()
    await Promise.all(nodes.map((node) => node.host.write(`of ${node.name}`, insert('dog', { id: node.name }))))
    const arrived = (node: TestNode) =>
      nodes.every((other) => node === other || node.host.from(other.name, 'dog').length === 1)
    await eventually('a write of each arrives on all', () => nodes.every(arrived), PATIENCE)
    const spread = seconds(since)

    await delay(Math.min(SETTLE, watched))
    const servers = await serversOf(nodes)
    const [idle = 0, idleServers = 0] = await sharesOf([[process.pid], servers], watched)
    return {
      'started, s': started,
      'mesh whole, s': whole,
      'all pairs agreed, s': agreed,
      'ms/pair': (2_000 * agreed) / (count * (count - 1)),
      'a write of each on all, s': spread,
      'process, MB more': (await residentOf(process.pid)) - memoryBefore,
      'servers, MB': await residentOfAll(servers),
      'process idle, %': idle,
      'servers idle, %': idleServers,
    }
  } finally {
    await cluster.close()
  }
}
