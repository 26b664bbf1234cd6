// A database that was restored from a copy is older than its streams: what it commits from then on arrives, whatever the streams hold.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { eventually } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { copyDatabase } from '../support/memory-host-copy.ts'
import { both, dog, type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

type Restored = {
  /** Transactions that are committed before the copy and still in its outbox. */
  unconfirmed?: string[]
  /** Happens to the stream while the database is closed. */
  meanwhile?(node: MemoryNode): Promise<unknown>
  /** The subscriber has not read what was committed after the copy. */
  subscriberAway?: boolean
}

/** Two nodes; the database of the first goes back to a copy from before `lost`. Resolves when it is open again. */
async function restore(test: TestContext, { unconfirmed = [], meanwhile, subscriberAway = false }: Restored = {}) {
  const scene = new Scene(test)
  const node1 = await scene.start('node1')
  const node2 = await scene.start('node2')
  await node2.cluster.addNode({ node_name: 'node1', subscriptions: both })
  await node1.write(numbered('old', 5))
  await scene.quiet()
  const { publish } = node1.host
  // Committed and not published before the copy.
  node1.host.publish = async () => {}
  await node1.write(unconfirmed)
  const goBack = copyDatabase(node1.host)
  node1.host.publish = publish
  if (subscriberAway) await node2.cluster.close()
  await node1.write(numbered('lost', 5))
  await eventually('everything is confirmed', () => node1.host.outbox.length === 0)
  if (!subscriberAway) await scene.quiet()
  await meanwhile?.(node1)
  await node1.cluster.close()
  goBack()
  await node1.open()
  if (subscriberAway) await node2.open()
  return { scene, node1, node2 }
}

async function lastEpoch({ mesh }: MemoryNode) {
  const state = await mesh.streamState({ node: 'node1', ...dog }, { timeout: 1_000 })
  return parseStreamMetadata(state!.description).epochs.at(-1)!
}

/** Asserts that everything new arrives once and in order, and resolves with what arrived before. */
async function assertNewArrives({ scene, node1, node2 }: Awaited<ReturnType<typeof restore>>): Promise<string[]> {
  const added = numbered('new', 7)
  await node1.write(added)
  await scene.quiet()
  const arrived = node2.from(node1)
  assert.deepEqual(arrived.slice(-added.length), added)
  return arrived.slice(0, -added.length)
}

describe('a database that was restored from a copy', { concurrency: true, timeout: 180_000 }, () => {
  it('begins a new epoch behind what the stream has', async (test) => {
    const restored = await restore(test)
    const { node1, node2 } = restored
    assert.deepEqual(await assertNewArrives(restored), [...numbered('old', 5), ...numbered('lost', 5)])
    assert.deepEqual(node2.gaps(), [])
    assert.equal(new Set(node2.host.applied).size, node2.host.applied.length, 'nothing is applied twice')
    const [diverged] = node1.events['replication:diverged']!
    const next = await lastEpoch(node1)
    assert.deepEqual([diverged!.table, diverged!.to, diverged!.epoch], ['dog', next.from - 1, next.epoch])
    assert.ok(diverged!.from <= diverged!.to)
  })

  it('begins it at once, without a commit, when its outbox is empty', async (test) => {
    const { node1 } = await restore(test)
    await eventually('the new epoch', () => node1.events['replication:diverged']!.length === 1)
    const { reason, from, to } = node1.events['replication:diverged']![0]!
    assert.equal((await lastEpoch(node1)).from, to + 1)
    assert.equal(reason, `the outbox does not have the messages ${from} to ${to}`)
  })

  it('continues after the transactions that its outbox and the stream have in common', async (test) => {
    const unconfirmed = ['both-0', 'both-1']
    const restored = await restore(test, { unconfirmed })
    const { node1, node2 } = restored
    const expected = [...numbered('old', 5), ...unconfirmed, ...numbered('lost', 5)]
    assert.deepEqual(await assertNewArrives(restored), expected)
    assert.deepEqual(node2.gaps(), [])
    assert.deepEqual(
      node1.events['replication:diverged']!.map(({ to }) => to),
      [(await lastEpoch(node1)).from - 1],
    )
  })

  for (const [name, options] of [
    ['purged', {}],
    ['purged up to its last messages', { keep: 2 }],
  ] as const)
    it(`takes nothing for stored whose message was ${name}`, async (test) => {
      const meanwhile = ({ cluster }: MemoryNode) => cluster.purgeStream({ ...dog, ...options })
      const restored = await restore(test, { meanwhile })
      assert.deepEqual(await assertNewArrives(restored), [...numbered('old', 5), ...numbered('lost', 5)])
      assert.deepEqual(restored.node2.gaps(), [])
    })

  it('takes nothing for stored whose message has expired', async (test) => {
    const meanwhile = ({ mesh }: MemoryNode) => mesh.setLimits({ maxMsgs: 1 })
    const restored = await restore(test, { meanwhile })
    assert.deepEqual(await assertNewArrives(restored), [...numbered('old', 5), ...numbered('lost', 5)])
  })

  it('leaves a gap to a subscriber that had not read what was purged', async (test) => {
    const meanwhile = ({ cluster }: MemoryNode) => cluster.purgeStream(dog)
    const restored = await restore(test, { meanwhile, subscriberAway: true })
    assert.deepEqual(await assertNewArrives(restored), numbered('old', 5))
    assert.deepEqual(restored.node2.gaps(), [['node1', 6, 10, 'purged']])
  })

  it('lets a subscriber read what only the stream has', async (test) => {
    const restored = await restore(test, { subscriberAway: true })
    assert.deepEqual(await assertNewArrives(restored), [...numbered('old', 5), ...numbered('lost', 5)])
    assert.deepEqual(restored.node2.gaps(), [])
  })

  it('knows the end of an epoch that was over before', async (test) => {
    const scene = new Scene(test)
    const node1 = await scene.start('node1')
    const node2 = await scene.start('node2')
    await node2.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await node1.write(numbered('old', 5))
    await scene.quiet()
    const goBack = copyDatabase(node1.host)
    await node2.cluster.close()
    await node1.write(numbered('lost', 5))
    await eventually('everything is confirmed', () => node1.host.outbox.length === 0)
    // The store is lost, and the database goes back to the first epoch when the second has ended the first.
    await node1.cluster.close()
    scene.network.wipeDisk('node1')
    await node1.open()
    await node1.write(['second'])
    await eventually('it is confirmed', () => node1.host.outbox.length === 0)
    await node1.cluster.close()
    goBack()
    await node1.open()
    await node1.write(numbered('new', 3))
    await node2.open()
    await scene.quiet()
    assert.deepEqual(node2.from(node1), [...numbered('old', 5), 'second', ...numbered('new', 3)])
    assert.deepEqual(node2.gaps(), [['node1', 6, 10, 'recreated']])
  })

  it('and a store that is older too: no new transaction passes for one that was applied', async (test) => {
    const scene = new Scene(test)
    const node1 = await scene.start('node1')
    const node2 = await scene.start('node2')
    await node2.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await node1.write(numbered('old', 3))
    await scene.quiet()
    const goBackStore = scene.network.snapshotDisk('node1')
    await node1.write(numbered('more', 2))
    await scene.quiet()
    const goBack = copyDatabase(node1.host)
    await node1.write(numbered('lost', 5))
    await scene.quiet()
    // The checkpoint stands behind a purged message: no id is known at it.
    await node2.cluster.close()
    await node1.write(['purged'])
    await node1.cluster.purgeStream(dog)
    await node2.open()
    await scene.quiet()
    await node1.cluster.close()
    goBack()
    goBackStore()
    await node1.open()
    await node1.host.write('new', insert('dog', { id: 'new' }))
    await node1.write(numbered('new', 12))
    await scene.quiet()
    for (const id of ['new', ...numbered('new', 12)]) assert.ok(node2.from(node1).includes(id), `${id} arrives`)
  })
})
