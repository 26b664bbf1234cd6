// A delete does not come undone after its tombstone was dropped, by whatever way the old row comes back: a copy, a late transaction, a
// relay, a comparison. Nodes are away for 40 days on a turned clock.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { type ClusterNode, eventually, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const DAY_MS = 86_400_000
/** ms: heartbeats and comparisons of subscriptions. */
const MEET_MS = 3_000
const both = { ...dog, publish: true, subscribe: true }

type Setup = {
  /** The subscriptions of each node, by name. Default: every node with every other. */
  subscriptions?: (name: string) => string[]
  clustering?: Record<string, unknown>
}

class Scene {
  readonly clock = new TestClock()
  readonly network = new MemoryNetwork({ clock: this.clock })
  nodes!: readonly ClusterNode[]
  /** Writes that were ignored because of the horizon, by node. */
  readonly refused = new Map<string, number>()
  #close = async () => {}
  #converged = async () => {}

  static async open(test: TestContext, count: number, { subscriptions, clustering }: Setup = {}): Promise<Scene> {
    const scene = new Scene()
    const cluster = await startCluster(count, {
      network: scene.network,
      tables: [dog],
      subscribe: subscriptions === undefined,
      ...(clustering && { clustering: () => clustering }),
    })
    test.after(() => scene.#close())
    scene.#close = async () => {
      await cluster.close()
      await scene.network.close()
    }
    scene.#converged = () => cluster.converged()
    scene.nodes = cluster.nodes
    for (const node of cluster.nodes)
      for (const other of subscriptions?.(node.name) ?? [])
        await node.cluster.addNode({ node_name: other, subscriptions: [both] })
    for (const node of cluster.nodes) scene.#listen(node)
    return scene
  }

  #listen({ name, cluster }: ClusterNode): void {
    cluster.on('replication:refused-old', ({ writes }) =>
      this.refused.set(name, (this.refused.get(name) ?? 0) + writes),
    )
  }

  converged(): Promise<void> {
    return this.#converged()
  }

  async start(...nodes: ClusterNode[]): Promise<void> {
    for (const node of nodes) {
      await node.start()
      this.#listen(node)
    }
    await this.clock.advance(MEET_MS)
  }

  /** The other nodes work on until the 31st day and drop the tombstones; on the 40th day all are there again. */
  async awayFor40Days(away: ClusterNode): Promise<void> {
    const others = this.nodes.filter((node) => node !== away)
    for (const node of this.nodes) await node.stop()
    await this.clock.advance(31 * DAY_MS)
    await this.start(...others)
    for (const node of others) {
      assert.equal(node.host.dropTombstones('dev', 'dog', node.cluster.tombstoneLimit()!), 1, node.name)
      assert.ok(node.host.horizons.size > 0)
    }
    for (const node of others) await node.stop()
    await this.clock.advance(9 * DAY_MS)
    await this.start(...this.nodes)
  }
}

const ids = ({ host }: ClusterNode) => host.records('dev', 'dog').map(({ id }) => id)

/** Inserts rows on all nodes; then `away` is cut off, and `one` deletes row 1. */
async function deletedMeanwhile(scene: Scene, one: ClusterNode, away: ClusterNode): Promise<void> {
  for (const id of [1, 2]) await one.host.insert('dev', 'dog', { id, name: 'Rex' })
  await scene.converged()
  await away.stop()
  await one.host.delete('dev', 'dog', 1)
}

async function repaired(scene: Scene, ...nodes: ClusterNode[]): Promise<void> {
  for (const node of nodes)
    await eventually(
      () => `${node.name} has repaired its gaps: ${JSON.stringify(node.cluster.subscriptions())}`,
      () => node.cluster.subscriptions().every(({ state }) => state === 'live'),
    )
  await scene.converged()
}

