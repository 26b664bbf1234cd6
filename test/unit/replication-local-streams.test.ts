// Our own streams are looked at until that succeeds, without haste, and announced for as long as somebody may have missed them.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { LocalStreams } from '../../lib/replication/publish/local-streams.ts'
import { attemptsWithin } from '../support/backoff.ts'
import { eventually } from '../support/cluster.ts'
import { standingTime } from '../support/elapsed.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'

const dog = { database: 'dev', table: 'dog' }

async function start(test: TestContext, requestTimeout = 10_000) {
  const leaf = await MemoryLeaf.open(test)
  const stored: string[] = []
  const streams = new LocalStreams({
    mesh: leaf.mesh,
    node,
    logger: silentLogger,
    window: 100,
    requestTimeout,
    loadPosition: async () => undefined,
    savePosition: async () => {},
    interrupted: () => {},
  })
  test.after(() => streams.close())
  const push = (id: string) =>
    streams.push(dog, {
      id,
      data: new Uint8Array(),
      headers: (epoch) => ({ 'Nats-Msg-Id': id, epoch }),
      stored: () => stored.push(id),
    })
  const isStored = (id: string) => eventually(`${id} is stored`, () => stored.includes(id))
  return { leaf, streams, push, isStored }
}

describe('a stream that cannot be looked at', { concurrency: true, timeout: 30_000 }, () => {
  it('is looked at again, ever more slowly', async (test) => {
    const { leaf, push, isStored } = await start(test)
    const { ensureStream } = leaf.mesh
    let polls = 0
    leaf.overrides.ensureStream = async () => {
      polls++
      throw new MeshError('timeout')
    }
    const started = Date.now()
    push('one')
    await eventually('it is looked at again', () => polls >= 3)
    await delay(300)
    const elapsed = Date.now() - started
    assert.ok(polls <= attemptsWithin(elapsed), `${polls} looks in ${elapsed} ms`)
    leaf.overrides.ensureStream = ensureStream
    await isStored('one')
  })

  it('while the mesh is down is looked at when that is back, behind a look that gives up meanwhile', async (test) => {
    const { leaf, streams, push, isStored } = await start(test)
    const { ensureStream } = leaf.mesh
    let polls = 0
    let fail = () => {}
    leaf.overrides.ensureStream = () => {
      polls++
      return new Promise((_, reject) => {
        fail = () => reject(new MeshError('disconnected'))
      })
    }
    Object.assign(leaf.overrides, { state: 'disconnected' })
    push('one')
    await eventually('it is looked at', () => polls === 1)
    fail()
    await delay(100)
    assert.equal(polls, 1, 'nobody asks a mesh that is down')
    streams.resume()
    await eventually('it is looked at once more', () => polls === 2)
    leaf.overrides.ensureStream = ensureStream
    // It comes in the very moment in which this look gives up.
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

  it('is not waited for longer than a request takes', async (test) => {
    const { leaf, streams } = await start(test, 100)
    leaf.overrides.ensureStream = () => new Promise(() => {})
    await assert.rejects(streams.ensure(dog), { code: 'mesh_unavailable' })
  })
})

describe('a stream that refuses', { concurrency: true, timeout: 30_000 }, () => {
  it('once, is looked at, and written on at once', async (test) => {
    const { leaf, push, isStored } = await start(test)
    leaf.held = true
    push('one')
    const sent = await leaf.sent(0)
    sent.answer(new MeshError('timeout'))
    await (await leaf.sent(1)).pass()
    await isStored('one')
  })

  it('again and again, is tried ever more slowly', async (test) => {
    const { leaf, push, isStored } = await start(test)
    leaf.overrides.append = (_, __, ___, done) => {
      leaf.calls.push('append')
      queueMicrotask(() => done(new MeshError('rejected'), 0))
    }
    const started = Date.now()
    push('one')
    await eventually('it is tried again', () => leaf.calls.length >= 3)
    await delay(300)
    const elapsed = Date.now() - started
    // The second follows at once: something may have been lost on the way.
    assert.ok(leaf.calls.length <= 1 + attemptsWithin(elapsed), `${leaf.calls.length} attempts in ${elapsed} ms`)
    leaf.overrides.append = leaf.append
    await isStored('one')
  })
})

describe('what is announced', () => {
  it('is where the streams are that grew in the last half minute', async (test) => {
    const { streams, push, isStored } = await start(test)
    assert.deepEqual(streams.recentPositions(), [])
    push('one')
    await isStored('one')
    const { epoch } = await streams.ensure(dog)
    assert.deepEqual(streams.recentPositions(), [{ ...dog, epoch, sequence: 1 }])
    const pass = standingTime(test)
    pass(29_000)
    assert.equal(streams.recentPositions().length, 1)
    pass(11_000)
    assert.deepEqual(streams.recentPositions(), [])
    push('two')
    await isStored('two')
    assert.deepEqual(streams.recentPositions(), [{ ...dog, epoch, sequence: 2 }])
  })
})
