// The replicator: the start of a subscription is stored before the subscription is committed, and deleted when it ends.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { HybridClock } from '../../lib/host/hybrid-clock.ts'
import { emptyManifest, makeManifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { loadCheckpoint } from '../../lib/replication/subscribe/checkpoint-version.ts'
import { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { Replicator } from '../../lib/replication/subscribe/replicator.ts'
import { sourceTables } from '../support/begun.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { RemoteStream, source } from '../support/remote-stream.ts'
import { subscriberEvents } from '../support/subscriber-events.ts'

const { node, database, table } = source
const subscribed = makeManifest({
  nodes: [{ name: node, subscriptions: [{ database, table, publish: false, subscribe: true }] }],
})

/** A host that may reject the deletion of checkpoints. */
class RejectingHost extends MemoryHost {
  rejectsDeletes = false

  override async deleteCheckpoint(...args: Parameters<MemoryHost['deleteCheckpoint']>): Promise<void> {
    if (this.rejectsDeletes) throw new Error('not now')
    return super.deleteCheckpoint(...args)
  }
}

async function start(test: TestContext) {
  const [directory, remove] = await temporaryDirectory()
  const stream = new RemoteStream()
  const host = new RejectingHost([['dev', 'dog']])
  const quarantine = await Quarantine.open({
    directory: join(directory, 'q'),
    maxMessages: 10,
    maxBytes: 1e6,
    logger: silentLogger,
  })
  const replicator = new Replicator({
    mesh: stream.mesh,
    host,
    node: 'node2',
    clock: new HybridClock('node2', 300_000),
    quarantine,
    events: subscriberEvents(),
    logger: silentLogger,
    relayEnabled: false,
    relay() {},
    begun: { has: () => false, add() {} },
    sourceTables,
    progress: () => () => {},
    requestTimeout: 10_000,
    maxBatch: 10,
    maxBatchBytes: 1e6,
    maxApplyAttempts: 0,
  })
  test.after(async () => {
    await replicator.close()
    await remove()
  })
  const stored = () => loadCheckpoint(host, source)
  return { stream, host, quarantine, replicator, stored }
}

const concurrently = { concurrency: true, timeout: 30_000 }

describe('the start of a subscription', concurrently, () => {
  it('is the end of the stream at the first call', async (test) => {
    const { stream, replicator, stored } = await start(test)
    stream.last = 5
    await replicator.setStart(source)
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 5 })
    stream.last = 9
    await replicator.setStart(source)
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 5 }, 'the start was set before')
    await replicator.reconcile(subscribed)
    assert.equal((await stream.reader(0)).from, 6)
  })

  it('is at the requested time, once, and again only for another time', async (test) => {
    const { stream, replicator, stored } = await start(test)
    const times: number[] = []
    const { sequenceAt } = stream.mesh
    stream.mesh.sequenceAt = (...args) => {
      times.push(args[1])
      return sequenceAt(...args)
    }
    Object.assign(stream, { first: 3, last: 7 })
    const startTime = '2026-01-01T00:00:00.000Z'
    await replicator.setStart(source, { id: '1', startTime })
    const expected = { epoch: 'e1', sequence: 2, startTime, replayUntil: 7, request: '1' }
    assert.deepEqual([await stored(), times], [expected, [Date.parse(startTime)]])
    stream.first = 5
    for (const same of [{ id: '1', startTime }, undefined]) await replicator.setStart(source, same)
    assert.deepEqual([await stored(), times.length], [expected, 1])
    const now = Date.now()
    const future = new Date(now + 3_600_000).toISOString()
    await replicator.setStart(source, { id: '2', startTime: future })
    assert.deepEqual(await stored(), {
      epoch: 'e1',
      sequence: 4,
      startTime: future,
      replayUntil: 7,
      request: '2',
    })
    assert.ok(times[1]! >= now && times[1]! <= Date.now(), 'a time in the future counts as now')
  })

  it('stops a running subscription while it is set, and reads from there', async (test) => {
    const { stream, host, replicator, stored } = await start(test)
    stream.last = 5
    await replicator.setStart(source)
    await replicator.reconcile(subscribed)
    const first = await stream.reader(0)
    let release = () => {}
    host.beforeApply = () =>
      new Promise((resolve) => {
        release = resolve
      })
    first.give(...stream.entries(6, 6))
    await eventually('it is being applied', () => replicator.status()[0]!.lastSequence === 6)
    const started = replicator.setStart(source, { id: '1', startTime: '2026-01-01T00:00:00.000Z' })
    await new Promise((resolve) => setImmediate(resolve))
    host.beforeApply = undefined
    release()
    await started
    assert.equal((await stored())?.sequence, 0)
    const second = await stream.reader(1)
    assert.deepEqual([first.lost, second.from, replicator.status().length], [true, 1, 1])
  })

  it('stays if the subscriber stored one meanwhile', async (test) => {
    const { stream, replicator, stored } = await start(test)
    const held: (() => void)[] = []
    stream.obstacle = () => new Promise((resolve) => void held.push(resolve))
    stream.last = 3
    await replicator.reconcile(subscribed)
    await eventually('the subscriber requests the state', () => held.length === 1)
    const started = replicator.setStart(source)
    await eventually('setStart requests the state', () => held.length === 2)
    held[0]!()
    await eventually('the subscriber has stored a start', stored)
    stream.obstacle = undefined
    stream.last = 5
    held[1]!()
    await started
    assert.equal((await stored())?.sequence, 3)
  })

  it('is deleted when its request fails, unless the subscription runs', async (test) => {
    const { replicator, stored } = await start(test)
    const undo = await replicator.setStart(source)
    await undo()
    assert.equal(await stored(), undefined)
    const undoLater = await replicator.setStart(source)
    await replicator.reconcile(subscribed)
    await undoLater()
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 0, index: 0 })
  })

  it('of another request stays when a request fails', async (test) => {
    const { stream, replicator, stored } = await start(test)
    stream.last = 5
    await replicator.setStart(source)
    stream.last = 9
    const undo = await replicator.setStart(source)
    await undo()
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 5 })
  })

  it('of a running subscription is restored when the request for another one fails', async (test) => {
    const { stream, replicator, stored } = await start(test)
    stream.last = 5
    await replicator.setStart(source)
    await replicator.reconcile(subscribed)
    await stream.reader(0)
    Object.assign(stream, { first: 9, last: 9 })
    const undo = await replicator.setStart(source, { id: '1', startTime: '2026-01-01T00:00:00.000Z' })
    assert.equal((await stored())?.sequence, 8)
    await undo()
    const restored = (await stored())!
    assert.deepEqual([restored.sequence, restored.startTime], [5, undefined])
  })
})

