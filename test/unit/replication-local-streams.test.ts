// Local streams are checked with increasing delays until that succeeds, and heartbeats carry the positions of those that grew.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { LocalStreams } from '../../lib/replication/publish/local-streams.ts'
import { HarperTimes, type MessageFormat, SingleMessages } from '../../lib/replication/publish/message-format.ts'
import { Frame } from '../../lib/replication/wire/frame.ts'
import { attemptsWithin } from '../support/backoff.ts'
import { eventually } from '../support/cluster.ts'
import { standingTime } from '../support/elapsed.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'
import { partOf, singly } from '../support/writer.ts'

const dog = { database: 'dev', table: 'dog' }

/** It defines the attributes again after each interruption. */
function forgetful(): MessageFormat {
  const options = { table: dog, times: new HarperTimes(), maxBytes: 1e6, describe: async () => [], withheld: () => {} }
  let messages: SingleMessages
  return {
    isSingle: true,
    prepare: () => {
      messages = new SingleMessages(options)
      return messages.prepare()
    },
    encode: (...args) => messages.encode(...args),
    aheadOf: (...args) => messages.aheadOf(...args),
  }
}

async function start(test: TestContext, requestTimeout = 10_000, format?: MessageFormat) {
  const leaf = await MemoryLeaf.open(test)
  const stored: string[] = []
  const streams = new LocalStreams({
    mesh: leaf.mesh,
    node,
    logger: silentLogger,
    frames: format ? { ...singly, partial: 1, inFlight: 1 } : singly,
    requestTimeout,
    formatOf: format && (() => format),
    loadPosition: async () => undefined,
    savePosition: async () => {},
    mayShowMore: () => true,
    interrupted: () => {},
  })
  test.after(() => streams.close())
  const push = (id: string) =>
    streams.push(dog, {
      id,
      data: partOf(id),
      stored: () => stored.push(id),
    })
  const isStored = (id: string) => eventually(`${id} is stored`, () => stored.includes(id))
  return { leaf, streams, push, isStored }
}

describe('a stream that cannot be checked', { concurrency: true, timeout: 30_000 }, () => {
  it('is checked again with increasing delays', async (test) => {
    const { leaf, push, isStored } = await start(test)
    const { ensureStream } = leaf.mesh
    let checks = 0
    leaf.overrides.ensureStream = async () => {
      checks++
      throw new MeshError('timeout')
    }
    const started = Date.now()
    push('one')
    await eventually('three checks', () => checks >= 3)
    await delay(300)
    const elapsed = Date.now() - started
    assert.ok(checks <= attemptsWithin(elapsed), `${checks} checks in ${elapsed} ms`)
    leaf.overrides.ensureStream = ensureStream
    await isStored('one')
  })

  it('is checked when the mesh is connected again, even if a check gives up at that moment', async (test) => {
    const { leaf, streams, push, isStored } = await start(test)
    const { ensureStream } = leaf.mesh
    let checks = 0
    let fail = () => {}
    leaf.overrides.ensureStream = () => {
      checks++
      return new Promise((_, reject) => {
        fail = () => reject(new MeshError('disconnected'))
      })
    }
    Object.assign(leaf.overrides, { state: 'disconnected' })
    push('one')
    await eventually('the first check', () => checks === 1)
    fail()
    await delay(100)
    assert.equal(checks, 1, 'no check while the mesh is down')
    streams.resume()
    await eventually('the second check', () => checks === 2)
    leaf.overrides.ensureStream = ensureStream
    // The mesh connects at the moment when this check gives up.
    Object.defineProperty(leaf.overrides, 'state', {
      get() {
        Object.defineProperty(leaf.overrides, 'state', { value: 'connected' })
        streams.resume()
        return 'disconnected'
      },
      configurable: true,
    })
    fail()
    await isStored('one')
  })

  it('rejects ensure after the request timeout', async (test) => {
    const { leaf, streams } = await start(test, 100)
    leaf.overrides.ensureStream = () => new Promise(() => {})
    await assert.rejects(streams.ensure(dog), { code: 'mesh_unavailable' })
  })
})

describe('a stream that rejects an append', { concurrency: true, timeout: 30_000 }, () => {
  it('once is checked and continued at once', async (test) => {
    const { leaf, push, isStored } = await start(test)
    leaf.held = true
    push('one')
    const sent = await leaf.sent(0)
    sent.answer(new MeshError('timeout'))
    await (await leaf.sent(1)).pass()
    await isStored('one')
  })

  it('repeatedly is retried with increasing delays', async (test) => {
    const { leaf, push, isStored } = await start(test)
    let appends = 0
    leaf.overrides.append = (_, __, ___, done) => {
      appends++
      queueMicrotask(() => done(new MeshError('rejected'), 0))
    }
    const started = Date.now()
    push('one')
    await eventually('three attempts', () => appends >= 3)
    await delay(300)
    const elapsed = Date.now() - started
    // The first retry is immediate, because the append may have been lost on the way.
    assert.ok(appends <= 1 + attemptsWithin(elapsed), `${appends} attempts in ${elapsed} ms`)
    leaf.overrides.append = leaf.append
    await isStored('one')
  })

  it('repeatedly is retried with increasing delays, although messages ahead of it are stored each time', async (test) => {
    const { leaf, push, isStored } = await start(test, 10_000, forgetful())
    let refusals = 0
    leaf.overrides.append = (table, message, expected, done) => {
      const frame = Frame.read({ ...message, sequence: 1, time: 1, delivery: 1 })
      if (frame.isForHarperOnly) return leaf.append(table, message, expected, done)
      refusals++
      queueMicrotask(() => done(new MeshError('too_large'), 0))
    }
    const started = Date.now()
    push('one')
    await eventually('three attempts', () => refusals >= 3)
    await delay(300)
    const elapsed = Date.now() - started
    assert.ok(refusals <= 1 + attemptsWithin(elapsed), `${refusals} attempts in ${elapsed} ms`)
    assert.ok(leaf.appends.length >= refusals, 'stored ahead each time')
    leaf.overrides.append = leaf.append
    await isStored('one')
  })
})

describe('recent positions', () => {
  it('are those of the streams that grew in the last 30 seconds', async (test) => {
    const { streams, push, isStored } = await start(test)
    assert.deepEqual(streams.recentPositions(), [])
    push('one')
    await isStored('one')
    const { epoch } = await streams.ensure(dog)
    assert.deepEqual(streams.recentPositions(), [{ ...dog, epoch, sequence: 1, index: 1 }])
    const pass = standingTime(test)
    pass(29_000)
    assert.equal(streams.recentPositions().length, 1)
    pass(11_000)
    assert.deepEqual(streams.recentPositions(), [])
    push('two')
    await isStored('two')
    assert.deepEqual(streams.recentPositions(), [{ ...dog, epoch, sequence: 2, index: 2 }])
  })
})
