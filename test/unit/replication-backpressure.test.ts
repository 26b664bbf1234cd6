// A slow or missing node costs the others neither memory nor time.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

const tables = ['dog', 'cat'].map((table) => ({ database: 'dev', table, publish: true, subscribe: true }))

async function pair(scene: Scene): Promise<[MemoryNode, MemoryNode]> {
  const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
  await node1.host.createTable({ database: 'dev', table: 'cat', primaryKey: 'id', attributes: ['id'] })
  await node1.cluster.updateNode({ node_name: 'node2', subscriptions: tables })
  await scene.quiet()
  return [node1, node2]
}

describe('backpressure', { concurrency: true }, () => {
  it('without a leaf: publish rejects in time, memory stays bounded, and everything arrives later', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.reopen({ publishTimeout: 300, maxInFlight: 100 })
    await scene.quiet()
    scene.network.crash('node1')
    const ids = numbered('held', 1_000)
    const started = Date.now()
    const outcomes = await Promise.allSettled(ids.map((id) => node1.host.write(id, insert('dog', { id }))))
    assert.ok(Date.now() - started < 3_000)
    for (const outcome of outcomes)
      assert.equal(outcome.status === 'rejected' && outcome.reason.code, 'publish_timeout')
    const { inFlight, inFlightBytes, waiting, timeouts } = node1.cluster.metrics()!.publish
    assert.deepEqual([inFlight, waiting, timeouts], [100, 0, 1_000])
    assert.ok(inFlightBytes > 0)
    // Calls beyond the limit are rejected at once.
    const more = numbered('more', 1_500).map((id) => node1.host.write(id, insert('dog', { id })))
    const firstWaiting = more[0]!.catch(() => 'timed out')
    assert.notEqual(await Promise.race([Promise.allSettled(more.slice(1_001)), firstWaiting]), 'timed out', 'at once')
    await Promise.allSettled(more)
    scene.network.restart('node1')
    await scene.quiet()
    assert.deepEqual(node2.from(node1), [...ids, ...numbered('more', 1_500)])
    assert.deepEqual(node1.cluster.metrics()!.publish.inFlight, 0)
  })

  it('with a slow database: at most two batches of a table are in memory, and the rest stays in the stream', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node2.reopen({ maxBatch: 10 })
    await scene.quiet()
    let release = () => {}
    const gate = new Promise<void>((resolve) => {
      release = resolve
    })
    const sizes: number[] = []
    node2.host.beforeApply = async ({ transactions }) => {
      sizes.push(transactions.length)
      await gate
    }
    await node1.writeEach(numbered('many', 500))
    await eventually('the first batch is there', () => sizes.length === 1)
    await eventually('the lag is known', () => node2.of(node1).lastSequence === 500)
    assert.equal(node2.of(node1).lag, 500)
    assert.ok(node2.cluster.metrics()!.apply.bytes < 25 * (node1.cluster.metrics()!.publish.bytes / 500))
    release()
    await scene.quiet()
    assert.ok(Math.max(...sizes) <= 10)
    assert.deepEqual(node2.from(node1), numbered('many', 500))
  })

  it('between tables: one that catches up does not delay another', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node2.cluster.close()
    await node1.write(numbered('old', 3_000))
    node2.host.beforeApply = () => delay(5)
    await node2.open({ maxBatch: 10 })
    await eventually('it is catching up', () => node2.from(node1).length > 0)
    for (const id of numbered('live', 20)) {
      await node1.write([id], 'cat')
      await eventually('it arrives', () => node2.from(node1, 'cat').at(-1) === id)
    }
    assert.ok(node2.from(node1).length < 3_000, 'the other one is still catching up')
    assert.equal(node2.of(node1).state, 'catching-up')
    assert.ok(node2.of(node1).lagSeconds > 0)
    node2.host.beforeApply = undefined
    await scene.quiet()
    assert.deepEqual(node2.from(node1), numbered('old', 3_000))
  })
})
