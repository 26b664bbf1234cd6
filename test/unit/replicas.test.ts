// What a node knows of its subscribers: how far they are, how long the oldest transaction waits, and that no report is lost.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Replica } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryHost, TestClock } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { openCluster } from '../support/kit-cluster.ts'

const dog = { database: 'dev', table: 'dog' }
const both = [{ ...dog, publish: true, subscribe: true }]
const hosts = (count: number) => Array.from({ length: count }, () => new MemoryHost({ tables: [dog] }))

async function pair(test: Parameters<typeof openCluster>[0], options: object = {}) {
  const clock = new TestClock()
  const opened = await openCluster(test, hosts(2), options, { clock })
  const [one, two] = opened.nodes as [ClusterNode, ClusterNode]
  await one.cluster.addNode({ node_name: 'node2', subscriptions: both })
  await opened.cluster.converged()
  const until = (what: string, holds: (replica: Replica) => boolean) =>
    eventually(`the replica of node1 ${what}`, async () => {
      if (holds(replicaOf(one))) return replicaOf(one)
      await clock.advance(200)
      return undefined
    })
  return { ...opened, one, two, until }
}

const replicaOf = (node: ClusterNode): Replica => node.cluster.replicas(dog)[0]!

describe('replicas', { concurrency: true, timeout: 60_000 }, () => {
  it('show the position of each subscriber, also in cluster_status, and nothing of others', async (test) => {
    const clock = new TestClock()
    const { cluster, nodes } = await openCluster(test, hosts(3), {}, { clock })
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await one.cluster.addNode({ node_name: 'node2', subscriptions: both })
    await one.cluster.addNode({ node_name: 'node3', subscriptions: [{ ...dog, publish: false, subscribe: true }] })
    await cluster.converged()
    for (let id = 0; id < 5; id++) await one.host.insert('dev', 'dog', { id })
    await cluster.converged()
    await clock.advance(1_000)
    const replica = replicaOf(one)
    assert.deepEqual(
      one.cluster.replicas(dog).map(({ node }) => node),
      ['node2'],
    )
    const { epoch, reportedAt, ...shown } = replica
    const expected = { node: 'node2', appliedIndex: 5, appliedSequence: replica.appliedSequence, lag: 0, lagSeconds: 0 }
    assert.deepEqual(shown, { ...expected, missing: 0 })
    assert.ok(epoch !== '' && Math.abs(reportedAt! - Date.now()) < 60_000)
    const { connections } = await one.cluster.status()
    assert.deepEqual(
      connections.map(({ replicas }) => replicas?.map(({ reported_at: _, ...more }) => more)),
      [[{ schema: 'dev', table: 'dog', applied: 5, lag: 0, lag_seconds: 0 }], undefined],
    )
    assert.deepEqual(one.cluster.replicas({ database: 'dev', table: 'cat' }), [])
    assert.deepEqual(three.cluster.replicas(dog), [{ node: 'node1', ...three.cluster.replicas(dog)[0] }])
    assert.deepEqual(two.cluster.view.replicas(dog), two.cluster.replicas(dog))
  })

  it('show the lag of a node that is cut off, and its position again when it is back', async (test) => {
    const { network, one, two, until } = await pair(test)
    await one.host.insert('dev', 'dog', { id: 0 })
    await until('has the first', ({ appliedIndex }) => appliedIndex === 1)
    network.cut('node1', 'node2')
    for (let id = 1; id < 4; id++) await one.host.insert('dev', 'dog', { id })
    await until('waits for a second', ({ lag, lagSeconds }) => lag === 3 && lagSeconds! > 1)
    network.heal()
    await until('has all', ({ appliedIndex, lag, lagSeconds }) => appliedIndex === 4 && lag === 0 && lagSeconds === 0)
    assert.equal(two.host.records('dev', 'dog').length, 4)
  })

  it('are known again after a restart of either node, although the table is quiet', async (test) => {
    const { one, two, until } = await pair(test)
    await one.host.insert('dev', 'dog', { id: 0 })
    await until('has it', ({ appliedIndex }) => appliedIndex === 1)
    await one.stop()
    await one.start()
    await until('has it after a restart of the source', ({ appliedIndex, lag }) => appliedIndex === 1 && lag === 0)
    await two.stop()
    const { reportedAt } = replicaOf(one)
    await two.start()
    await until('is reported after a restart of the subscriber', (replica) => replica.reportedAt! > reportedAt!)
    assert.equal(replicaOf(one).appliedIndex, 1)
  })

  it('are reported again when the first report did not reach the source', async (test) => {
    const { network, one, until } = await pair(test)
    network.cut('node1', 'node2', { silent: true })
    await one.host.insert('dev', 'dog', { id: 0 })
    network.heal()
    await until('has it', ({ appliedIndex }) => appliedIndex === 1)
  })

  it('count what is in quarantine or lost as missing, until it is applied or copied', async (test) => {
    const { network, one, two, until } = await pair(test, { repair: false })
    await one.host.insert('dev', 'dog', { id: 'first' })
    await until('has the first', ({ appliedIndex }) => appliedIndex === 1)
    network.cut('node1', 'node2')
    for (let id = 0; id < 3; id++) await one.host.insert('dev', 'dog', { id })
    await eventually('the stream has them', () => one.host.outbox.length === 0)
    await one.cluster.purgeStream(dog)
    await one.host.insert('dev', 'dog', { id: 'last' })
    network.heal()
    await until('misses three', ({ appliedIndex, missing }) => appliedIndex === 5 && missing === 3)
    const lost = { nodes: ['node2'] }
    assert.equal(await one.cluster.replicated(commit(one, insertInto('dog', { id: 'new' })), lost), undefined)
    await two.cluster.copy({ node: 'node1', ...dog })
    await until('misses nothing', ({ appliedIndex, missing }) => appliedIndex === 6 && missing === 0)
  })

  it('end with the subscription, and begin again with a new one', async (test) => {
    const { one, cluster, until } = await pair(test)
    await one.host.insert('dev', 'dog', { id: 0 })
    await until('has it', ({ appliedIndex }) => appliedIndex === 1)
    await one.cluster.removeNode({ node_name: 'node2' })
    assert.deepEqual(one.cluster.replicas(dog), [])
    await one.cluster.addNode({ node_name: 'node2', subscriptions: both })
    await cluster.converged()
    await until('is reported again', ({ appliedIndex }) => appliedIndex === 1)
  })
})
