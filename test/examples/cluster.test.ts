// The example of a cluster test in the README. The suite runs it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

test('a node loses no writes in a partition of one minute', async (t) => {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const cluster = await startCluster(2, { network, tables: [{ database: 'dev', table: 'dog' }] })
  t.after(() => cluster.close())
  const [one, two] = cluster.nodes

  network.cut('node1', 'node2')
  const down = one!.cluster.events.once('peer:down')
  await one!.host.insert('dev', 'dog', { id: 1, name: 'Rex' })
  await two!.host.insert('dev', 'dog', { id: 1, name: 'Max' })
  await clock.advance(60_000)
  assert.equal((await down).node, 'node2')

  network.heal()
  await cluster.converged()
  assert.deepEqual(one!.host.get('dev', 'dog', 1), { id: 1, name: 'Max' })
  assert.deepEqual(one!.host.records('dev', 'dog'), two!.host.records('dev', 'dog'))
})
