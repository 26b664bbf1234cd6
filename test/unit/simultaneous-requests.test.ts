// Two requests for one node and table at once, one of which fails: the start of the other one holds.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { RemoteTable } from '../../lib/host/host.ts'
import { type ClusterNode, eventually, MemoryNetwork, startCluster } from '../../lib/testing.ts'

const tables = ['dog', 'cat'].map((table) => ({ database: 'dev', table }))
const [dog] = tables as [(typeof tables)[number]]

for (const first of ['node1', 'node2'])
  it(`the start of a request holds when a request at the same time fails, begun by ${first}`, {
    timeout: 60_000,
  }, async (test) => {
    const network = new MemoryNetwork()
    const cluster = await startCluster(2, { network, tables, subscribe: false })
    test.after(async () => {
      await cluster.close()
      await network.close()
    })
    const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
    await one.host.insert('dev', 'dog', { id: 'early' })
    await eventually('the row is in the stream', () => one.host.outbox.length === 0)
    const loadCheckpoint = two.host.loadCheckpoint.bind(two.host)
    let isFailing = true
    let waiting: (() => void)[] = []
    two.host.loadCheckpoint = async (source: RemoteTable) => {
      if (!isFailing || source.table !== 'cat') return loadCheckpoint(source)
      await new Promise<void>((resolve) => waiting.push(resolve))
      throw new Error('busy')
    }
    const start_time = new Date(Date.now() - 60_000).toISOString()
    const failing = () =>
      one.cluster.addNode({
        node_name: 'node2',
        subscriptions: tables.map((table) => ({ ...table, publish: true, subscribe: false, start_time })),
      })
    const succeeding = () =>
      two.cluster.addNode({
        node_name: 'node1',
        subscriptions: [{ ...dog, publish: false, subscribe: true, start_time }],
      })
    const requests = first === 'node1' ? [failing(), succeeding()] : [succeeding(), failing()]
    const settled = Promise.allSettled(requests)
    await eventually('the failing request is half way', () => waiting.length > 0)
    for (const resume of waiting) resume()
    waiting = []
    await settled
    isFailing = false
    assert.equal(two.cluster.manifest.nodes[0]?.subscriptions.length, 1)
    await eventually('the early row arrives', () => two.host.records('dev', 'dog').length === 1)
    assert.deepEqual(
      two.cluster.subscriptions().map(({ source }) => source.table),
      ['dog'],
    )
  })
