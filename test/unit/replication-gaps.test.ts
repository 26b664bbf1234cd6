// A gap is reported once, with its bounds and the reason, and replication continues. Nothing else is reported as a gap.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { parse, stringify } from 'yaml'
import { eventually } from '../support/cluster.ts'
import { type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

/** Sets limits of the streams of `node` in its configuration file. */
async function setLimits(node: MemoryNode, streams: object): Promise<void> {
  const file = parse(await readFile(node.configFile, 'utf8'))
  file.clustering.leafServer = { streams }
  await writeFile(node.configFile, stringify(file))
}

/** node2 applies `read`. While it is cut off, node1 writes `unread` and then runs `change`. Resolves with what node2 applies afterwards. */
async function runWhileCut(scene: Scene, change: (node1: MemoryNode, node2: MemoryNode) => Promise<unknown>) {
  const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
  await node1.writeEach(numbered('read', 5))
  await scene.quiet()
  scene.network.cut('node1', 'node2')
  await node1.writeEach(numbered('unread', 5))
  await change(node1, node2)
  scene.network.heal()
  await scene.quiet()
  await node1.write(['after'])
  await scene.quiet()
  return { node1, node2, arrived: node2.from(node1).slice(5) }
}

const purge = (options?: { keep?: number; seq?: number }) => (node: MemoryNode) =>
  node.cluster.purgeStream({ database: 'dev', table: 'dog', ...(options ? { options } : {}) })

const cases: {
  name: string
  change: Parameters<typeof runWhileCut>[1]
  gaps: [from: number, to: number, reason: string][]
  arrived: string[]
}[] = [
  { name: 'nothing', change: async () => {}, gaps: [], arrived: [...numbered('unread', 5), 'after'] },
  { name: 'a purge of all', change: purge(), gaps: [[6, 10, 'purged']], arrived: ['after'] },
  {
    name: 'a purge that keeps the last',
    change: purge({ keep: 2 }),
    gaps: [[6, 8, 'purged']],
    arrived: ['unread-3', 'unread-4', 'after'],
  },
  {
    name: 'a purge up to a sequence',
    change: purge({ seq: 8 }),
    gaps: [[6, 7, 'purged']],
    arrived: ['unread-2', 'unread-3', 'unread-4', 'after'],
  },
  { name: 'a purge beyond the end', change: purge({ seq: 100 }), gaps: [[6, 10, 'purged']], arrived: ['after'] },
  {
    name: 'a purge of applied messages',
    change: purge({ seq: 6 }),
    gaps: [],
    arrived: [...numbered('unread', 5), 'after'],
  },
  {
    name: 'two purges with writes between them',
    change: async (node) => {
      await purge()(node)
      await node.writeEach(numbered('more', 3))
      await purge({ keep: 1 })(node)
    },
    gaps: [[6, 12, 'purged']],
    arrived: ['more-2', 'after'],
  },
  {
    name: 'retention by count',
    change: async (node) => {
      await setLimits(node, { maxMsgs: 3 })
      await eventually(
        'the limit is in effect',
        async () =>
          (await node.mesh.streamState({ node: 'node1', database: 'dev', table: 'dog' }, { timeout: 1_000 }))
            ?.messages === 3,
      )
    },
    gaps: [[6, 7, 'expired']],
    arrived: ['unread-2', 'unread-3', 'unread-4', 'after'],
  },
  {
    name: 'a purge, and retention after it',
    change: async (node) => {
      await purge({ seq: 8 })(node)
      await setLimits(node, { maxMsgs: 2 })
      await eventually(
        'the limit is in effect',
        async () =>
          (await node.mesh.streamState({ node: 'node1', database: 'dev', table: 'dog' }, { timeout: 1_000 }))
            ?.messages === 2,
      )
    },
    gaps: [
      [6, 7, 'purged'],
      [8, 8, 'expired'],
    ],
    arrived: ['unread-3', 'unread-4', 'after'],
  },
]

describe('a gap', { concurrency: 3 }, () => {
  for (const { name, change, gaps, arrived } of cases)
    it(`after ${name}`, { timeout: 60_000 }, async (test) => {
      const scene = new Scene(test)
      const { node1, node2, arrived: came } = await runWhileCut(scene, change)
      assert.deepEqual(
        node2.gaps(),
        gaps.map((gap) => ['node1', ...gap]),
      )
      assert.deepEqual(came, arrived)
      const { gaps: count, lost } = node2.of(node1)
      const total = gaps.reduce((sum, [from, to]) => sum + to - from + 1, 0)
      assert.deepEqual([count, lost], [gaps.length, total])
      await node2.reopen()
      await scene.quiet()
      assert.equal(node2.gaps().length, gaps.length, 'the gap is reported once')
      assert.deepEqual([node2.of(node1).gaps, node2.of(node1).lost], [count, lost], 'and the counters persist')
    })

  it('after the loss of the store', async (test) => {
    const scene = new Scene(test)
    const { node2, arrived } = await runWhileCut(scene, async (node1) => {
      scene.network.wipeDisk('node1')
      await node1.write(['recreated'])
    })
    assert.deepEqual(node2.gaps(), [['node1', 6, 10, 'recreated']])
    assert.deepEqual(arrived, ['recreated', 'after'])
  })

  it('after the loss of store and process: applied messages without confirmation are not applied again', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('confirmed', 5))
    await scene.quiet()
    const published = node1.host.confirmPublished.bind(node1.host)
    node1.host.confirmPublished = () => Promise.reject(new Error('the process is about to exit'))
    await node1.reopen()
    await node1.write(numbered('unconfirmed', 5))
    await eventually('all are applied', () => node2.from(node1).length === 10)
    await node1.cluster.close()
    scene.network.wipeDisk('node1')
    node1.host.confirmPublished = published
    await node1.open()
    await node1.write(['after'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), [...numbered('confirmed', 5), ...numbered('unconfirmed', 5), 'after'])
    assert.deepEqual(node2.gaps(), [])
    // The applied ranges contain all six of the new stream, in case they arrive by another path.
    const { epoch = '', applied } =
      (await node2.host.loadCheckpoint({ node: 'node1', database: 'dev', table: 'dog' })) ?? {}
    assert.deepEqual(
      applied?.node1?.[epoch]?.map(([from, to]) => [from, to]),
      [[1, 6]],
    )
  })

  it('after the restore of a store from a backup', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('read', 5))
    await scene.quiet()
    const restore = scene.network.snapshotDisk('node1')
    await node1.write(numbered('seen', 3))
    await scene.quiet()
    scene.network.cut('node1', 'node2')
    await node1.write(numbered('unread', 4))
    restore()
    await node1.write(['after the restore'])
    scene.network.heal()
    await scene.quiet()
    // 6 to 8 were applied before they were lost.
    assert.deepEqual(node2.gaps(), [['node1', 9, 12, 'rewound']])
    assert.deepEqual(node2.from(node1), [...numbered('read', 5), ...numbered('seen', 3), 'after the restore'])
    assert.deepEqual(node1.gaps(), [])
  })

  it('does not follow the restore of a store when everything was applied', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('read', 5))
    const restore = scene.network.snapshotDisk('node1')
    await node1.write(numbered('seen', 3))
    await scene.quiet()
    restore()
    await node1.write(['after the restore'])
    await scene.quiet()
    assert.deepEqual(node2.gaps(), [])
    assert.deepEqual(node2.from(node1), [...numbered('read', 5), ...numbered('seen', 3), 'after the restore'])
  })
})

