// Quarantine: invalid messages do not stop replication, stay until they are replayed or discarded, and nothing is applied twice.

import assert from 'node:assert/strict'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { TestClock } from '../../lib/testing.ts'
import { eventually } from '../support/cluster.ts'
import { dog, type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

const HOUR_MS = 3_600_000
const source = { node: 'node1', ...dog }
const directoryOf = (node: MemoryNode) => join(dirname(node.configFile), 'clustering', 'quarantine')

/** Writes transactions with timestamps that are an hour ahead. */
async function writeAhead(node: MemoryNode, ids: readonly string[]): Promise<void> {
  const { timestamp } = node.host
  node.host.timestamp = () => makeTimestamp(Date.now() + HOUR_MS, 0, node.name)
  await node.write(ids)
  node.host.timestamp = timestamp
}

/** Appends a message that is not a valid transaction to the stream of `node`. */
async function writeGarbage(node: MemoryNode, header = {}): Promise<void> {
  const { lastSequence } = (await node.mesh.streamState({ node: node.name, ...dog }, { timeout: 1_000 }))!
  await new Promise<void>((resolve, reject) =>
    node.mesh.append(dog, { data: Buffer.from('garbage'), headers: header }, { sequence: lastSequence }, (error) =>
      error ? reject(error) : resolve(),
    ),
  )
}

const pair = async (scene: Scene) => (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]

describe('a timestamp too far in the future', { concurrency: true }, () => {
  it('is quarantined, reported, and applied once when the clocks agree', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.write(['before'])
    await writeAhead(node1, ['ahead-1', 'ahead-2'])
    await node1.write(['after'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['before', 'after'])
    const reported = node2.events['replication:quarantined']!
    assert.deepEqual(
      reported.map(({ sequence }) => sequence),
      [2, 3],
    )
    assert.match(reported[0]!.error, /too far in the future/)
    assert.equal(node2.of(node1).quarantined, 2)
    assert.equal(node2.cluster.metrics()!.apply.quarantined, 2)
    assert.equal(node2.of(node1).state, 'live')
    const [first] = node2.cluster.quarantine.list(source)
    assert.equal(first!.id, 'ahead-1')
    assert.ok(first!.bytes > 0 && Math.abs(first!.quarantinedAt - Date.now()) < 60_000)
    // The timestamps are still ahead.
    assert.deepEqual(await node2.cluster.quarantine.replay(source), { applied: [], voided: [], kept: [2, 3] })
    // The local clock was not advanced.
    assert.ok(node2.cluster.timestamp() < makeTimestamp(Date.now() + HOUR_MS / 2, 0, 'x'))

    // While the source is away, nothing is released automatically.
    scene.network.cut('node1', 'node2')
    await node2.reopen({ maxClockDrift: 2 * HOUR_MS })
    assert.equal(node2.of(node1).quarantined, 2, 'the quarantine persists')
    assert.deepEqual(await node2.cluster.quarantine.replay(source, [3]), { applied: [3], voided: [], kept: [] })
    assert.deepEqual(await node2.cluster.quarantine.replay(source), { applied: [2], voided: [], kept: [] })
    assert.deepEqual(await node2.cluster.quarantine.replay(source), { applied: [], voided: [], kept: [] })
    scene.network.heal('node1', 'node2')
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['before', 'after', 'ahead-2', 'ahead-1'])
    assert.equal(node2.of(node1).quarantined, 0)
    assert.deepEqual(await readdir(directoryOf(node2)), [])
    assert.deepEqual(node2.host.contents('dev', 'dog'), node1.host.contents('dev', 'dog'))
    await node2.reopen({ maxClockDrift: 2 * HOUR_MS })
    await node1.write(['last'])
    await scene.quiet()
    assert.equal(node2.from(node1).length, 5, 'nothing is applied twice')
    assert.deepEqual(node2.gaps(), [])
  })

  it('can be discarded, and is not read again', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await writeAhead(node1, ['ahead'])
    await node1.write(['after'])
    await scene.quiet()
    assert.deepEqual(await node2.cluster.quarantine.discard(source), [1])
    await node2.reopen({ maxClockDrift: 2 * HOUR_MS })
    await scene.quiet()
    assert.deepEqual(node2.cluster.quarantine.list(), [])
    assert.deepEqual(node2.from(node1), ['after'])
  })

  it('by two paths is quarantined once, and applied once', async (test) => {
    const scene = new Scene(test)
    const clustering = { republishMessages: true }
    const nodes = await scene.linked(['node1', 'node2', 'node3'], () => true, { clustering })
    const [node1, node2, node3] = nodes as [MemoryNode, MemoryNode, MemoryNode]
    // node2 accepts it and relays it to node3, which does not accept it.
    await node2.reopen({ maxClockDrift: 2 * HOUR_MS })
    await scene.quiet()
    await writeAhead(node1, ['ahead'])
    await scene.quiet()
    assert.deepEqual(node3.host.applied, [])
    assert.equal(node3.cluster.quarantine.list().length, 1)
    const [message] = node3.cluster.quarantine.list()
    await node3.reopen({ maxClockDrift: 2 * HOUR_MS })
    await scene.quiet()
    assert.deepEqual((await node3.cluster.quarantine.replay(message!.source)).kept, [])
    await scene.quiet()
    assert.equal(node3.host.received.length, 1)
    for (const node of nodes) assert.deepEqual(node.host.contents('dev', 'dog'), [{ id: 'ahead' }], node.name)
  })
})

