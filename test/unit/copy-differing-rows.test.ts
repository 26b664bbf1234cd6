// Copies into tables with rows: only rows that differ are transferred, whatever interrupts the copy.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import type { Batch } from '../../lib/index.ts'
import { type ClusterNode, eventually, type MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { hostWithRows, storedRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }
const both = [{ ...dog, publish: true, subscribe: true }]

type Copied = { node: string; reason: string; rows: number }

/** `node2` subscribes to `node1`, and the other way round; `copied` are the copies of `node2`. */
async function open(test: TestContext, hosts: readonly [MemoryHost, MemoryHost], options: object = {}) {
  const network = new MemoryNetwork()
  const cluster = await startCluster(2, {
    network,
    subscribe: false,
    host: (name) => hosts[name === 'node1' ? 0 : 1],
    options,
  })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
  await cluster.converged()
  const copied: Copied[] = []
  two.cluster.on('replication:copied', (copy) => void copied.push(copy))
  /** Runs `work` on the first node in such a way that the second one has a gap instead of the transactions. */
  const lose = async (work: () => Promise<unknown>) => {
    network.cut('node1', 'node2')
    await work()
    await eventually('the stream has them', () => one.host.outbox.length === 0)
    await one.cluster.purgeStream(dog)
    network.heal()
  }
  return { network, cluster, one, two, copied, lose }
}

const copiedRows = (copied: readonly Copied[]) => copied.reduce((sum, { rows }) => sum + rows, 0)

describe('a copy into a table with rows', { concurrency: true, timeout: 180_000 }, () => {
  it('of 20,000 rows transfers the 10 that differ', async (test) => {
    const scene = await open(test, [hostWithRows('node1', 20_000), hostWithRows('node1', 20_000)])
    const { cluster, one, two, copied } = scene
    await two.host.insert('dev', 'dog', { id: 'here only' })
    await cluster.converged()
    await scene.lose(async () => {
      for (let id = 0; id < 8; id++) await one.host.update('dev', 'dog', { id: id * 1_000, late: true })
      await one.host.delete('dev', 'dog', 7)
      await one.host.insert('dev', 'dog', { id: 'new' })
    })
    await eventually('it is repaired', () => copied.length > 0, 60_000)
    await cluster.converged()
    assert.deepEqual(
      copied.map(({ reason, rows }) => [reason, rows]),
      [['gap', 10]],
    )
    assert.equal(two.cluster.metrics()!.apply.copied, 10)
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
  })

  it('transfers nothing when all rows are equal, and leaves rows that the source does not have', async (test) => {
    const scene = await open(test, [hostWithRows('node1', 500), hostWithRows('node1', 500)])
    const { cluster, one, two, copied } = scene
    two.host.commitAs({
      id: 'here',
      timestamp: makeTimestamp(0, 0, 'node2'),
      writes: [{ operation: 'insert', ...dog, records: [{ id: 'here only' }] }],
    })
    two.host.outbox = []
    await scene.lose(async () => {
      await one.host.insert('dev', 'dog', { id: 'new' })
      // The row arrives another way.
      const [row] = await one.host.readRows(dog, { keys: ['new'] })
      const writes = [{ operation: 'insert' as const, ...dog, records: [row!.row.record!] }]
      two.host.commitAs({ id: 'x', timestamp: row!.row.timestamp, writes })
      two.host.outbox = []
    })
    await eventually('it is repaired', () => copied.length > 0, 60_000)
    await cluster.converged()
    assert.equal(copiedRows(copied), 0)
    assert.ok(two.host.get('dev', 'dog', 'here only'))
  })

  it('deletes a row whose tombstone is below the horizon of this node', async (test) => {
    const scene = await open(test, [hostWithRows('node1', 100), hostWithRows('node1', 100)])
    const { cluster, one, two, copied } = scene
    await scene.lose(async () => {
      await one.host.delete('dev', 'dog', 7)
      two.host.horizons.set(JSON.stringify(['dev', 'dog']), two.cluster.timestamp())
    })
    await eventually('it is repaired', () => copied.length > 0, 60_000)
    await cluster.converged()
    assert.equal(two.host.get('dev', 'dog', 7), undefined)
    assert.equal(copiedRows(copied), 1)
  })

  it('transfers each row once when it is interrupted, under writes on both sides', async (test) => {
    const scene = await open(test, [hostWithRows('node1', 3_000), hostWithRows('node1', 3_000)], { maxBatch: 50 })
    const { cluster, one, two, copied } = scene
    await scene.lose(async () => {
      for (let id = 0; id < 1_000; id += 100)
        await one.host.update(
          'dev',
          'dog',
          ...Array.from({ length: 100 }, (_, index) => ({ id: id + index, late: true })),
        )
      await two.host.update('dev', 'dog', { id: 2_900, here: true })
    })
    const keys: unknown[] = []
    let refused = 0
    two.host.beforeApply = async ({ isCopy, transactions }: Batch) => {
      if (!isCopy || transactions.length === 0) return
      if (keys.length >= 300 && refused < 3) throw new Error(`refused ${++refused}`)
      for (const { writes } of transactions)
        for (const write of writes) if (write.operation === 'update') keys.push(write.records[0]!.id)
      await one.host.update('dev', 'dog', { id: 2_000 + keys.length, late: true })
    }
    await eventually(
      () => `half is copied: ${keys.length} rows, ${refused} refused`,
      () => keys.length >= 500,
      60_000,
    )
    await two.stop()
    await two.start()
    await eventually('all is copied', () => two.cluster.subscriptions()[0]?.state === 'live', 60_000)
    await cluster.converged()
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
    assert.equal(refused, 3)
    assert.deepEqual(copied, [])
    const late = keys.filter((key) => Number(key) < 1_000)
    assert.deepEqual([late.length, new Set(late).size], [1_000, 1_000])
  })

  it('of a renamed node transfers nothing', async (test) => {
    const scene = await open(test, [hostWithRows('node1', 2_000), hostWithRows('node1', 2_000)])
    const { one, two, cluster } = scene
    const copied: Copied[] = []
    one.cluster.on('replication:copied', (copy) => void copied.push(copy))
    await two.host.insert('dev', 'dog', { id: 'before' })
    await cluster.converged()
    await two.stop()
    const text = await readFile(two.configFile, 'utf8')
    await writeFile(two.configFile, text.replace(JSON.stringify('node2'), JSON.stringify('berlin')))
    await two.start()
    two.cluster.on('replication:copied', (copy) => void copied.push(copy))
    await two.host.insert('dev', 'dog', { id: 'after' })
    const isEqual = () =>
      JSON.stringify(one.host.get('dev', 'dog', 'after')) === '{"id":"after"}' &&
      one.cluster.subscriptions().every(({ state, source }) => source.node !== 'berlin' || state === 'live') &&
      two.cluster.subscriptions().every(({ state }) => state === 'live')
    await eventually('both are live', isEqual)
    assert.ok(copied.some(({ node, reason }) => node === 'berlin' && reason === 'initial'))
    assert.equal(copiedRows(copied), 0)
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
  })
})
