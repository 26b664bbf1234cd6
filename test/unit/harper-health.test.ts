// A node of HarperDB sends no heartbeats: it is down when none of its tables can be read, and no reason to be isolated.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { PeerStates } from '../../lib/cluster/peer-states.ts'
import { makeManifest } from '../../lib/manifest/manifest.ts'
import { type ClusterNode, MemoryHost, TestClock } from '../../lib/testing.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { startHarperNode } from '../support/memory-harper-node.ts'

const dog = { database: 'dev', table: 'dog' }

it('a node whose only peer runs HarperDB is healthy, also after a restart', { timeout: 30_000 }, async (test) => {
  const clock = new TestClock()
  const { network, nodes } = await openCluster(test, [new MemoryHost({ tables: [dog] })], {}, { clock })
  const [one] = nodes as [ClusterNode]
  await startHarperNode(test, network, 'harper', [{ ...dog, primaryKey: 'id', attributes: ['id'] }])
  await one.cluster.addNode({
    node_name: 'harper',
    subscriptions: [{ ...dog, publish: false, subscribe: true }],
  })
  const states: string[] = []
  one.cluster.on('mesh:state', ({ state }) => void states.push(state))
  await clock.advance(10_000)
  assert.deepEqual([one.cluster.health().degraded, one.cluster.meshState, states], [[], 'connected', []])
  await one.stop()
  await one.start()
  await clock.advance(10_000)
  assert.deepEqual([one.cluster.health().degraded, one.cluster.meshState], [[], 'connected'])
})

it('is up for the status page and for other nodes while it is read, and down while it is not', {
  timeout: 30_000,
}, async (test) => {
  const clock = new TestClock()
  const hosts = [new MemoryHost({ tables: [dog] }), new MemoryHost({ tables: [dog] })]
  const { network, nodes } = await openCluster(test, hosts, {}, { clock })
  const [one, two] = nodes as [ClusterNode, ClusterNode]
  await startHarperNode(test, network, 'harper', [{ ...dog, primaryKey: 'id', attributes: ['id'] }])
  const subscriptions = [{ ...dog, publish: false, subscribe: true }]
  for (const node_name of ['harper', 'node2']) await one.cluster.addNode({ node_name, subscriptions })
  const shown = async () => {
    await clock.advance(10_000)
    const links = await two.cluster.view.linksOf('node1')
    return [one.cluster.peers(), links.map(({ node, up }) => ({ node, up }))].map((each) =>
      each.map(({ node, up }) => `${node} ${up ? 'up' : 'down'}`).sort(),
    )
  }
  const allUp = ['harper up', 'node2 up']
  assert.deepEqual(await shown(), [allUp, allUp])
  network.cut('node1', 'harper')
  const harperDown = ['harper down', 'node2 up']
  assert.deepEqual(await shown(), [harperDown, harperDown])
  await clock.advance(20_000)
  const [first, ...others] = one.cluster.health().degraded
  assert.deepEqual([first?.code, first?.node, first?.table, others], ['subscription_pending', 'harper', 'dog', []])
  network.heal()
  assert.deepEqual(await shown(), [allUp, allUp])
  await clock.advance(2_000)
  assert.deepEqual(one.cluster.health().degraded, [])
})

it('is up without a subscription too, and heartbeats are expected of every other node', () => {
  // `isRead`: what `readNodes` says.
  const nodes: Record<string, { isUp?: boolean; isHarper?: boolean; wasHeard?: boolean; isRead?: boolean }> = {
    heard: { isUp: true, wasHeard: true },
    missed: { wasHeard: true, isRead: true },
    never: { isRead: false },
    unsubscribed: { isHarper: true },
    unreadable: { isHarper: true, isRead: false },
    restarted: { isRead: true },
  }
  const says = (name: 'isUp' | 'isHarper' | 'wasHeard') => (node: string) => nodes[node]![name] === true
  const read = Object.entries(nodes).flatMap(([node, { isRead }]) => (isRead === undefined ? [] : [[node, isRead]]))
  const states = new PeerStates({
    manifest: () => makeManifest({ nodes: Object.keys(nodes).map((name) => ({ name, subscriptions: [] })) }),
    parts: () => ({
      peers: { isUp: says('isUp'), isHarper: says('isHarper'), wasHeard: says('wasHeard') },
      replicator: { summaries: { readNodes: () => new Map(read as [string, boolean][]) } },
    }),
  })
  const brief = (all: { node: string; up: boolean }[]) => all.map(({ node, up }) => `${node} ${up ? 'up' : 'down'}`)
  assert.deepEqual(brief(states.all()), [
    ...['heard up', 'missed down', 'never down'],
    ...['unsubscribed up', 'unreadable down', 'restarted up'],
  ])
  assert.deepEqual(brief(states.expected()), ['heard up', 'missed down', 'never down'])
})
