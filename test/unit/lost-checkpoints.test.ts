// A subscription that has begun and has no checkpoint has lost it: it reads from the first message on and reports the rest as a gap.

import assert from 'node:assert/strict'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { emptyManifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Registers } from '../../lib/peers/registers.ts'
import type { EpochRange } from '../../lib/replication/stream-metadata.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { CHECKPOINT_VERSION, loadCheckpoint } from '../../lib/replication/subscribe/checkpoint-version.ts'
import { Cursor, type Gap } from '../../lib/replication/subscribe/cursor.ts'
import { Begun } from '../support/begun.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { both, type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'
import { RemoteStream, source } from '../support/remote-stream.ts'

const pair = async (scene: Scene) => (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
const registersFile = (node: MemoryNode) => join(dirname(node.configFile), 'clustering', 'revisions.json')

/** Rows and checkpoints are gone; the tables and the directory `clustering` are there. */
function wipe({ host }: MemoryNode): void {
  host.rows.clear()
  host.checkpoints.clear()
  host.publishedPositions.clear()
  host.outbox = []
}

describe('a begun subscription without a checkpoint', { concurrency: true, timeout: 60_000 }, () => {
  it('reads the whole stream again when the database was wiped while the node was closed', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.write(['a'])
    await scene.quiet()
    await node2.cluster.close()
    await node1.write(['b'])
    wipe(node2)
    await node2.open()
    await node1.write(['c'])
    await scene.quiet()
    assert.deepEqual(node2.host.contents('dev', 'dog'), node1.host.contents('dev', 'dog'))
    // The stream has its first message: nothing more is known to be lost.
    assert.deepEqual(node2.gaps(), [['node1', 1, 0, 'checkpoint_lost']])
    const { gaps, lost } = node2.of(node1)
    assert.deepEqual([gaps, lost], [1, 0])
    await node2.reopen()
    await scene.quiet()
    assert.equal(node2.gaps().length, 1, 'it is reported once')
  })

  it('reports what the stream no longer has', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.writeEach(numbered('t', 5))
    await scene.quiet()
    await node1.cluster.purgeStream({ database: 'dev', table: 'dog', options: { keep: 2 } })
    await node2.cluster.close()
    node2.host.checkpoints.clear()
    node2.host.applied.length = 0
    await node2.open()
    await scene.quiet()
    assert.deepEqual(node2.gaps(), [['node1', 1, 3, 'checkpoint_lost']])
    assert.deepEqual(node2.of(node1).lost, 3)
    assert.equal(node2.cluster.metrics()!.apply.lost, 3)
    assert.equal(node2.host.applied.length, 2)
  })

  it('of a later version stalls the subscription, and is neither read nor replaced', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.write(['a'])
    await scene.quiet()
    await node2.cluster.close()
    const [key, stored] = [...node2.host.checkpoints][0]!
    assert.equal(stored.v, CHECKPOINT_VERSION)
    const later = { ...stored, v: CHECKPOINT_VERSION + 1 }
    node2.host.checkpoints.set(key, later)
    node2.host.applied.length = 0
    await node2.open()
    await node1.write(['b'])
    await eventually('the subscription is stalled', () => node2.of(node1).state === 'stalled')
    assert.match(node2.of(node1).error ?? '', /has version 2, this node reads version 1/)
    assert.deepEqual(node2.host.checkpoints.get(key), later)
    assert.deepEqual(node2.host.applied, [])
    node2.host.checkpoints.set(key, stored)
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['a', 'b'])
  })

  it('keeps its start when an operation changes it before the node has found that out', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.write(['a'])
    await scene.quiet()
    await node2.cluster.close()
    wipe(node2)
    await node2.open()
    await node2.cluster.updateNode({ node_name: 'node1', subscriptions: both })
    await scene.quiet()
    assert.deepEqual(node2.host.contents('dev', 'dog'), [{ id: 'a' }])
    assert.equal(node2.gaps().length, 1)
  })

  it('is a new subscription when it was removed and added again', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.write(['a'])
    await scene.quiet()
    await node2.cluster.removeNode({ node_name: 'node1' })
    await eventually('the checkpoint is deleted', () => node2.host.checkpoints.size === 0)
    await node2.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await node1.write(['b'])
    await scene.quiet()
    assert.deepEqual([node2.gaps(), node2.from(node1)], [[], ['a', 'b']])
  })

  it('is a new subscription when the directory `clustering` is lost as well', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node1.write(['a'])
    await scene.quiet()
    await node2.cluster.close()
    wipe(node2)
    await rm(registersFile(node2))
    await node2.open()
    await eventually('it is live', () => node2.of(node1).state === 'live')
    await node1.write(['b'])
    await scene.quiet()
    // It has no gap, and an empty table: all rows are copied.
    assert.deepEqual([node2.gaps(), node2.host.contents('dev', 'dog')], [[], [{ id: 'a' }, { id: 'b' }]])
  })
})

