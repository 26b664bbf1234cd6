// A table that is dropped here while it is subscribed: the host decides whether it comes back, and nothing is applied meanwhile.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import { parse, stringify } from 'yaml'
import { eventually } from '../support/cluster.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'
import { both, dog, type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

const source = { node: 'node1', ...dog }
const description = { ...dog, primaryKey: 'id', attributes: ['id'] }
const dropped = 'the table was dropped here: create it, or end the subscription'

/** The tables of a database of which nobody tells the manager. */
function dropSilently({ host }: MemoryNode): void {
  const key = JSON.stringify(['dev', 'dog'])
  host.tables.delete(key)
  host.rows.delete(key)
  host.checkpoints.clear()
}

async function pair(test: TestContext) {
  const scene = new Scene(test)
  const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
  await node1.write(['a', 'b'])
  await scene.quiet()
  return { scene, node1, node2 }
}

const stalled = (node2: MemoryNode, node1: MemoryNode) =>
  eventually('the subscription is stalled', () => node2.of(node1).state === 'stalled' && node2.of(node1))

/** Both nodes have equal rows, and node2 has reported that it read the stream from its first message on. */
async function assertReadAgain(scene: Scene, node1: MemoryNode, node2: MemoryNode): Promise<void> {
  await scene.quiet()
  assert.deepEqual(node2.host.contents('dev', 'dog'), node1.host.contents('dev', 'dog'))
  assert.deepEqual(node2.gaps(), [['node1', 1, 0, 'checkpoint_lost']])
}

describe('a table that was dropped', { concurrency: true, timeout: 180_000 }, () => {
  it('stalls its subscription, and is not created; when the host creates it, all messages are read', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    node2.host.dropTable('dev', 'dog')
    assert.equal((await stalled(node2, node1)).error, dropped)
    await node1.write(['c'])
    await node1.reopen()
    await eventually('node1 is back', () => node2.cluster.peers()[0]!.up)
    await node2.cluster.status()
    assert.deepEqual([...node2.host.tables], [])
    assert.equal(node2.of(node1).state, 'stalled')
    assert.deepEqual(
      node2.events['replication:stalled']!.map(({ error }) => error),
      [dropped],
    )
    await node2.host.createTable(description)
    await assertReadAgain(scene, node1, node2)
  })

  it('is found when the database refuses a batch, without a call of the host', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    dropSilently(node2)
    await node1.write(['c'])
    assert.equal((await stalled(node2, node1)).error, dropped)
    await node2.host.createTable(description)
    await assertReadAgain(scene, node1, node2)
  })

  it('is found when the node opens', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    await node2.cluster.close()
    dropSilently(node2)
    await node2.open()
    assert.equal((await stalled(node2, node1)).error, dropped)
    assert.deepEqual([...node2.host.tables], [])
    await node2.host.createTable(description)
    await assertReadAgain(scene, node1, node2)
  })

  it('may keep its checkpoint: it is deleted, because the rows are gone', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    const checkpoints = [...node2.host.checkpoints]
    dropSilently(node2)
    for (const [key, value] of checkpoints) node2.host.checkpoints.set(key, value)
    await node1.write(['c'])
    await stalled(node2, node1)
    await node2.host.createTable(description)
    await assertReadAgain(scene, node1, node2)
  })

  it('and created again at once is read from the first message on', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    node2.host.dropTable('dev', 'dog')
    await node2.host.createTable(description)
    await assertReadAgain(scene, node1, node2)
    // Continues as before.
    await node1.write(['c'])
    await node2.write(['d'])
    await scene.quiet()
    assert.deepEqual(node2.host.contents('dev', 'dog'), node1.host.contents('dev', 'dog'))
    assert.equal(node2.gaps().length, 1)
  })

  it('and created again while a batch is being applied loses nothing', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    let apply = () => {}
    node2.host.beforeApply = ({ transactions }) =>
      transactions.length === 0
        ? undefined
        : new Promise((resolve) => {
            apply = resolve
          })
    await node1.write(['c'])
    await eventually('the batch is read', () => node2.of(node1).lastSequence === 3)
    node2.host.dropTable('dev', 'dog')
    await node2.host.createTable(description)
    node2.host.beforeApply = undefined
    // The batch and its checkpoint are committed to the new table.
    apply()
    await assertReadAgain(scene, node1, node2)
  })

  it('and created again while a batch fails after its commit loses nothing', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    let fail = () => {}
    const { apply } = node2.host
    node2.host.apply = async (batch) => {
      if (batch.transactions.length === 0) return apply.call(node2.host, batch)
      await new Promise<void>((resolve) => {
        fail = resolve
      })
      await apply.call(node2.host, batch)
      throw new Error('the connection broke')
    }
    await node1.write(['c'])
    await eventually('the batch is read', () => node2.of(node1).lastSequence === 3)
    node2.host.dropTable('dev', 'dog')
    await node2.host.createTable(description)
    node2.host.apply = apply
    fail()
    await assertReadAgain(scene, node1, node2)
  })

  it('ends its stall with its subscription', async (test) => {
    const { node1, node2 } = await pair(test)
    node2.host.dropTable('dev', 'dog')
    await stalled(node2, node1)
    await node2.cluster.removeNode({ node_name: 'node1' })
    await eventually('it ended', () => node2.cluster.subscriptions().length === 0)
    assert.deepEqual([...node2.host.tables], [])
  })

  it('is not created by an update of the remote node, and by an operation here', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    node2.host.dropTable('dev', 'dog')
    await stalled(node2, node1)
    await node1.cluster.updateNode({ node_name: 'node2', subscriptions: [{ ...dog, publish: true, subscribe: false }] })
    assert.deepEqual([...node2.host.tables], [])
    assert.equal(node2.of(node1).state, 'stalled')
    await node2.cluster.updateNode({ node_name: 'node1', subscriptions: both })
    await assertReadAgain(scene, node1, node2)
  })

  it('has a second source whose transactions arrive again as well', async (test) => {
    const clustering = { republishMessages: true }
    const scene = new Scene(test)
    const nodes = await scene.linked(['node1', 'node2', 'node3'], () => true, { clustering })
    const [node1, node2, node3] = nodes as [MemoryNode, MemoryNode, MemoryNode]
    await node1.write(['a'])
    await node2.write(['b'])
    await scene.quiet()
    // Found by one of the two subscriptions; the other one is idle.
    dropSilently(node3)
    await node1.cluster.close()
    await node2.write(['c'])
    await stalled(node3, node2)
    await node3.host.createTable(description)
    await node1.open()
    await scene.quiet()
    assert.deepEqual(node3.host.contents('dev', 'dog'), node2.host.contents('dev', 'dog'))
    assert.deepEqual(node3.host.contents('dev', 'dog').length, 3)
  })

  it('keeps its stream: transactions after it are published behind the older ones', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    node1.host.dropTable('dev', 'dog')
    await node1.host.createTable(description)
    await node1.write(['c'])
    await node1.reopen()
    await node1.write(['d'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1).slice(2), ['c', 'd'])
    assert.deepEqual(node2.gaps(), [])
    assert.equal(node2.of(node1).appliedSequence, 4)
  })
})

