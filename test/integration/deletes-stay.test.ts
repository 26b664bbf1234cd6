// A delete does not come undone on real servers: a node was away until the tombstone was dropped and the stream had lost the delete.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { type ClusterNode, startCluster } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }

it('a row that was deleted while a node was away stays deleted', { timeout: 60_000 }, async (test) => {
  const cluster = await startCluster(2, { tables: [dog] })
  test.after(() => cluster.close())
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const ids = ({ host }: ClusterNode) => host.records('dev', 'dog').map(({ id }) => id)
  for (const id of [1, 2]) await one.host.insert('dev', 'dog', { id })
  await cluster.converged()
  await two.stop()
  await one.host.delete('dev', 'dog', 1)
  // As after 30 days.
  assert.equal(one.host.dropTombstones('dev', 'dog', one.cluster.timestamp()), 1)
  await one.cluster.purgeStream(dog)
  await two.start()
  const repaired = two.cluster.events.once('replication:repaired', { signal: AbortSignal.timeout(20_000) })
  await one.host.insert('dev', 'dog', { id: 3 })
  await repaired
  await cluster.converged()
  assert.deepEqual(ids(two), [1, 2, 3], 'the stale row is still there')
  const result = await one.cluster.verify({ node: 'node2', ...dog }, { repair: true })
  assert.deepEqual([result.missingHere, result.repaired], [1, 0])
  assert.equal(one.cluster.metrics()!.apply.refusedOld, 1)
  assert.deepEqual(ids(one), [2, 3])
})
