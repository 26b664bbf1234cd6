// What a node does each second for subscriptions on which nothing happens: the health check looks only at those with a problem.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Subscriber } from '../../lib/replication/subscribe/subscriber.ts'
import { type ClusterNode, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const tables = ['dog', 'cat', 'owl'].map((table) => ({ database: 'dev', table }))
const AGE_MS = 60_000

it('builds no status of a subscription without a problem, and lists one that is stale', {
  timeout: 30_000,
}, async (test) => {
  const clock = new TestClock({ stopped: true })
  const network = new MemoryNetwork({ clock })
  const cluster = await startCluster(2, { network, tables, options: { tombstoneAge: AGE_MS } })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  await one.host.insert('dev', 'dog', { id: 1 })
  await cluster.converged()
  const status = test.mock.method(Subscriber.prototype, 'status')
  await clock.advance(10_000)
  assert.equal(status.mock.callCount(), 0)
  network.cut('node1', 'node2')
  await clock.advance(10_000)
  assert.equal(status.mock.callCount(), 0, 'a node that is away is no problem of its subscriptions')
  await clock.advance(AGE_MS + 60_000)
  const codes = () => new Set(two.cluster.health().degraded.map(({ code }) => code))
  assert.ok(codes().has('subscription_stale'), [...codes()].join())
  assert.ok(status.mock.callCount() > 0)
})