describe('a deleted row, of which a node that was away for 40 days still has a copy', () => {
  it('stays away when both nodes repair their gaps by copies, and when they are compared', async (test) => {
    const scene = await Scene.open(test, 2)
    const [one, two] = scene.nodes as [ClusterNode, ClusterNode]
    await deletedMeanwhile(scene, one, two)
    await scene.awayFor40Days(two)
    await repaired(scene, one, two)
    assert.deepEqual(ids(one), [2])
    await one.host.insert('dev', 'dog', { id: 3 })
    await two.host.insert('dev', 'dog', { id: 4 })
    await scene.converged()
    const result = await one.cluster.verify({ node: 'node2', ...dog }, { repair: true })
    assert.deepEqual([result.missingHere, result.repaired], [1, 0], 'it is reported, not brought back')
    assert.deepEqual(ids(one), [2, 3, 4])
    // The way back of a node that was away for too long: its table is emptied and copied.
    two.host.dropTable('dev', 'dog')
    await two.host.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
    await eventually('the rows are copied', () => ids(two).length === 3)
    await repaired(scene, one, two)
    assert.deepEqual(
      [ids(one), ids(two)],
      [
        [2, 3, 4],
        [2, 3, 4],
      ],
    )
  })

  it('stays away when an update that the node wrote before arrives late', async (test) => {
    const scene = await Scene.open(test, 2, { clustering: { leafServer: { streams: { maxAge: 0 } } } })
    const [one, two] = scene.nodes as [ClusterNode, ClusterNode]
    for (const id of [1, 2]) await one.host.insert('dev', 'dog', { id, name: 'Rex' })
    await scene.converged()
    scene.network.cut('node1', 'node2')
    await two.host.update('dev', 'dog', { id: 1, name: 'late' })
    await eventually('the stream has it', () => two.host.outbox.length === 0)
    await two.stop()
    await one.host.delete('dev', 'dog', 1)
    scene.network.heal()
    await scene.awayFor40Days(two)
    await repaired(scene, one, two)
    assert.deepEqual([ids(one), ids(two)], [[2], [2]])
    assert.deepEqual([...scene.refused], [['node1', 1]])
    assert.equal(one.cluster.metrics()!.apply.refusedOld, 1)
  })

  it('stays away when the late update comes through a relay', async (test) => {
    const scene = await Scene.open(test, 3, {
      subscriptions: (name) => (name === 'node2' ? ['node1', 'node3'] : []),
      clustering: { republishMessages: true, leafServer: { streams: { maxAge: 0 } } },
    })
    const [one, relay, three] = scene.nodes as [ClusterNode, ClusterNode, ClusterNode]
    for (const id of [1, 2]) await one.host.insert('dev', 'dog', { id, name: 'Rex' })
    await scene.converged()
    await eventually('the relay has relayed them', () => ids(three).length === 2)
    scene.network.cut('node2', 'node3')
    await three.host.update('dev', 'dog', { id: 1, name: 'late' })
    await eventually('the stream has it', () => three.host.outbox.length === 0)
    await three.stop()
    await one.host.delete('dev', 'dog', 1)
    await eventually('the relay has deleted it', () => ids(relay).length === 1)
    scene.network.heal()
    await scene.awayFor40Days(three)
    await repaired(scene, one, relay, three)
    await eventually('the update has come through the relay', () => scene.refused.get('node1') === 1)
    await eventually('the delete has come through the relay', () => ids(three).length === 1)
    assert.deepEqual(scene.nodes.map(ids), [[2], [2], [2]])
    assert.deepEqual([...scene.refused].sort(), [
      ['node1', 1],
      ['node2', 1],
    ])
  })

  it('stays away from three nodes, and from a fourth one that copies from them and from the node that was away', async (test) => {
    const scene = await Scene.open(test, 4, {
      subscriptions: (name) => (name === 'node1' ? ['node2', 'node3'] : name === 'node2' ? ['node3'] : []),
    })
    const [one, two, three, four] = scene.nodes as [ClusterNode, ClusterNode, ClusterNode, ClusterNode]
    for (const id of [1, 2]) await one.host.insert('dev', 'dog', { id, name: 'Rex' })
    await scene.converged()
    await three.stop()
    await one.host.delete('dev', 'dog', 1)
    await eventually('the other one has deleted it', () => ids(two).length === 1)
    await four.stop()
    const rest = scene.nodes
    scene.nodes = [one, two, three]
    await scene.awayFor40Days(three)
    await repaired(scene, one, two)
    scene.nodes = rest
    await scene.start(four)
    for (const source of [one, two, three]) {
      const copied = four.cluster.events.once('replication:copied', { signal: AbortSignal.timeout(20_000) })
      await four.cluster.addNode({ node_name: source.name, subscriptions: [both] })
      await copied
    }
    await repaired(scene, one, two, four)
    assert.deepEqual([one, two, four].map(ids), [[2], [2], [2]])
    assert.equal(scene.refused.get('node4'), 1, 'the horizon came with the first copy')
  })
})
