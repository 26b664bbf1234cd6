// A cluster in memory with the built package, for the test runners of test/support/test-tools.ts. They call it under fake timers.

import { MemoryNetwork, startCluster, TestClock } from 'enmesh/testing'

/** Resolves with the record that a node has read after a partition of one minute. */
export async function recordAfterPartition() {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const cluster = await startCluster(2, { network, tables: [{ database: 'dev', table: 'dog' }] })
  const [one, two] = cluster.nodes
  network.cut('node1', 'node2')
  const down = one.once('peer:down')
  await one.host.insert('dev', 'dog', { id: 1, name: 'Rex' })
  await clock.advance(60_000)
  await down
  network.heal()
  await cluster.converged()
  const record = two.host.get('dev', 'dog', 1)
  await cluster.close()
  return record
}
