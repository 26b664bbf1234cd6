// Managers on a network in memory, without servers, under faults of the network.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Heartbeats } from '../../lib/peers/heartbeats.ts'
import { eventually } from '../support/cluster.ts'
import { setClock } from '../support/elapsed.ts'
import { both, dog, type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'
import { randomNumbers, seedOf } from '../support/random.ts'

it('a clock that is set forward reports no peer as down', async (t) => {
  const scene = new Scene(t)
  const [node1] = (await scene.mesh('node1', 'node2')) as [MemoryNode]
  await eventually('it is up', () => node1.events['peer:up']!.some(({ node }) => node === 'node2'))
  const heartbeat = t.mock.method(Heartbeats.prototype, 'send')
  setClock(t, 3_600_000)
  await eventually('both nodes checked their peers twice', () => heartbeat.mock.callCount() > 4)
  assert.deepEqual(node1.events['peer:down'], [])
})

describe('managers on a network in memory', { concurrency: true }, () => {
  it('agree on subscriptions and replicate, without a password', async (t) => {
    const scene = new Scene(t)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    for (const [node, other] of [
      [node1, node2],
      [node2, node1],
    ] as const)
      assert.deepEqual(
        node.cluster.manifest.nodes.map(({ name, subscriptions }) => [name, subscriptions]),
        [[other.name, both]],
      )
    const written = new Map([
      [node1, numbered('one', 50)],
      [node2, numbered('two', 50)],
    ])
    await Promise.all([...written].map(([node, ids]) => node.write(ids)))
    await scene.quiet()
    scene.assertEqual(written)
    const { connections } = await node1.cluster.status()
    assert.deepEqual(
      connections.map(({ node_name, status }) => [node_name, status]),
      [['node2', 'open']],
    )
    assert.deepEqual(
      (await node2.cluster.network()).nodes.map(({ name, connected_nodes }) => [name, connected_nodes]),
      [
        ['node2', ['node1']],
        ['node1', ['node2']],
      ],
    )
  })

  it('agree on one direction from either side, and remove the node', async (t) => {
    const scene = new Scene(t)
    const [node1, node2, node3] = [await scene.start('node1'), await scene.start('node2'), await scene.start('node3')]
    const request = (node_name: string, publish: boolean) => ({
      node_name,
      subscriptions: [{ ...dog, publish, subscribe: !publish }],
    })
    await node1.cluster.addNode(request('node2', true))
    await node1.cluster.addNode(request('node3', false))
    await scene.quiet()
    await node2.write(['stays'])
    await node3.write(['third'])
    await node1.write(['first'])
    await scene.quiet()
    assert.deepEqual([node2.from(node1), node1.from(node2), node1.from(node3)], [['first'], [], ['third']])
    await node1.cluster.removeNode({ node_name: 'node2' })
    assert.deepEqual(node2.cluster.manifest.nodes, [])
    await node1.write(['later'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['first'])
  })

  it('cannot add a node that is cut off, and can after the cut is healed', async (t) => {
    const scene = new Scene(t)
    const [node1] = [await scene.start('node1'), await scene.start('node2')]
    const add = () => node1.cluster.addNode({ node_name: 'node2', subscriptions: both })
    scene.network.cut('node2')
    await assert.rejects(add(), { code: 'node_not_listening' })
    scene.network.heal('node2')
    await add()
  })

  it('converge after writes on both sides of a cut', async (t) => {
    const scene = new Scene(t)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(['one-before'])
    await scene.quiet()
    scene.network.cut('node1', 'node2')
    await Promise.all([node1.write(numbered('one', 20)), node2.write(numbered('two', 20))])
    await delay(100)
    assert.deepEqual([node1.from(node2), node2.from(node1)], [[], ['one-before']])
    scene.network.heal('node1', 'node2')
    await scene.quiet()
    scene.assertEqual(
      new Map([
        [node1, ['one-before', ...numbered('one', 20)]],
        [node2, numbered('two', 20)],
      ]),
    )
    assert.deepEqual([node1.gaps(), node2.gaps()], [[], []])
  })

  it('lose nothing when a node crashes during writes, on either side', async (t) => {
    const scene = new Scene(t)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    const written = new Map<MemoryNode, string[]>([
      [node1, []],
      [node2, []],
    ])
    for (const [round, crashed] of [node1, node2, node1, node2].entries()) {
      const writes: Promise<void>[] = []
      for (const [node, ids] of written) {
        const more = numbered(`${node.name}-${round}`, 200)
        ids.push(...more)
        writes.push(node.write(more))
      }
      // A point between storing, acknowledging and delivering.
      for (let turns = 0; turns < 4 + 3 * round; turns++) await new Promise((resolve) => setImmediate(resolve))
      scene.network.crash(crashed.name, { silent: round > 1 })
      await delay(20)
      scene.network.restart(crashed.name)
      await Promise.all(writes)
    }
    await scene.quiet()
    scene.assertEqual(written)
    assert.deepEqual([node1.gaps(), node2.gaps()], [[], []])
  })

  it('detect silently lost messages by heartbeats when no message follows', async (t) => {
    const scene = new Scene(t)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(['before'])
    await scene.quiet()
    scene.network.cut('node1', 'node2', { silent: true })
    await node1.write(['lost-0', 'lost-1'])
    await delay(50)
    scene.network.heal('node1', 'node2')
    assert.deepEqual(node2.from(node1), ['before'])
    const started = performance.now()
    await scene.quiet()
    assert.ok(performance.now() - started < 4_000, `${performance.now() - started} ms`)
    assert.deepEqual(node2.from(node1), ['before', 'lost-0', 'lost-1'])
    assert.deepEqual(node2.gaps(), [])
  })

  it('detect silently lost messages by the next message', async (t) => {
    const scene = new Scene(t)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    scene.network.cut('node1', 'node2', { silent: true })
    await node1.write(['lost-0', 'lost-1'])
    scene.network.heal('node1', 'node2')
    await node1.write(['next'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['lost-0', 'lost-1', 'next'])
    assert.deepEqual(node2.gaps(), [])
  })

  it('report that a node is down and up again', async (t) => {
    const scene = new Scene(t)
    const [node1] = (await scene.mesh('node1', 'node2')) as [MemoryNode]
    await eventually('it is up', () => node1.events['peer:up']!.some(({ node }) => node === 'node2'))
    scene.network.cut('node2', undefined, { silent: true })
    await eventually('it is down', () => node1.events['peer:down']!.length > 0)
    const ups = node1.events['peer:up']!.length
    scene.network.heal('node2')
    await eventually('it is up again', () => node1.events['peer:up']!.length > ups)
    assert.equal(node1.events['peer:down']!.length, 1)
  })

  it('report the transactions lost with a disk once, and continue', async (t) => {
    const scene = new Scene(t)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('read', 5))
    await scene.quiet()
    scene.network.cut('node1')
    await node1.write(numbered('unread', 3))
    scene.network.crash('node1')
    scene.network.wipeDisk('node1')
    scene.network.restart('node1')
    await node1.write(numbered('after', 2))
    scene.network.heal('node1')
    await scene.quiet()
    assert.deepEqual(node2.gaps(), [['node1', 6, 8, 'recreated']])
    const { connections } = await node2.cluster.status()
    assert.deepEqual(connections[0]?.subscriptions, [
      { schema: 'dev', table: 'dog', publish: true, subscribe: true, gaps: 1, lost: 3 },
    ])
    assert.deepEqual(node2.from(node1), [...numbered('read', 5), ...numbered('after', 2)])
    await node2.write(['from node2'])
    await node1.write(['last'])
    await scene.quiet()
    assert.deepEqual(node1.from(node2), ['from node2'])
    assert.equal(node2.from(node1).at(-1), 'last')
    assert.deepEqual([node1.gaps(), node2.gaps().length], [[], 1])
  })

  /** Wipes a disk after everything on it was read, and continues to write. */
  async function wipeReadDisk(scene: Scene, prepare: () => void, write: () => Promise<void>): Promise<void> {
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('read', 5))
    await scene.quiet()
    prepare()
    scene.network.wipeDisk('node1')
    const writing = node1.write(numbered('after', 5))
    await write()
    await writing
    await scene.quiet()
    assert.deepEqual(node2.from(node1), [...numbered('read', 5), ...numbered('after', 5)])
    assert.deepEqual(node2.gaps(), [])
  }

  it('report no gap for a wiped disk when everything on it was read', async (t) => {
    const scene = new Scene(t)
    await wipeReadDisk(
      scene,
      () => scene.network.cut('node1'),
      async () => {
        await eventually('it is written', () => scene.nodes[0]!.host.outbox.length === 0)
        scene.network.heal('node1')
      },
    )
  })

  it('report no gap while the stream is created again', async (t) => {
    const scene = new Scene(t)
    await wipeReadDisk(
      scene,
      () => scene.network.slowLeaf('node1', 100),
      async () => {},
    )
  })

  it('continue on the same streams after they are closed and opened again', async (t) => {
    const scene = new Scene(t)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('before', 5))
    await node2.cluster.close()
    await node1.write(numbered('meanwhile', 5))
    await node2.open()
    await node1.cluster.close()
    await node1.open()
    await node1.write(numbered('after', 5))
    await scene.quiet()
    const all = ['before', 'meanwhile', 'after'].flatMap((prefix) => numbered(prefix, 5))
    assert.deepEqual(node2.from(node1), all)
    assert.deepEqual(node2.gaps(), [])
  })

  it('report another node of the same name', async (t) => {
    const scene = new Scene(t)
    const node = await scene.start('node1')
    await scene.start('node1')
    await eventually('it is reported', () => node.events['connection:rejected']!.length > 0)
    assert.equal(node.events['connection:rejected']![0]!.node, 'node1')
  })

  it('converge after random cuts, crashes and delays among five nodes', { timeout: 90_000 }, async (t) => {
    const seed = seedOf()
    t.diagnostic(`SEED=${seed}`)
    const random = randomNumbers(seed)
    const below = (count: number) => Math.floor(random() * count)
    const scene = new Scene(t, { seed })
    const { network } = scene
    const nodes = await scene.mesh('node1', 'node2', 'node3', 'node4', 'node5')
    const anyone = () => nodes[below(nodes.length)]!
    const written = new Map<MemoryNode, string[]>(nodes.map((node) => [node, []]))
    const writes: Promise<void>[] = []
    for (let round = 0; round < 120; round++) {
      for (let count = below(4); count >= 0; count--) {
        const node = anyone()
        const ids = numbered(`${node.name}-${round}-${count}`, 1 + below(10))
        written.get(node)!.push(...ids)
        writes.push(node.write(ids))
      }
      const [a, b] = [anyone(), anyone()]
      const silent = random() < 0.5
      const faults = [
        () => a !== b && network.cut(a.name, b.name, { silent }),
        () => network.cut(a.name, undefined, { silent }),
        () => network.heal(a.name),
        () => a !== b && network.heal(a.name, b.name),
        () => network.heal(),
        () => network.crash(a.name, { silent }),
        () => network.restart(a.name),
        () => a !== b && network.delay(a.name, b.name, below(2) * below(20)),
        () => network.slowLeaf(a.name, below(2) * below(20)),
      ]
      faults[below(faults.length)]!()
      await delay(below(30))
      if (random() < 0.3) for (const { name } of nodes) network.restart(name)
    }
    for (const { name } of nodes) network.restart(name)
    for (const a of nodes)
      for (const b of nodes)
        if (a === b) network.slowLeaf(a.name, 0)
        else network.delay(a.name, b.name, 0)
    network.heal()
    await Promise.all(writes)
    await scene.quiet(30_000)
    scene.assertEqual(written)
    for (const node of nodes) assert.deepEqual(node.gaps(), [])
  })
})