describe('the start after a lost checkpoint', () => {
  async function cursorAt(
    epochs: EpochRange[],
    first: number,
    last: number,
    fill: (stream: RemoteStream) => void = () => {},
  ) {
    const stream = Object.assign(new RemoteStream(), { epochs, first, last })
    fill(stream)
    const host = new MemoryHost([['dev', 'dog']])
    const counters = replicationCounters()
    const applier = new Applier({ host, node: 'node2', relayEnabled: false, counters, relay() {}, validate() {} })
    const begun = new Begun()
    begun.add(source)
    const reported: unknown[][] = []
    const gap = ({ from, to, reason }: Gap) => void reported.push([from, to, reason])
    const cursor = new Cursor({ source, mesh: stream.mesh, applier, begun, requestTimeout: 1_000, gap })
    await cursor.resume(new AbortController().signal)
    return { reported, stored: await loadCheckpoint(host, source) }
  }

  it('is in the epoch of the first message, and streams that are gone are gaps of their own', async () => {
    const epochs: EpochRange[] = [
      { epoch: 'e0', from: 0, last: 9 },
      { epoch: 'e1', from: 0, last: 7, lastIndex: 70 },
      { epoch: 'e2', from: 1, last: 4, lastIndex: 40 },
      { epoch: 'e3', from: 5 },
    ]
    const { reported, stored } = await cursorAt(epochs, 3, 9, (stream) => stream.frame(3, 21, 4, 'e2'))
    assert.deepEqual(reported, [
      [1, 70, 'checkpoint_lost'],
      [1, 20, 'checkpoint_lost'],
    ])
    const end = Number.MAX_SAFE_INTEGER
    const missing = { e0: [[1, end]], e1: [[1, end]], e2: [[1, 20]] }
    const gaps = { gaps: { count: 2, lost: 90 }, unrepairedGaps: 2, missing }
    assert.deepEqual(stored, { epoch: 'e2', sequence: 2, index: 20, ...gaps })
  })

  it('is the end of a stream that has no messages', async () => {
    const { reported, stored } = await cursorAt([{ epoch: 'e1', from: 1 }], 6, 5)
    assert.deepEqual(reported, [[1, undefined, 'checkpoint_lost']], 'the number of transactions is not known')
    assert.deepEqual([stored!.sequence, stored!.index, stored!.gaps], [5, undefined, { count: 1, lost: 0 }])
    const empty = await cursorAt([{ epoch: 'e1', from: 1 }], 0, 0)
    assert.deepEqual([empty.reported, empty.stored!.sequence], [[[1, 0, 'checkpoint_lost']], 0])
  })
})

describe('the note that a subscription has begun', () => {
  it('is stored with the revisions, and ends with the subscription', async (test) => {
    const [directory, remove] = await temporaryDirectory()
    test.after(remove)
    const file = join(directory, 'revisions.json')
    const clock = { timestamp: () => '9', resume: () => {} }
    const dog = { database: 'dev', table: 'dog', publish: false, subscribe: true, removed: false, revision: '1' }
    const open = () => Registers.open(file, emptyManifest, clock, silentLogger)
    let registers = await open()
    registers.begun.add(source)
    assert.equal(registers.begun.has(source), false, 'there is no such subscription')
    registers.set('node1', dog)
    registers.begun.add(source)
    registers.set('node1', { ...dog, revision: '2' })
    assert.equal(registers.begun.has(source), true)
    await registers.flush()
    assert.deepEqual(JSON.parse(await readFile(file, 'utf8')).begun, { node1: [['dev', 'dog']] })
    // A file of a node that has no such notes.
    const { nodes } = JSON.parse(await readFile(file, 'utf8'))
    const read = (await Registers.open(file, emptyManifest, clock, silentLogger)).get('node1', dog)
    assert.equal(read?.removed, true, 'the manifest does not have it')
    for (const change of [{ removed: true }, { subscribe: false }]) {
      registers.set('node1', { ...dog, ...change, revision: '3' })
      assert.equal(registers.begun.has(source), false)
      registers.set('node1', dog)
      registers.begun.add(source)
    }
    await registers.flush()
    await writeFile(file, JSON.stringify({ nodes }))
    registers = await open()
    assert.equal(registers.begun.has(source), false)
  })
})
