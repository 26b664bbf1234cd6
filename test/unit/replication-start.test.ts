// Both databases store the start of a subscription before a manifest contains it, and neither keeps it when the negotiation fails.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { both, dog, type MemoryNode, Scene } from '../support/memory-scene.ts'

const request = (node: MemoryNode) => ({ node_name: node.name, subscriptions: both })

describe('a negotiation', { concurrency: true, timeout: 60_000 }, () => {
  it('stores the start on each side before it commits, so that later writes arrive', async (test) => {
    const scene = new Scene(test)
    const nodes = [await scene.start('node1'), await scene.start('node2')] as const
    const [node1, node2] = nodes
    const starts = nodes.map(async (node, index) => {
      await new Promise((resolve) => node.cluster.on('node:added', resolve))
      return node.host.loadCheckpoint({ node: nodes[1 - index]!.name, ...dog })
    })
    // The requesting node commits last.
    node1.cluster.on('node:added', () => {
      for (const node of nodes) void node.write([`of ${node.name}`])
    })
    await node1.cluster.addNode(request(node2))
    for (const start of await Promise.all(starts)) assert.equal(start?.sequence, 0)
    await scene.quiet()
    assert.deepEqual([node1.from(node2), node2.from(node1)], [['of node2'], ['of node1']])
  })

  it('that fails leaves no start', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = [await scene.start('node1'), await scene.start('node2')]
    await writeFile(node2.configFile, 'clustering: {')
    await assert.rejects(node1.cluster.addNode(request(node2)), { code: 'peer_rejected' })
    assert.deepEqual([node1.host.checkpoints.size, node2.host.checkpoints.size], [0, 0])
  })
})
