// Positions on real servers: waiting for nodes that are killed, cut off or removed, and reading one's writes on another node.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Transaction } from '../../lib/index.ts'
import { allMet, eventually, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [['dev', 'dog']]
const dog = { database: 'dev', table: 'dog' }

async function nodes(t: { after(fn: () => unknown): void }, names: string[]) {
  const cluster = new TestCluster()
  t.after(() => cluster.close())
  const started = await cluster.startAll(names, { tables })
  await allMet(started)
  return { started }
}

/** Committed, and not yet published. */
function commit({ host, cluster }: TestNode, id: string): Transaction {
  const transaction = { id, timestamp: cluster.timestamp(), writes: [insert('dog', { id })] }
  host.commitAs(transaction)
  return transaction
}

const has = ({ host }: TestNode, id: string) => host.get('dev', 'dog', id) !== undefined

test('replicated waits while servers are killed and nodes restart, and ends with the removal of a node', async (t) => {
  const { started } = await nodes(t, ['node1', 'node2', 'node3'])
  const [one, two, three] = started as [TestNode, TestNode, TestNode]
  await subscribe(one, two, { dog: 'publish' })
  await subscribe(one, three, { dog: 'publish' })
  await one.cluster.replicated(commit(one, 'first'), { nodes: 2 })
  assert.ok(has(two, 'first') && has(three, 'first'))
  await Promise.all([two.kill('hub'), three.kill('leaf')])
  await one.cluster.replicated(commit(one, 'servers killed'), { nodes: 2, timeout: 30_000 })
  assert.ok(has(two, 'servers killed') && has(three, 'servers killed'))
  await one.kill('leaf')
  await one.cluster.replicated(commit(one, 'own server killed'), { nodes: 2, timeout: 30_000 })
  assert.ok(has(two, 'own server killed') && has(three, 'own server killed'))
  await three.cluster.close()
  const transaction = commit(one, 'closed')
  await one.cluster.replicated(transaction, { nodes: ['node2'] })
  const removed = assert.rejects(one.cluster.replicated(transaction, { nodes: 2, timeout: 30_000 }), {
    code: 'too_few_replicas',
  })
  await one.cluster.removeNode({ node_name: 'node3' })
  await removed
  const replicas = await eventually('the last report', () => {
    const all = one.cluster.replicas(dog)
    return all[0]?.lag === 0 && all
  })
  assert.deepEqual(
    replicas.map(({ node, appliedIndex, missing }) => [node, appliedIndex, missing]),
    [['node2', 4, 0]],
  )
})

const READS = isLong ? 100_000 : 2_000

test(`a token lets another node read what was written: ${READS} writes and reads, and none is stale`, async (t) => {
  const { started } = await nodes(t, ['node1', 'node2', 'node3'])
  for (const [index, node] of started.entries())
    for (const other of started.slice(0, index)) await subscribe(node, other, { dog: 'both' })
  let next = 0
  let stale = 0
  const readAndWrite = async (worker: number) => {
    while (next < READS) {
      const id = `${next++}`
      const writer = started[(next + worker) % 3]!
      const reader = started[(next + worker + 1 + (next % 2)) % 3]!
      const token = await writer.cluster.token(commit(writer, id))
      await reader.cluster.caughtUp(token, { timeout: 60_000 })
      if (!has(reader, id)) stale++
    }
  }
  await Promise.all(Array.from({ length: 32 }, (_, worker) => readAndWrite(worker)))
  assert.equal(stale, 0)
  assert.ok(next >= READS)
})
