// A pause on real servers: nothing is read meanwhile, whatever restarts, and everything arrives afterwards.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { allMet, eventually, quiet, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }

test('a paused subscription stays so while servers are killed and both nodes restart, and loses nothing', async (t) => {
  const cluster = TestCluster.for(t)
  const nodes = await cluster.startAll(['node1', 'node2'], { tables: [['dev', 'dog']] })
  const [one, two] = nodes as [TestNode, TestNode]
  await allMet(nodes)
  await subscribe(one, two, { dog: 'publish' })
  await one.host.write('before', insert('dog', { id: 'before' }))
  await quiet(nodes)
  await two.cluster.pause(source)
  const replaced = [one.replaced('leaf', await one.kill('leaf')), two.replaced('hub', await two.kill('hub'))]
  await Promise.all(replaced)
  await one.host.write('servers', insert('dog', { id: 'servers' }))
  await Promise.all(nodes.map((node) => node.reopen()))
  await allMet(nodes)
  await one.host.write('restarted', insert('dog', { id: 'restarted' }))
  await eventually('the source knows', () => one.cluster.replicas(dog)[0]!.paused)
  await assert.rejects(
    one.cluster.replicated(
      { id: 'restarted', timestamp: one.cluster.timestamp(), writes: [insert('dog', { id: 1 })] },
      { timeout: 500 },
    ),
    {
      code: 'replication_timeout',
    },
  )
  await eventually('it knows how far it is behind', () => two.cluster.subscriptions()[0]!.lag === 2)
  assert.deepEqual([two.cluster.subscriptions()[0]!.state, two.host.records('dev', 'dog').length], ['paused', 1])
  await two.cluster.resume(source)
  await quiet(nodes)
  assert.deepEqual(
    two.host.from('node1', 'dog').map(({ id }) => id),
    ['before', 'servers', 'restarted'],
  )
  assert.deepEqual(two.seen('replication:gap'), [])
})