describe('a subscription that is removed', concurrently, () => {
  it('leaves no data, and starts at the end of the stream when it is added again', async (test) => {
    const { stream, host, quarantine, replicator, stored } = await start(test)
    await replicator.setStart(source)
    await replicator.reconcile(subscribed)
    const reader = await stream.reader(0)
    const [one, two] = stream.entries(1, 2)
    reader.give(one!, { ...two!, data: Buffer.from('garbage') })
    await eventually('one is applied, one quarantined', () => host.applied.length === 1 && quarantine.size === 1)
    await replicator.reconcile(emptyManifest)
    assert.deepEqual([await stored(), quarantine.size, replicator.status(), reader.lost], [undefined, 0, [], true])
    stream.last = 7
    await replicator.setStart(source)
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 7 }, 'the old checkpoint has no effect')
  })

  it('is deleted later when the database rejects that: before the next start, or with the next change', async (test) => {
    const { stream, host, replicator, stored } = await start(test)
    const remove = async () => {
      await replicator.setStart(source)
      await replicator.reconcile(subscribed)
      host.rejectsDeletes = true
      await replicator.reconcile(emptyManifest)
      host.rejectsDeletes = false
      assert.ok(await stored())
    }
    await remove()
    stream.last = 7
    await replicator.setStart(source)
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 7 })
    await remove()
    await replicator.reconcile(emptyManifest)
    assert.equal(await stored(), undefined)
  })

  it('and added again at once is ended first', async (test) => {
    const { stream, host, replicator } = await start(test)
    await replicator.setStart(source)
    await replicator.reconcile(subscribed)
    const reader = await stream.reader(0)
    let release = () => {}
    host.beforeApply = () =>
      new Promise((resolve) => {
        release = resolve
      })
    reader.give(...stream.entries(1, 1))
    await eventually('it is being applied', () => replicator.status()[0]!.lastSequence === 1)
    const changes = Promise.all([replicator.reconcile(emptyManifest), replicator.reconcile(subscribed)])
    await new Promise((resolve) => setImmediate(resolve))
    host.beforeApply = undefined
    release()
    await changes
    assert.equal(replicator.status().length, 1)
  })
})

describe('a subscription that stays', concurrently, () => {
  it('is not affected by other changes', async (test) => {
    const { stream, replicator } = await start(test)
    await replicator.setStart(source)
    await replicator.reconcile(subscribed)
    const reader = await stream.reader(0)
    await replicator.reconcile(makeManifest({ ...subscribed, nodes: [...subscribed.nodes] }))
    assert.deepEqual([stream.readers.length, reader.lost], [1, false])
  })

  it('reads again at once after every server restart, and with intervals after a long silence', async (test) => {
    const { stream, replicator } = await start(test)
    await replicator.setStart(source)
    await replicator.reconcile(subscribed)
    const returned = (node: string, restarted: boolean, silence: number) =>
      replicator.onPeerReturned(node, { restarted, silence })
    for (let times = 0; times < 3; times++) {
      const reader = await stream.reader(times)
      await new Promise((resolve) => setImmediate(resolve))
      returned('another', true, 1_600)
      returned(node, false, 10_000)
      assert.equal(reader.lost, false)
      returned(node, true, 1_600)
      assert.equal(reader.lost, true)
    }
    const last = await stream.reader(3)
    await new Promise((resolve) => setImmediate(resolve))
    returned(node, false, 60_000)
    assert.equal(last.lost, true)
    const reader = await stream.reader(4)
    await new Promise((resolve) => setImmediate(resolve))
    returned(node, false, 60_000)
    assert.equal(reader.lost, false)
  })
})
