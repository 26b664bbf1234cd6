// Rows that a relaying node copies reach its subscribers, although its stream does not have them: in chains, in rings, and whenever one
// of the nodes ends.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import type { Batch } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { hostWithRows, storedRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }
const subscribed = [{ ...dog, publish: false, subscribe: true }]

type Copied = { to: string; node: string; reason: string; rows: number }

async function open(
  test: TestContext,
  hosts: readonly MemoryHost[],
  { relays = true, ...options }: { relays?: boolean; [option: string]: unknown } = {},
) {
  const network = new MemoryNetwork()
  const names = hosts.map((_, index) => `node${index + 1}`)
  const cluster = await startCluster(names, {
    network,
    subscribe: false,
    host: (name) => hosts[names.indexOf(name)]!,
    clustering: () => ({ republishMessages: relays }),
    options,
  })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const copied: Copied[] = []
  const watch = (node: ClusterNode) =>
    node.cluster.on('replication:copied', ({ node: from, reason, rows }) =>
      copied.push({ to: node.name, node: from, reason, rows }),
    )
  for (const node of cluster.nodes) watch(node)
  /** Both sides answer: the first one subscribes to the second one. */
  const subscribe = (node: ClusterNode, source: ClusterNode) =>
    node.cluster.updateNode({ node_name: source.name, subscriptions: subscribed })
  return { network, cluster, nodes: cluster.nodes as readonly ClusterNode[], copied, watch, subscribe }
}

const isEqual = (one: ClusterNode, two: ClusterNode) => isDeepStrictEqual(storedRows(one.host), storedRows(two.host))

/** Nothing is to be copied or announced. */
const isQuiet = (nodes: readonly ClusterNode[]) =>
  nodes.every(
    ({ host, cluster }) =>
      host.outbox.length === 0 &&
      [...host.checkpoints.values()].every(({ copy, unannounced }) => !copy && !unannounced) &&
      cluster.subscriptions().every(({ state }) => state === 'live'),
  )

/** The database takes no more than this number of copied rows before `release`. */
function holdCopy(host: MemoryHost, rows: number) {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const state = { held: false, release: () => release() }
  let taken = 0
  host.beforeApply = async ({ isCopy, transactions }: Batch) => {
    if (!isCopy) return
    taken += transactions.length
    if (taken <= rows) return
    state.held = true
    await released
  }
  return state
}

describe('a relaying node', { concurrency: true, timeout: 60_000 }, () => {
  it('that has half of a copy passes the rest on later', async (test) => {
    const hosts = [hostWithRows('node1', 1_000), new MemoryHost(), new MemoryHost()]
    const { nodes, copied, subscribe } = await open(test, hosts, { maxBatch: 50 })
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    const half = holdCopy(two.host, 500)
    await subscribe(two, one)
    await eventually('half is copied', () => half.held)
    await subscribe(three, two)
    await eventually('node3 has that half', () => copied.some(({ to }) => to === 'node3'))
    assert.equal(three.host.records('dev', 'dog').length, 500)
    half.release()
    await eventually('node3 has all', () => isEqual(one, three) && isQuiet(nodes))
    assert.deepEqual(
      copied.filter(({ to }) => to === 'node3').map(({ reason, rows }) => [reason, rows]),
      [
        ['initial', 500],
        ['source_changed', 500],
      ],
    )
  })

  it('passes on what it had copied when its subscription is removed', async (test) => {
    const hosts = [hostWithRows('node1', 1_000), new MemoryHost(), new MemoryHost({ tables: [dog] })]
    const { nodes, copied, subscribe } = await open(test, hosts, { maxBatch: 50 })
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    const half = holdCopy(two.host, 500)
    await subscribe(two, one)
    await eventually('half is copied', () => half.held)
    await subscribe(three, two)
    await eventually('node3 has that half', () => copied.some(({ to }) => to === 'node3'))
    two.host.beforeApply = undefined
    const removed = two.cluster.removeNode({ node_name: 'node1' })
    half.release()
    await removed
    await eventually('node3 has what node2 has', () => isEqual(two, three) && isQuiet([two, three]))
    const count = two.host.records('dev', 'dog').length
    assert.ok(count >= 500, `${count} rows`)
  })

  it('that ends after its copy announces it at its next start, although its source is down', async (test) => {
    const hosts = [hostWithRows('node1', 300), new MemoryHost(), new MemoryHost({ tables: [dog] })]
    const { nodes, copied, subscribe } = await open(test, hosts)
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await two.host.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
    await subscribe(three, two)
    await eventually('node3 is in step', () => isQuiet([three]) && copied.length === 1)
    const ended = new Promise<void>((resolve) => two.cluster.once('replication:copied', () => resolve()))
    await subscribe(two, one)
    await ended
    await one.stop()
    await two.stop()
    const [checkpoint] = two.host.checkpoints.values()
    assert.deepEqual([checkpoint!.copy, checkpoint!.unannounced], [undefined, true])
    assert.equal(three.host.records('dev', 'dog').length, 0)
    await two.start()
    await eventually('node3 has all', () => isEqual(two, three) && isQuiet([three]))
    assert.equal(two.host.records('dev', 'dog').length, 300)
  })

  it('passes on what a subscriber did not hear because it was down', async (test) => {
    const hosts = [hostWithRows('node1', 300), new MemoryHost({ tables: [dog] }), new MemoryHost({ tables: [dog] })]
    const { nodes, copied, subscribe } = await open(test, hosts)
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await subscribe(three, two)
    await eventually('node3 is in step', () => isQuiet([three]) && copied.length === 1)
    await three.stop()
    await subscribe(two, one)
    await eventually('node2 has copied and announced', () => isEqual(one, two) && isQuiet([two]))
    await two.stop()
    await two.start()
    await three.start()
    await eventually('node3 has all', () => isEqual(one, three) && isQuiet(nodes))
  })

  it('passes on what a comparison repairs', async (test) => {
    const hosts = [hostWithRows('node1', 100), new MemoryHost(), new MemoryHost()]
    const { nodes, copied, subscribe, cluster } = await open(test, hosts)
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await subscribe(two, one)
    await subscribe(three, two)
    await eventually('all are equal', () => isEqual(one, three) && isQuiet(nodes))
    await cluster.converged()
    const before = copied.length
    one.host.commitAs({
      id: 'x',
      timestamp: one.cluster.timestamp(),
      writes: [{ operation: 'update', ...dog, records: [{ id: 7, name: 'only here' }] }],
    })
    one.host.outbox = []
    const { repaired } = await two.cluster.verify({ node: 'node1', ...dog }, { repair: true })
    assert.equal(repaired, 1)
    await eventually('node3 has it', () => three.host.get('dev', 'dog', 7)?.name === 'only here' && isQuiet(nodes))
    assert.deepEqual(copied.slice(before), [{ to: 'node3', node: 'node2', reason: 'source_changed', rows: 1 }])
  })

  it('that does not relay announces nothing', async (test) => {
    const hosts = [hostWithRows('node1', 100), new MemoryHost({ tables: [dog] }), new MemoryHost({ tables: [dog] })]
    const { nodes, copied, subscribe, cluster } = await open(test, hosts, { relays: false })
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await subscribe(three, two)
    await eventually('node3 is in step', () => isQuiet([three]) && copied.length === 1)
    await subscribe(two, one)
    await eventually('node2 has copied', () => isEqual(one, two) && isQuiet(nodes))
    await two.host.insert('dev', 'dog', { id: 'new' })
    await cluster.converged()
    assert.equal(three.cluster.subscriptions()[0]!.appliedSequence, 1)
    assert.equal(copied.length, 2)
  })
})