describe('a node whose store and database were restored together', { concurrency: 2 }, () => {
  /** Restores node1 to its state after `read`, when node2 has applied `later` too. */
  async function restored(scene: Scene) {
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('read', 3))
    await scene.quiet()
    const restore = scene.network.snapshotDisk('node1')
    const progress = new Map(node1.host.publishedPositions)
    await node1.write(numbered('later', 3))
    await scene.quiet()
    await node1.cluster.close()
    restore()
    node1.host.publishedPositions.clear()
    for (const [key, value] of progress) node1.host.publishedPositions.set(key, value)
    return [node1, node2] as const
  }

  it('and that wrote beyond the checkpoint is detected by the id of the message at the checkpoint, and read again', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await restored(scene)
    scene.network.cut('node1', 'node2')
    await node1.open()
    await node1.write(numbered('new', 5))
    scene.network.heal()
    await scene.quiet()
    assert.deepEqual(node2.gaps(), [['node1', 1, 6, 'rewound']])
    for (const id of numbered('new', 5)) assert.equal(node2.from(node1).filter((each) => each === id).length, 1, id)
    await node1.write(['after'])
    await scene.quiet()
    assert.equal(node2.from(node1).at(-1), 'after')
    assert.equal(node2.gaps().length, 1)
  })

  it('and that wrote less is detected by the position that its writer reports', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await restored(scene)
    await node1.open()
    await node1.write(['new'])
    await eventually('it arrives', () => node2.from(node1).includes('new'))
    await scene.quiet()
    assert.deepEqual(
      node2.gaps().map(([node, , , reason]) => [node, reason]),
      [['node1', 'rewound']],
    )
  })
})