describe('a table that a new subscription needs', { concurrency: true, timeout: 180_000 }, () => {
  it('is created as the source describes it, and reported once, by whatever path the subscription came', async (test) => {
    const scene = new Scene(test)
    const node1 = await scene.start('node1')
    await node1.host.write('one', insert('dog', { id: 1, name: 'Rex' }))
    for (const [name, byFile] of [
      ['node2', false],
      ['node3', true],
    ] as const) {
      const node = await scene.start(name, { host: new MemoryHost() })
      const created: unknown[] = []
      node.cluster.on('table:created', (payload) => created.push(payload))
      if (byFile) {
        const config = parse(await readFile(node.configFile, 'utf8'))
        config.clustering.nodes = [{ name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] }]
        await writeFile(node.configFile, stringify(config))
      } else await node.cluster.addNode({ node_name: 'node1', subscriptions: both })
      await eventually('it is live', () => node.of(node1)?.state === 'live')
      assert.deepEqual([...node.host.tables.values()], [...node1.host.tables.values()])
      assert.deepEqual(created, [{ ...dog, node: 'node1' }])
    }
  })
})

it('many subscriptions that open share a few descriptions of the database', { timeout: 120_000 }, async (test) => {
  const tables = numbered('t', 100).map((table): [string, string] => ['dev', table])
  const scene = new Scene(test)
  const node1 = await scene.start('node1', { host: new MemoryHost(tables) })
  const node2 = await scene.start('node2', { host: new MemoryHost(tables) })
  const subscriptions = tables.map(([database, table]) => ({ database, table, publish: true, subscribe: true }))
  await node2.cluster.addNode({ node_name: 'node1', subscriptions })
  let calls = 0
  const { describe } = node2.host
  node2.host.describe = () => {
    calls++
    return describe.call(node2.host)
  }
  await node2.reopen()
  const areLive = () => node2.cluster.subscriptions().every(({ state }) => state === 'live')
  await eventually('all are live', areLive, 60_000)
  // Two for the comparisons with the other node, and one a second.
  assert.ok(calls < tables.length / 2, `${calls} descriptions`)
  assert.equal(node1.cluster.state, 'open')
})

it('tableDropped has no effect without subscriptions, and after closing', async (test) => {
  const node = await new Scene(test).start('node1')
  node.cluster.tableDropped(dog)
  await node.cluster.close()
  node.cluster.tableDropped(source)
})
