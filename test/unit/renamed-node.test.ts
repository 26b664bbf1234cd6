// A node that gets another name keeps its database: what it commits from its opening on arrives, and what is lost is reported.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { it } from 'node:test'
import { type ClusterNode, eventually, MemoryNetwork, startCluster } from '../../lib/testing.ts'

async function rename({ configFile }: ClusterNode, from: string, to: string) {
  const text = await readFile(configFile, 'utf8')
  await writeFile(configFile, text.replace(JSON.stringify(from), JSON.stringify(to)))
}

const ids = ({ host }: ClusterNode) =>
  host
    .records('dev', 'dog')
    .map(({ id }) => id)
    .sort()

// On a network in memory the streams belong to the name. On NATS they belong to the directory, so that nothing is lost.
it('a renamed node whose streams are lost reports unread transactions as a gap', { timeout: 60_000 }, async (test) => {
  const network = new MemoryNetwork()
  const cluster = await startCluster(2, { network, tables: [{ database: 'dev', table: 'dog' }] })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const gaps: unknown[] = []
  one.cluster.on('replication:gap', ({ source, from, to, reason }) => gaps.push([source.node, from, to, reason]))
  await two.host.insert('dev', 'dog', { id: 1 })
  await cluster.converged()
  network.cut('node1', 'node2')
  await two.host.insert('dev', 'dog', { id: 2 })
  await eventually('2 left the outbox', () => two.host.outbox.length === 0)
  await two.stop()
  await rename(two, 'node2', 'berlin')
  network.heal()
  await two.start()
  await two.host.insert('dev', 'dog', { id: 3 })
  await eventually('3 arrives', () => ids(one).includes(3))
  await two.host.insert('dev', 'dog', { id: 4 })
  await eventually('4 arrives', () => ids(one).includes(4))
  assert.deepEqual(gaps, [['berlin', 2, 2, 'recreated']])
  await eventually('the gap is repaired', () => ids(one).includes(2))
  assert.deepEqual(ids(one), [1, 2, 3, 4])
  assert.equal(one.host.applied.length, 3)
})

it('a renamed node whose transactions were all read loses none', { timeout: 60_000 }, async (test) => {
  const network = new MemoryNetwork()
  const cluster = await startCluster(2, { network, tables: [{ database: 'dev', table: 'dog' }] })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const gaps: unknown[] = []
  one.cluster.on('replication:gap', (gap) => gaps.push(gap))
  await two.host.insert('dev', 'dog', { id: 1 })
  await cluster.converged()
  await two.stop()
  // Committed while the node is down: only in the outbox.
  await two.host.insert('dev', 'dog', { id: 2 }).catch(() => {})
  await rename(two, 'node2', 'berlin')
  await two.start()
  await two.host.insert('dev', 'dog', { id: 3 })
  await one.host.insert('dev', 'dog', { id: 4 })
  await eventually(
    'both are equal',
    () => ids(one).join() === ids(two).join() && ids(one).includes(3) && ids(two).includes(4),
  )
  assert.deepEqual(gaps, [])
})