describe('an unreadable message', { concurrency: true }, () => {
  it('is quarantined, does not stop later messages, and stays when it is replayed', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.write(['before'])
    await writeGarbage(node1)
    await node1.write(['after'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['before', 'after'])
    const [message] = node2.cluster.quarantine.list()
    assert.deepEqual([message!.sequence, message!.id, message!.bytes], [2, undefined, 'garbage'.length])
    assert.deepEqual(await node2.cluster.quarantine.replay(source), { applied: [], voided: [], kept: [2] })
    assert.deepEqual(node2.gaps(), [])
  })

  it('fills the quarantine, which then stalls the subscription and drops nothing', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node2.reopen({ maxQuarantined: 2 })
    await scene.quiet()
    for (let count = 0; count < 3; count++) await writeGarbage(node1)
    await node1.write(['after'])
    const stalled = await eventually('it stalls', () => node2.events['replication:stalled']![0])
    assert.match(stalled.error, /quarantine is full/)
    assert.equal(stalled.sequence, 3)
    assert.deepEqual([node2.of(node1).state, node2.of(node1).quarantined], ['stalled', 2])
    assert.deepEqual(node2.from(node1), [])
    assert.deepEqual(await node2.cluster.quarantine.discard(source, [1]), [1])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['after'])
    assert.deepEqual(
      node2.cluster.quarantine.list().map(({ sequence }) => sequence),
      [2, 3],
    )
  })

  it('is removed with its subscription', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await writeGarbage(node1)
    await eventually('it is quarantined', () => node2.cluster.quarantine.list().length === 1)
    await node2.cluster.removeNode({ node_name: 'node1' })
    await eventually('the quarantine is empty', () => node2.cluster.quarantine.list().length === 0)
    await assert.rejects(node2.cluster.quarantine.replay(source), { code: 'subscription_not_found', statusCode: 400 })
  })

  it('has a leftover file after a crash between file and checkpoint', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await writeGarbage(node1)
    await node1.write(['after'])
    await scene.quiet()
    const [name] = await readdir(directoryOf(node2))
    const file = join(directoryOf(node2), name!)
    await node2.cluster.close()
    // As after a crash between the file and the checkpoint: the message is quarantined again.
    const [key] = node2.host.checkpoints.keys()
    const passed = node2.host.checkpoints.get(key!)!
    node2.host.checkpoints.set(key!, { epoch: passed.epoch, sequence: 0 })
    node2.host.applied.length = 0
    await node2.open()
    await scene.quiet()
    assert.equal(node2.cluster.quarantine.list().length, 1)
    await node2.cluster.close()
    // As after a crash between the release and the removal of the file.
    const { quarantined: _, ...released } = node2.host.checkpoints.get(key!)!
    node2.host.checkpoints.set(key!, released)
    await writeFile(`${file}.new`, '{')
    await node2.open()
    await scene.quiet()
    assert.deepEqual(node2.cluster.quarantine.list(), [])
    assert.deepEqual(await readdir(directoryOf(node2)), [])
    await rm(directoryOf(node2), { recursive: true })
    await node1.write(numbered('more', 2))
    await scene.quiet()
    assert.deepEqual(node2.from(node1).slice(-2), numbered('more', 2))
  })
})

describe('a database', { concurrency: true }, () => {
  it('that does not answer is reported while the subscription waits', async (test) => {
    const clock = new TestClock()
    const scene = new Scene(test, { clock })
    const [node1, node2] = await pair(scene)
    let answer = () => {}
    node2.host.beforeApply = () =>
      new Promise((resolve) => {
        answer = resolve
      })
    await node1.write(['slow'])
    await eventually('the batch is read', () => node2.of(node1).lastSequence === 1)
    await clock.advance(5_100)
    const { error, sequence } = await eventually('it is reported', () => node2.events['replication:stalled']![0])
    assert.match(error, /the database has not answered apply for 5 s/)
    assert.equal(sequence, 1)
    assert.equal(node2.of(node1).state, 'stalled')
    assert.equal(node2.of(node1).lag, 1)
    assert.ok(node2.of(node1).lagSeconds >= 4.9)
    node2.host.beforeApply = undefined
    answer()
    await scene.quiet()
    assert.deepEqual(node2.host.applied, ['slow'])
    assert.deepEqual([node2.of(node1).lag, node2.of(node1).lagSeconds, node2.of(node1).error], [0, 0, undefined])
  })

  it('that does not answer does not keep the manager from closing', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    let answer = () => {}
    node2.host.beforeApply = () =>
      new Promise((resolve) => {
        answer = resolve
      })
    test.after(() => answer())
    await node1.write(['slow'])
    await eventually('the batch is read', () => node2.of(node1).lastSequence === 1)
    await node2.cluster.close()
    assert.equal(node2.cluster.state, 'closed')
  })
})
