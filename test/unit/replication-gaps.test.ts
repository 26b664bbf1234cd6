// What a subscriber can no longer get is told once, with its bounds and the reason, and the flow goes on. Nothing else is.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { parse, stringify } from 'yaml'
import { eventually } from '../support/cluster.ts'
import { type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

/** Of the streams of `node`, by its file. */
async function limit(node: MemoryNode, streams: object): Promise<void> {
  const file = parse(await readFile(node.configFile, 'utf8'))
  file.clustering.leafServer = { streams }
  await writeFile(node.configFile, stringify(file))
}

/** node1 writes `read`, node2 reads it, and then `unread` is written which node2 does not see before `how` was done. */
async function unseen(scene: Scene, how: (node1: MemoryNode, node2: MemoryNode) => Promise<unknown>) {
  const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
  await node1.write(numbered('read', 5))
  await scene.quiet()
  scene.network.cut('node1', 'node2')
  await node1.write(numbered('unread', 5))
  await how(node1, node2)
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
  how: Parameters<typeof unseen>[1]
  gaps: [from: number, to: number, reason: string][]
  arrived: string[]
}[] = [
  { name: 'nothing', how: async () => {}, gaps: [], arrived: [...numbered('unread', 5), 'after'] },
  { name: 'a purge of all', how: purge(), gaps: [[6, 10, 'purged']], arrived: ['after'] },
  {
    name: 'a purge but for the last',
    how: purge({ keep: 2 }),
    gaps: [[6, 8, 'purged']],
    arrived: ['unread-3', 'unread-4', 'after'],
  },
  {
    name: 'a purge up to a sequence',
    how: purge({ seq: 8 }),
    gaps: [[6, 7, 'purged']],
    arrived: ['unread-2', 'unread-3', 'unread-4', 'after'],
  },
  { name: 'a purge beyond the end', how: purge({ seq: 100 }), gaps: [[6, 10, 'purged']], arrived: ['after'] },
  { name: 'a purge of what was read', how: purge({ seq: 6 }), gaps: [], arrived: [...numbered('unread', 5), 'after'] },
  {
    name: 'two purges with more between them',
    how: async (node) => {
      await purge()(node)
      await node.write(numbered('more', 3))
      await purge({ keep: 1 })(node)
    },
    gaps: [[6, 12, 'purged']],
    arrived: ['more-2', 'after'],
  },
  {
    name: 'retention by count',
    how: async (node) => {
      await limit(node, { maxMsgs: 3 })
      await eventually(
        'it is in effect',
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
    how: async (node) => {
      await purge({ seq: 8 })(node)
      await limit(node, { maxMsgs: 2 })
      await eventually(
        'it is in effect',
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

describe('what a stream no longer has when its subscriber comes', { concurrency: 3 }, () => {
  for (const { name, how, gaps, arrived } of cases)
    it(`by ${name}`, { timeout: 60_000 }, async (test) => {
      const scene = new Scene(test)
      const { node1, node2, arrived: came } = await unseen(scene, how)
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
      assert.equal(node2.gaps().length, gaps.length, 'it is told once')
      assert.deepEqual([node2.of(node1).gaps, node2.of(node1).lost], [count, lost], 'and counted for ever')
    })

  it('by a store that was lost', async (test) => {
    const scene = new Scene(test)
    const { node2, arrived } = await unseen(scene, async (node1) => {
      scene.network.wipeDisk('node1')
      await node1.write(['anew'])
    })
    assert.deepEqual(node2.gaps(), [['node1', 6, 10, 'recreated']])
    assert.deepEqual(arrived, ['anew', 'after'])
  })

  it('by a store that was lost together with the process: what had been read unconfirmed is not applied again', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('confirmed', 5))
    await scene.quiet()
    const published = node1.host.confirmPublished.bind(node1.host)
    node1.host.confirmPublished = () => Promise.reject(new Error('its process is about to die'))
    await node1.reopen()
    await node1.write(numbered('unconfirmed', 5))
    await eventually('it is read', () => node2.from(node1).length === 10)
    await node1.cluster.close()
    scene.network.wipeDisk('node1')
    node1.host.confirmPublished = published
    await node1.open()
    await node1.write(['after'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), [...numbered('confirmed', 5), ...numbered('unconfirmed', 5), 'after'])
    assert.deepEqual(node2.gaps(), [])
    // All six of the new stream are known, should they come by another path.
    const { epoch = '', applied } =
      (await node2.host.loadCheckpoint({ node: 'node1', database: 'dev', table: 'dog' })) ?? {}
    assert.deepEqual(applied?.node1?.[epoch], [[1, 6]])
  })

  it('by a store that was brought back from a copy', async (test) => {
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
    await node1.write(['behind the copy'])
    scene.network.heal()
    await scene.quiet()
    // 6 to 8 were read before they were lost.
    assert.deepEqual(node2.gaps(), [['node1', 9, 12, 'rewound']])
    assert.deepEqual(node2.from(node1), [...numbered('read', 5), ...numbered('seen', 3), 'behind the copy'])
    assert.deepEqual(node1.gaps(), [])
  })

  it('by a store from a copy of which all had been read: nothing is lost', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.write(numbered('read', 5))
    const restore = scene.network.snapshotDisk('node1')
    await node1.write(numbered('seen', 3))
    await scene.quiet()
    restore()
    await node1.write(['behind the copy'])
    await scene.quiet()
    assert.deepEqual(node2.gaps(), [])
    assert.deepEqual(node2.from(node1), [...numbered('read', 5), ...numbered('seen', 3), 'behind the copy'])
  })
})

describe('a node whose store and database went back in time together', { concurrency: 2 }, () => {
  /** node1 as it was after `read`, when node2 has read `later` too. */
  async function wentBack(scene: Scene) {
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

  it('and that wrote on beyond what was read: seen by the message at our place, told, and read again', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await wentBack(scene)
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

  it('and that wrote less: seen by what its writer announces', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await wentBack(scene)
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
