// A new node copies the rows that another one had before clustering, on real servers, while both are written to.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Payload } from '../../lib/index.ts'
import { type ClusterNode, eventually, startCluster } from '../../lib/testing.ts'
import { isRunning, serverPid } from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import { hostWithRows, storedRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }
const both = [{ ...dog, publish: true, subscribe: true }]
const ROWS = isLong ? 50_000 : 20_000

async function open(test: TestContext, requestTimeout = 10_000) {
  const cluster = await startCluster(2, {
    subscribe: false,
    host: (name) => hostWithRows(name, name === 'node1' ? ROWS : 0),
    options: { requestTimeout },
  })
  test.after(() => cluster.close())
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const copied: Payload<'replication:copied'>[] = []
  two.cluster.on('replication:copied', (payload) => copied.push(payload))
  return { cluster, one, two, copied }
}

/** Both nodes write until the returned function is called: new rows, and updates and deletes of old ones. */
function write(test: TestContext, nodes: readonly ClusterNode[]): () => Promise<number> {
  let isWriting = true
  test.after(() => {
    isWriting = false
  })
  let count = 0
  const loops = nodes.map(async ({ name, host }, index) => {
    while (isWriting) {
      const id = (count++ * 7919 + index) % ROWS
      // A stopped node, or one whose server was killed, does not confirm in time: the outbox keeps the transaction.
      await Promise.all([
        host.update('dev', 'dog', { id, [name]: count }),
        host.insert('dev', 'dog', { id: `${name}-${count}`, count }),
        host.delete('dev', 'dog', (id * 31) % ROWS),
      ]).catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  })
  return async () => {
    isWriting = false
    await Promise.all(loops)
    return count
  }
}

/** Resolves when `rows` rows are copied; the copy waits until the returned function is called. */
async function holdCopy({ host }: ClusterNode, rows: number): Promise<() => void> {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  await new Promise<void>((resolve) => {
    host.beforeApply = async ({ isCopy, checkpoint }) => {
      if (!isCopy || (checkpoint.copy?.rows ?? 0) < rows) return
      resolve()
      await released
    }
  })
  return () => {
    host.beforeApply = undefined
    release()
  }
}

describe('a node with many rows, and a new one', { timeout: 120_000 }, () => {
  it('end equal while both are written to', async (test) => {
    const { cluster, one, two, copied } = await open(test)
    const stopOne = write(test, [one])
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    const stopTwo = write(test, [two])
    await eventually(
      () => `the rows are copied: ${JSON.stringify(two.cluster.subscriptions())}`,
      () => copied.length > 0,
      30_000,
    )
    assert.ok((await stopOne()) > 0 && (await stopTwo()) > 0)
    await cluster.converged(30_000)
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
    assert.equal(copied.length, 1)
    assert.equal(copied[0]!.reason, 'initial')
    assert.ok(copied[0]!.rows >= ROWS)
    assert.deepEqual(one.cluster.metrics()!.apply.copied, 0)
  })

  it('end equal when the servers of the source are killed in the middle', async (test) => {
    const { cluster, one, two, copied } = await open(test)
    const stopOne = write(test, [one])
    const held = holdCopy(two, ROWS / 4)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    const stopTwo = write(test, [two])
    const release = await held
    for (const kind of ['hub', 'leaf'] as const) {
      const pid = await eventually(`the ${kind} runs`, () => serverPid(one, kind))
      process.kill(pid, 'SIGKILL')
      await eventually(`the ${kind} is gone`, async () => !(await isRunning(pid)))
    }
    release()
    await eventually(
      () => `the rows are copied: ${JSON.stringify(two.cluster.subscriptions())}`,
      () => copied.length > 0,
      30_000,
    )
    await Promise.all([stopOne(), stopTwo()])
    await cluster.converged(60_000)
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
    assert.equal(copied.length, 1)
  })

  it('end equal when the source is closed in the middle, and the new node too', async (test) => {
    // The request for the next page is not answered.
    const { cluster, one, two, copied } = await open(test, 3_000)
    const held = holdCopy(two, ROWS / 4)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    const release = await held
    await one.stop()
    release()
    const { copy, state } = await eventually(
      () => `the copy waits: ${JSON.stringify(two.cluster.subscriptions())}`,
      () => two.cluster.subscriptions().find(({ error }) => error !== undefined),
      30_000,
    )
    assert.ok(state === 'copying' || state === 'pending', state)
    assert.ok(copy && copy.rows >= ROWS / 4 && copy.rows < ROWS, JSON.stringify(copy))
    await two.stop()
    await one.start()
    await one.host.update('dev', 'dog', { id: 1, later: true })
    await two.start()
    two.cluster.on('replication:copied', (payload) => copied.push(payload))
    await eventually(
      () => `the rows are copied: ${JSON.stringify(two.cluster.subscriptions())}`,
      () => copied.length > 0,
      30_000,
    )
    await cluster.converged(60_000)
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
    const { copied: since } = two.cluster.subscriptions()[0]!
    assert.ok(since < ROWS, `${since} rows were copied after the restart`)
  })
})
