// Faults of the testing kit: names, disks, slow leaves, random cuts that a seed repeats, waiting with a time-out.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import {
  type ClusterNode,
  eventually,
  MemoryHost,
  MemoryNetwork,
  type StartOptions,
  startCluster,
  TestClock,
} from '../../lib/testing.ts'

const tables = [{ database: 'dev', table: 'dog' }]

async function two(test: TestContext, network: MemoryNetwork, options: StartOptions = {}) {
  const cluster = await startCluster(2, { network, tables, ...options })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  return { cluster, one, two }
}

describe('a name of a node', () => {
  it('that the network does not know is refused by every fault', async (test) => {
    const network = new MemoryNetwork({ nodes: ['node1'] })
    network.mesh('node2')
    test.after(() => network.close())
    const error = { message: "no node 'nod1' in this network, only node1, node2. Did you mean 'node1'?" }
    for (const fault of [
      () => network.cut('nod1'),
      () => network.cut('node2', 'nod1'),
      () => network.heal('nod1'),
      () => network.delay('node1', 'nod1', 1),
      () => network.slowLeaf('nod1', 1),
      () => network.skew('nod1', 1),
      () => network.crash('nod1'),
      () => network.restart('nod1'),
      () => network.fillDisk('nod1'),
      () => network.freeDisk('nod1'),
      () => network.wipeDisk('nod1'),
      () => network.snapshotDisk('nod1'),
    ])
      assert.throws(fault, error, fault.toString())
    network.cut('node1', 'node2')
    assert.throws(() => network.delay('node1', 'node1', 1), /slowLeaf/)
  })

  it('is known before the nodes of a cluster are open', async (test) => {
    const network = new MemoryNetwork()
    const { one } = await two(test, network, {
      host: (name) => {
        network.skew(name, 0)
        network.delay('node1', 'node2', 0)
        return new MemoryHost({ tables })
      },
    })
    assert.ok(one.isRunning)
  })
})

describe('a full disk', () => {
  it('stops writing, not reading, until there is room; also over a restart', async (test) => {
    const clock = new TestClock()
    const network = new MemoryNetwork({ clock })
    const { cluster, one, two: other } = await two(test, network)
    await one.host.insert('dev', 'dog', { id: 1 })
    await cluster.converged()
    await other.stop()
    await one.host.insert('dev', 'dog', { id: 2 })
    network.fillDisk('node1')
    assert.deepEqual([one.cluster.meshState, one.cluster.meshReason], ['disconnected', 'the disk is full'])
    const rejected = assert.rejects(one.host.insert('dev', 'dog', { id: 3 }), { code: 'publish_timeout' })
    await clock.advance(10_000)
    await rejected
    await other.start()
    await eventually('the stored message is read', () => other.host.get('dev', 'dog', 2))
    network.crash('node1')
    network.restart('node1')
    await one.stop()
    await one.start()
    assert.equal(one.cluster.meshReason, 'the disk is full')
    assert.equal(other.host.get('dev', 'dog', 3), undefined)
    network.freeDisk('node1')
    await cluster.converged()
    assert.deepEqual(other.host.get('dev', 'dog', 3), { id: 3 })
  })
})

describe('a slow leaf', () => {
  it('delays the writes of its node only', async (test) => {
    const clock = new TestClock({ stopped: true })
    const network = new MemoryNetwork({ clock })
    const { one, two: other } = await two(test, network)
    network.slowLeaf('node1', 1_000)
    let isStored = false
    const stored = one.host.insert('dev', 'dog', { id: 1 }).then(() => {
      isStored = true
    })
    await other.host.insert('dev', 'dog', { id: 2 })
    await clock.advance(1_900)
    assert.equal(isStored, false)
    await clock.advance(200)
    await stored
  })
})

describe('a skewed clock', () => {
  it('is that of one node alone', async (test) => {
    const network = new MemoryNetwork({ clock: new TestClock({ stopped: true }) })
    const { one, two: other } = await two(test, network)
    network.skew('node1', 60_000)
    const [ahead, right] = [one, other].map(({ cluster }) => Number.parseInt(cluster.timestamp().slice(0, 12), 16))
    assert.equal(ahead! - right!, 60_000)
  })
})

describe('a seed', () => {
  /** The cuts of a disturbance of three nodes in a minute: when, and which node sees which others. */
  async function cutsOf(seed: number): Promise<string[]> {
    const clock = new TestClock({ stopped: true, start: 0 })
    const network = new MemoryNetwork({ clock, seed })
    const seen: string[] = []
    const names = ['node1', 'node2', 'node3']
    const meshes = names.map((name) => network.mesh(name))
    const listener = { state() {}, rejected() {}, linked: () => void seen.push(`linked ${clock.now()}`) }
    await Promise.all(meshes.map((mesh, index) => mesh.open(names[index]!, { hub: [], leaf: [] }, listener)))
    const end = network.disturb({ every: 500, silent: false })
    const members = async () => {
      const found = await meshes[0]!.members({ timeout: 100 })
      return found.map(({ node }) => node).join()
    }
    for (let second = 0; second < 60; second++) {
      await clock.advance(1_000)
      seen.push(await members())
    }
    end()
    assert.equal(await members(), 'node1,node2,node3')
    await clock.advance(10_000)
    assert.equal(await members(), 'node1,node2,node3', 'no cut follows')
    await network.close()
    return seen
  }

  it('repeats random cuts, and another seed has others', async () => {
    const [first, again, other] = [await cutsOf(7), await cutsOf(7), await cutsOf(8)]
    assert.ok(new Set(first).size > 10, first.join(' '))
    assert.deepEqual(again, first)
    assert.notDeepEqual(other, first)
  })

  it('that is random is shown by the errors', async (test) => {
    const network = new MemoryNetwork({ seed: 'random' })
    assert.ok(Number.isInteger(network.seed))
    const { cluster, one } = await two(test, network)
    network.cut('node1', 'node2')
    await one.host.insert('dev', 'dog', { id: 1 })
    const shown = new RegExp(`^Error: not within 50 ms: .* \\(seed ${network.seed}\\)$`)
    await assert.rejects(cluster.converged(50), shown)
  })
})

describe('waiting for an event of a node', () => {
  it('ends with the event that fits, or with a time-out that names it', async (test) => {
    const clock = new TestClock()
    const network = new MemoryNetwork({ clock })
    const { one, two: other } = await two(test, network)
    const down = one.once('peer:down', { where: ({ node }) => node === 'node2' })
    await assert.rejects(one.once('clock:ahead', { timeout: 20 }), {
      message: 'not within 20 ms: clock:ahead of node1',
    })
    await other.stop()
    await clock.advance(6_000)
    assert.equal((await down).node, 'node2')
    const closed = assert.rejects(one.once('clock:ok'), { code: 'closed' })
    await one.stop()
    await closed
  })
})
