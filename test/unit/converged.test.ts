// `converged` of the testing kit: a time-out names the node, the table and the transactions that are missing.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { type ClusterNode, eventually, MemoryNetwork, startCluster } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }

async function pair(test: TestContext) {
  const network = new MemoryNetwork()
  const cluster = await startCluster(2, { network, tables: [dog] })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  return { network, cluster, one, two }
}

describe('converged', { concurrency: true, timeout: 180_000 }, () => {
  it('names the transactions that a paused node has not applied', async (test) => {
    const { cluster, one, two } = await pair(test)
    await one.host.insert('dev', 'dog', { id: 1 })
    await cluster.converged()
    await two.cluster.pause({ node: 'node1', ...dog })
    for (const id of [2, 3]) await one.host.insert('dev', 'dog', { id })
    await eventually('the outbox is empty', () => one.host.outbox.length === 0)
    const message = /node2, table dev\.dog of node1: transactions 2 to 3 are not applied, it is paused/
    await assert.rejects(cluster.converged(50), { message })
    await two.cluster.resume({ node: 'node1', ...dog })
    await cluster.converged()
    assert.equal(two.host.records('dev', 'dog').length, 3)
  })

  it('does not take the position of an earlier epoch for the end', async (test) => {
    const { network, cluster, one, two } = await pair(test)
    for (const id of [1, 2, 3]) await one.host.insert('dev', 'dog', { id })
    await cluster.converged()
    await two.cluster.pause({ node: 'node1', ...dog })
    network.wipeDisk('node1')
    network.crash('node1')
    network.restart('node1')
    await one.host.insert('dev', 'dog', { id: 4 })
    await eventually('the outbox is empty', () => one.host.outbox.length === 0)
    // node1 is connected again, and copies, before that.
    await eventually('it is the reason', () =>
      cluster.converged(50).then(
        () => assert.fail('node2 is in the earlier epoch'),
        ({ message }) => /node2, .*: nothing of the 1 transactions since the stream began again/.test(message),
      ),
    )
    await two.cluster.resume({ node: 'node1', ...dog })
    await cluster.converged()
  })
})