describe('in a ring of three relaying nodes', { concurrency: true, timeout: 60_000 }, () => {
  async function ring(test: TestContext, hosts: readonly MemoryHost[]) {
    const scene = await open(test, hosts)
    const { nodes, subscribe, cluster } = scene
    for (const [index, node] of nodes.entries()) await subscribe(node, nodes[(index + 2) % 3]!)
    await eventually(
      'all are equal',
      () => isEqual(nodes[0]!, nodes[1]!) && isEqual(nodes[0]!, nodes[2]!) && isQuiet(nodes),
    )
    await cluster.converged()
    return scene
  }

  it('a repair goes around once', async (test) => {
    const hosts = [1, 2, 3].map(() => hostWithRows('node1', 500))
    const { network, nodes, copied } = await ring(test, hosts)
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await eventually('the first copies have ended', () => isQuiet(nodes))
    const before = copied.length
    for (const other of ['node2', 'node3']) network.cut('node1', other)
    await one.host.update('dev', 'dog', { id: 7, late: true }, { id: 8, late: true })
    await eventually('the stream has it', () => one.host.outbox.length === 0)
    await one.cluster.purgeStream(dog)
    network.heal()
    await eventually('it has come around', () => copied.slice(before).some(({ to }) => to === 'node1'))
    await eventually('all are equal', () => isEqual(one, two) && isEqual(one, three) && isQuiet(nodes))
    assert.deepEqual(copied.slice(before), [
      { to: 'node2', node: 'node1', reason: 'gap', rows: 2 },
      { to: 'node3', node: 'node2', reason: 'source_changed', rows: 2 },
      { to: 'node1', node: 'node3', reason: 'source_changed', rows: 0 },
    ])
  })

  it('copies end while all nodes write', async (test) => {
    const hosts = [hostWithRows('node1', 2_000), new MemoryHost({ tables: [dog] }), new MemoryHost({ tables: [dog] })]
    let written = 0
    let isWriting = true
    const { nodes, copied, subscribe, cluster } = await open(test, hosts, { maxBatch: 20 })
    // Transactions are on their way for a while, so that two nodes differ all the time.
    for (const { host } of nodes)
      host.beforeApply = async ({ isCopy }) => {
        if (!isCopy) await new Promise((resolve) => setTimeout(resolve, 20))
      }
    const write = async (node: ClusterNode) => {
      for (; isWriting; written++) {
        await node.host.update('dev', 'dog', { id: written % 50, [node.name]: written })
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
    for (const [index, node] of nodes.entries()) await subscribe(node, nodes[(index + 2) % 3]!)
    const writing = nodes.map(write)
    const hasComeAround = () => copied.some(({ to, reason }) => to === 'node1' && reason === 'source_changed')
    await eventually('the announcement comes around', hasComeAround)
    const end = written + 200
    await eventually('they write on', () => written >= end)
    // While the nodes write, nothing differs but what is on its way: no node finds rows to copy.
    const during = copied.length
    isWriting = false
    await Promise.all(writing)
    await cluster.converged()
    await eventually(
      'all are equal',
      () => isEqual(nodes[0]!, nodes[1]!) && isEqual(nodes[0]!, nodes[2]!) && isQuiet(nodes),
    )
    assert.ok(during <= 6 && copied.length <= 6, JSON.stringify(copied))
    // The 50 rows that are written are on their way: none of them is copied.
    const changed = copied.filter(({ reason }) => reason === 'source_changed')
    assert.ok(
      changed.every(({ rows }) => rows === 0 || rows > 50),
      JSON.stringify(copied),
    )
  })
})
