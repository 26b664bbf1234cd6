// On real servers: transactions that a node committed while clustering was disabled reach its subscriber, which repairs the gap, and by
// the announcement of that copy a subscriber of the subscriber.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { it } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { type ClusterNode, eventually, MemoryHost, startCluster } from '../../lib/testing.ts'
import { storedRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }

async function restart(node: ClusterNode, enabled: boolean) {
  await node.stop()
  const text = await readFile(node.configFile, 'utf8')
  await writeFile(node.configFile, text.replace(/enabled: (true|false)/, `enabled: ${enabled}`))
  await node.start()
}

it('500 commits with clustering disabled reach the whole chain', { timeout: 120_000 }, async (test) => {
  const cluster = await startCluster(3, {
    tables: [dog],
    subscribe: false,
    host: () => new MemoryHost({ tables: [dog] }),
    clustering: () => ({ republishMessages: true }),
  })
  test.after(() => cluster.close())
  const [one, two, three] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode]
  const subscriptions = [{ ...dog, publish: false, subscribe: true }]
  await two.cluster.addNode({ node_name: 'node1', subscriptions })
  await three.cluster.addNode({ node_name: 'node2', subscriptions })
  await one.host.insert('dev', 'dog', { id: 'before' }, { id: 'deleted' })
  const areEqual = () => [two, three].every(({ host }) => isDeepStrictEqual(storedRows(host), storedRows(one.host)))
  await eventually('all have the first rows', areEqual)
  await cluster.converged()
  const events: unknown[][] = []
  for (const { name, cluster } of [two, three]) {
    cluster.on('replication:gap', ({ reason, repair }) => events.push([name, 'gap', reason, repair]))
    cluster.on('replication:copied', ({ reason, rows }) => events.push([name, 'copied', reason, rows]))
  }
  await restart(one, false)
  for (let id = 0; id < 499; id++) await one.host.insert('dev', 'dog', { id })
  await one.host.delete('dev', 'dog', 'deleted')
  assert.equal(one.host.outbox.length, 0)
  await restart(one, true)
  await eventually('node3 has them', () => events.length >= 3 && areEqual(), 30_000)
  assert.deepEqual(events, [
    ['node2', 'gap', 'unrecorded', true],
    ['node2', 'copied', 'gap', 500],
    ['node3', 'copied', 'source_changed', 500],
  ])
  await one.host.insert('dev', 'dog', { id: 'after' })
  await eventually('later ones follow', areEqual)
})
