// Whatever a remote node sends as the description of a stream or as a heartbeat: reading it ends, and a nonsensical one is refused.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { MemoryMesh } from '../../lib/mesh/memory/memory-mesh.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { encode } from '../../lib/peers/protocol.ts'
import { readStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { Cursor } from '../../lib/replication/subscribe/cursor.ts'
import { type ClusterNode, eventually, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'
import { Begun } from '../support/begun.ts'
import { isLong } from '../support/long.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { nearlyBytes } from '../support/mutate.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'
import { RemoteStream, source } from '../support/remote-stream.ts'

const numRuns = isLong ? 20_000 : 1_000
const seed = seedOf()
console.log(`SEED=${seed}`)

/** More steps than any valid description needs. */
const MAX_APPLIES = 1_000

async function cursorAt(sequence: number) {
  const stream = new RemoteStream()
  const host = new MemoryHost([['dev', 'dog']])
  await host.apply({ source, transactions: [], checkpoint: { epoch: 'e1', sequence } })
  let applies = 0
  host.beforeApply = () => {
    if (++applies > MAX_APPLIES) throw new Error('the cursor does not stop')
  }
  const applier = new Applier({
    host,
    node: 'node2',
    relayEnabled: false,
    counters: replicationCounters(),
    relay() {},
    validate() {},
  })
  const cursor = new Cursor({ source, mesh: stream.mesh, applier, begun: new Begun(), requestTimeout: 1_000, gap() {} })
  const describe = (description: string, bounds: { first: number; last: number }) => {
    const streamState = stream.mesh.streamState.bind(stream.mesh)
    Object.assign(stream, bounds)
    stream.mesh.streamState = async (...args) => {
      const state = await streamState(...args)
      return state && { ...state, description }
    }
  }
  return { cursor, describe }
}

describe('the description of a stream', { timeout: 600_000 }, () => {
  const sequence = fc.oneof(fc.nat(40), fc.constantFrom(2 ** 53, Number.MAX_SAFE_INTEGER))
  const epoch = fc
    .tuple(
      fc.constantFrom('e1', 'e2', 'e3', 'e4', 'constructor', '__proto__'),
      sequence,
      fc.option(sequence),
      fc.option(sequence),
    )
    .map(([name, from, last, lastIndex]) => {
      const end = last === null ? '' : `..${last}${lastIndex === null ? '' : `/${lastIndex}`}`
      return `epoch=${name}@${from}${end}`
    })
  const purged = fc
    .tuple(sequence, sequence, fc.option(fc.tuple(sequence, sequence)))
    .map(([from, to, indexes]) => `purged=${from}..${to}${indexes ? `/${indexes.join('..')}` : ''}`)
  const description = fc.oneof(
    {
      weight: 9,
      arbitrary: fc.array(fc.oneof(epoch, purged), { maxLength: 60 }).map((all) => `dev.dog v=1 ${all.join(' ')}`),
    },
    { weight: 1, arbitrary: fc.string({ maxLength: 200 }) },
  )

  it('never makes a subscription move for ever', async () => {
    const outcomes = { accepted: 0, refused: 0 }
    const property = fc.asyncProperty(
      description,
      fc.nat(40),
      fc.nat(40),
      fc.nat(40),
      async (text, at, first, more) => {
        const { cursor, describe } = await cursorAt(at)
        describe(text, { first: first + 1, last: first + more })
        const { signal } = new AbortController()
        for (const read of [() => cursor.resume(signal), () => cursor.enterEpoch('e3', at + 1, signal)])
          try {
            await read()
            outcomes.accepted++
          } catch (error) {
            assert.ok(error instanceof MeshError, String(error))
            outcomes.refused++
          }
      },
    )
    await fc.assert(property, { seed, numRuns })
    assert.ok(outcomes.accepted > 0 && outcomes.refused > 0, JSON.stringify(outcomes))
  })

  it('is refused with the reason when no writer produces it', () => {
    const refused: [string, RegExp][] = [
      ['epoch=a@1..5 epoch=b@6 epoch=a@9', /repeats epoch 'a'/],
      ['epoch=a@99999999999999999', /is not a sequence/],
      ['epoch=a@1 purged=9..3', /a purged range from 9 to 3/],
      [`epoch=a@1 ${'purged=1..2 '.repeat(2_000)}`, /has \d+ characters/],
    ]
    for (const [text, reason] of refused)
      assert.throws(
        () => readStreamMetadata(`dev.dog v=1 ${text}`),
        (error) => {
          assert.ok(error instanceof MeshError && error.code === 'rejected')
          assert.match(error.message, reason)
          return true
        },
      )
    // A store that kept the description and lost its messages begins again at 1.
    for (const text of [
      '',
      'x',
      'x v=1 epoch=a@1..5 epoch=b@6..20 epoch=c@1',
      'x v=1 epoch=a@0..7/0 epoch=b@1 purged=3..3',
    ])
      assert.doesNotThrow(() => readStreamMetadata(text))
  })

  it('stops the cursor when the subscription ends meanwhile', async () => {
    const { cursor, describe } = await cursorAt(0)
    describe('dev.dog v=1 epoch=e1@1..1 epoch=e2@2..2 epoch=e3@3', { first: 9, last: 9 })
    const stopping = new AbortController()
    stopping.abort()
    await assert.rejects(cursor.resume(stopping.signal), { code: 'aborted' })
  })

  it('that repeats an epoch is the reason of the pending subscription, which can be removed', async (test) => {
    const network = new MemoryNetwork()
    const cluster = await startCluster(2, { network, tables: [{ database: 'dev', table: 'dog' }] })
    test.after(async () => {
      await cluster.close()
      await network.close()
    })
    const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
    await one.host.insert('dev', 'dog', { id: 1 })
    await cluster.converged()
    const { streamState } = MemoryMesh.prototype
    const { epoch } = (await two.host.loadCheckpoint({ node: 'node1', database: 'dev', table: 'dog' }))!
    test.mock.method(
      MemoryMesh.prototype,
      'streamState',
      async function (this: MemoryMesh, ...args: Parameters<typeof streamState>) {
        const state = await streamState.apply(this, args)
        const description = `dev.dog v=1 epoch=${epoch}@1 epoch=bbbb@1 epoch=${epoch}@1 epoch=cccc@1`
        return state && args[0].node === 'node1' ? { ...state, description } : state
      },
    )
    let applies = 0
    two.host.beforeApply = () => void applies++
    network.cut('node1', 'node2')
    network.heal()
    const isPending = () => /repeats epoch/.test(two.cluster.subscriptions()[0]?.error ?? '')
    await eventually('the subscription is pending', isPending)
    const { connections } = await two.cluster.status()
    assert.equal(connections[0]?.subscriptions[0]?.state, 'pending')
    await two.cluster.removeNode({ node_name: 'node1' })
    assert.deepEqual([two.cluster.subscriptions(), applies], [[], 0])
  })
})

describe('heartbeats', { timeout: 600_000 }, () => {
  function open(test: TestContext) {
    const clock = new TestClock({ stopped: true })
    let receive = (_data: Uint8Array): void => {}
    let returned = 0
    const listener = {
      up() {},
      down() {},
      rejected() {},
      superseded() {},
      returned: () => void returned++,
      streams() {},
    }
    const mesh = {
      timers: clock,
      session: 's',
      serve: () => {},
      listen: (handler: typeof receive) => {
        receive = handler
      },
      announce: () => {},
    }
    const peers = new Peers({ node: 'node1', logger: silentLogger, positions: () => [], mesh, listener } as never)
    peers.start()
    test.after(() => peers.close())
    return { clock, receive: (data: Uint8Array) => receive(data), returned: () => returned }
  }
  const heartbeat = (session: string, node = 'node2') =>
    encode({ node, instance: node, started: 1, session, streams: [['dev', 'dog', 'e1', 3, 3]] })

  it('of any content are handled without an error', (test) => {
    const { receive } = open(test)
    const bytes = [
      heartbeat('a'),
      heartbeat('a', 'node1'),
      encode({ node: 'n', instance: 'i', session: '', streams: [], relayed: true }),
    ]
    fc.assert(
      fc.property(nearlyBytes(bytes), (data) => receive(data)),
      { seed, numRuns },
    )
  })

  it('that name another session each time restart the subscriptions at a bounded rate', async (test) => {
    const { clock, receive, returned } = open(test)
    for (let index = 0; index < 1_000; index++) receive(heartbeat(`${index}`))
    assert.equal(returned(), 1)
    await clock.advance(1_000)
    receive(heartbeat('1000'))
    assert.equal(returned(), 2, 'a restart is not missed, only noticed later')
    receive(heartbeat('1001'))
    await clock.advance(1_000)
    receive(heartbeat('1001'))
    assert.equal(returned(), 3)
  })
})
