// The rows that a restored database gets back from a peer reach the peers that never had them: no stream has them any more.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type ClusterNode, eventually, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { copyDatabase } from '../support/memory-host-copy.ts'
import { has } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }

describe('a restored database', { timeout: 60_000 }, () => {
  it('announces what it has got back to a peer that had not read it and had copied before', async (test) => {
    const network = new MemoryNetwork()
    const cluster = await startCluster(['node1', 'node2', 'node3'], { network, tables: [dog] })
    test.after(async () => {
      await cluster.close()
      await network.close()
    })
    const [one, two, three] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode]
    await one.host.insert('dev', 'dog', { id: 'old' })
    await eventually('all have the row', () => cluster.nodes.every((node) => has(node, 'old')))
    await eventually('it is confirmed', () => one.host.outbox.length === 0)
    await one.stop()
    const goBack = copyDatabase(one.host)
    await one.start()
    await two.stop()
    await one.host.insert('dev', 'dog', { id: 'undone' })
    await eventually('node3 has it', () => has(three, 'undone') && one.host.outbox.length === 0)
    await one.cluster.purgeStream({ ...dog, options: { keep: 0 } })
    await one.stop()
    goBack()

    // Nobody has the row now but node3, which is away.
    await three.stop()
    await one.start()
    await two.start()
    await eventually('node2 has copied after the gap', () =>
      [...two.host.checkpoints.values()].some(({ gaps, copy }) => gaps !== undefined && copy === undefined),
    )
    assert.deepEqual([has(one, 'undone'), has(two, 'undone')], [false, false])
    await three.start()
    await eventually('node1 has it back', () => has(one, 'undone'))
    await eventually('node2 has it too', () => has(two, 'undone'))
    await eventually('nothing is left to be announced', () =>
      cluster.nodes.every(({ host }) =>
        [...host.checkpoints.values()].every(({ copy, unannounced }) => !copy && !unannounced),
      ),
    )
  })
})

it('rows that a node has written itself and still has are not announced when they come back in a copy', async (test) => {
  const network = new MemoryNetwork()
  const cluster = await startCluster(['node1', 'node2'], { network, tables: [dog], subscribe: false })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  await one.host.insert('dev', 'dog', { id: 'of one' })
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const readRows = one.host.readRows.bind(one.host)
  one.host.readRows = async (table, selection) => {
    // One row: whether there are rows.
    if (!('limit' in selection && selection.limit === 1)) await released
    return readRows(table, selection)
  }
  const copied = two.cluster.events.once('replication:copied')
  await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...dog, publish: true, subscribe: true }] })
  await two.host.insert('dev', 'dog', { id: 'of two' })
  await eventually('node1 has it', () => one.host.get('dev', 'dog', 'of two') !== undefined)
  release()
  assert.equal((await copied).rows, 2)
  const checkpoint = await two.host.loadCheckpoint({ node: 'node1', ...dog })
  assert.ok(checkpoint && !checkpoint.unannounced)
})
