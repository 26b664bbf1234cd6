// One remote table: when it is read again, in which pieces it is applied, and what happens to what the database refuses.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { HybridClock, makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { Subscriber, type SubscriberOptions } from '../../lib/replication/subscribe/subscriber.ts'
import { attemptsWithin } from '../support/backoff.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { standingTime } from '../support/elapsed.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { RemoteStream, type ScriptedReader, source } from '../support/remote-stream.ts'

async function subscribe(test: TestContext, options: Partial<SubscriberOptions> = {}) {
  const [directory, remove] = await temporaryDirectory()
  const stream = new RemoteStream()
  const host = new MemoryHost([['dev', 'dog']])
  const clock = new HybridClock('node2', 300_000)
  const counters = replicationCounters()
  const reported: string[] = []
  const quarantine = await Quarantine.open({
    directory: join(directory, 'q'),
    maxMessages: 10,
    maxBytes: 1e6,
    logger: silentLogger,
  })
  const applier = new Applier({ host, node: 'node2', relayEnabled: false, counters, relay() {} })
  const subscriber = new Subscriber({
    source,
    mesh: stream.mesh,
    applier,
    clock,
    quarantine,
    counters,
    logger: silentLogger,
    requestTimeout: 10_000,
    maxBatch: 10,
    maxBatchBytes: 1e6,
    restoreTable: async () => {},
    events: {
      state() {},
      applied() {},
      gap: (_, from, to, reason) => void reported.push(`gap ${from}..${to} ${reason}`),
      stalled: (_, sequence, error, attempts) => void reported.push(`stalled at ${sequence}: ${error}, ${attempts}`),
      quarantined: (_, sequence) => void reported.push(`quarantined ${sequence}`),
    },
    ...options,
  })
  test.after(async () => {
    await subscriber.stop(false)
    await remove()
  })
  /** Our place in the stream, as if it had been read until there. */
  const standAt = (sequence: number, more: object = {}) => {
    stream.last = Math.max(stream.last, sequence)
    return host.apply({ source, transactions: [], checkpoint: { epoch: 'e1', sequence, ...more } })
  }
  await standAt(0)
  const applied = (...ids: string[]) =>
    eventually(`applied: ${host.applied}`, () => ids.every((id) => host.applied.includes(id)))
  return { stream, host, clock, reported, quarantine, applier, subscriber, standAt, applied }
}

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => `t${from + index}`)

describe('a subscriber reads', { concurrency: true, timeout: 30_000 }, () => {
  it('behind its checkpoint, holding two batches at most, in batches of a bounded count', async (test) => {
    const { stream, host, subscriber, standAt, applied } = await subscribe(test)
    await standAt(3)
    const sizes: number[] = []
    host.beforeApply = ({ transactions }) => void (transactions.length > 0 && sizes.push(transactions.length))
    subscriber.start()
    const reader = await stream.reader(0)
    assert.deepEqual([reader.from, reader.maxMessages], [4, 20])
    reader.give(...stream.entries(4, 28))
    await applied('t28')
    assert.deepEqual(sizes, [10, 10, 5])
    assert.deepEqual(host.applied, ids(4, 28))
  })

  it('and of a bounded size, one beyond it alone', async (test) => {
    const sizeOf = new RemoteStream().entry(1).data.byteLength
    const { stream, host, subscriber, applied } = await subscribe(test, { maxBatchBytes: 2 * sizeOf })
    const sizes: number[] = []
    host.beforeApply = ({ transactions }) => void sizes.push(transactions.length)
    subscriber.start()
    const reader = await stream.reader(0)
    const large = stream.entry(6, { user: 'x'.repeat(3 * sizeOf) })
    reader.give(...stream.entries(1, 5), large, ...stream.entries(7, 7))
    await applied('t7')
    // The large one fills up what is begun; nothing is added to it.
    assert.deepEqual(sizes, [2, 2, 2, 1])
  })

  it('again behind its checkpoint when the delivery jumps: that is no gap', async (test) => {
    const { stream, host, reported, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const first = await stream.reader(0)
    const [one, , three] = stream.entries(1, 3)
    first.give(one!)
    first.lose(1)
    first.give(three!)
    const second = await stream.reader(1)
    assert.ok(first.lost)
    assert.deepEqual([second.from, host.applied], [1, ['t1']], 'the one at its place once more')
    second.give(...stream.entries(1, 3))
    await applied('t3')
    assert.deepEqual([host.applied, reported, stream.readers.length], [ids(1, 3), [], 2])
  })

  it('over a hole in the stream, which is a gap', async (test) => {
    const { stream, reported, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(stream.entry(1), ...stream.entries(5, 6))
    await applied('t6')
    assert.deepEqual([reported, stream.readers.length], [['gap 2..4 purged'], 1])
  })

  it('again from the beginning when another message is at its place', async (test) => {
    const { stream, host, reported, subscriber, standAt, applied } = await subscribe(test)
    await standAt(3, { lastMessageId: 't3' })
    subscriber.start()
    const first = await stream.reader(0)
    assert.equal(first.from, 3)
    first.give(stream.entry(3, { id: 'another' }), ...stream.entries(4, 4))
    const second = await stream.reader(1)
    assert.equal(second.from, 1)
    second.give(...stream.entries(1, 4))
    await applied('t4')
    assert.deepEqual([reported, host.applied], [['gap 1..3 rewound'], ids(1, 4)])
  })

  it('on when it is the one that is known', async (test) => {
    const { stream, host, reported, subscriber, standAt, applied } = await subscribe(test)
    await standAt(3, { lastMessageId: 't3' })
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(3, 4))
    await applied('t4')
    assert.deepEqual([reported, host.applied, stream.readers.length], [[], ['t4'], 1])
  })

  it('into another epoch, telling what is lost of the one before', async (test) => {
    const { stream, host, reported, subscriber, standAt, applied } = await subscribe(test)
    await standAt(3)
    subscriber.start()
    const reader = await stream.reader(0)
    stream.epochs = [
      { epoch: 'e1', from: 1, last: 7 },
      { epoch: 'e2', from: 5 },
    ]
    reader.give(...stream.entries(4, 4), ...stream.entries(5, 6, 'e2'))
    await applied('t6')
    assert.deepEqual([reported, host.applied], [['gap 5..7 rewound'], ids(4, 6)])
  })

  it('from its beginning into an epoch that began before its place', async (test) => {
    const { stream, host, reported, subscriber, standAt, applied } = await subscribe(test)
    await standAt(3)
    subscriber.start()
    const first = await stream.reader(0)
    stream.epochs = [
      { epoch: 'e1', from: 0, last: 4 },
      { epoch: 'e2', from: 1 },
    ]
    first.give(...stream.entries(4, 5, 'e2'))
    const second = await stream.reader(1)
    assert.equal(second.from, 1)
    second.give(...stream.entries(1, 5, 'e2'))
    await applied('t5')
    assert.deepEqual([reported, host.applied], [['gap 4..4 recreated'], ids(1, 5)])
  })

  it('again when asking failed, with less haste each time, and at once when the other node is heard', async (test) => {
    const { stream, host, subscriber, applied } = await subscribe(test)
    stream.obstacle = async () => {
      throw new MeshError('no_responders')
    }
    const started = Date.now()
    subscriber.start()
    await eventually('it asks again', () => stream.asked >= 6)
    const elapsed = Date.now() - started
    assert.ok(stream.asked <= attemptsWithin(elapsed), `${stream.asked} questions in ${elapsed} ms`)
    // By itself it would wait for 1.6 s now.
    stream.obstacle = undefined
    const { asked } = stream
    subscriber.onPeerPosition('e1', 1)
    await eventually('it asks', () => stream.asked > asked, 1_000)
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 1))
    await applied('t1')
    assert.deepEqual(host.applied, ['t1'])
  })

  it('again at once when a server was started anew, whatever it is waiting for', async (test) => {
    const { stream, subscriber } = await subscribe(test, { requestTimeout: 60_000 })
    stream.obstacle = (signal) =>
      new Promise((_, reject) => {
        signal?.addEventListener('abort', () => reject(new MeshError('aborted')))
      })
    subscriber.start()
    await eventually('it asks', () => stream.asked === 1)
    stream.obstacle = undefined
    subscriber.restart()
    const first = await stream.reader(0)
    subscriber.restart()
    await stream.reader(1)
    assert.ok(first.lost)
  })
})

describe('what a node announces', { concurrency: true, timeout: 30_000 }, () => {
  it('twice without progress in between has its stream read again', async (test) => {
    const { stream, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const first = await stream.reader(0)
    stream.last = 3
    subscriber.onPeerPosition('e1', 3)
    first.give(...stream.entries(1, 1))
    await applied('t1')
    subscriber.onPeerPosition('e1', 3)
    await delay(100)
    assert.equal(stream.readers.length, 1, 'it was moving')
    subscriber.onPeerPosition('e1', 3)
    await stream.reader(1)
  })

  it('of what has arrived is nothing', async (test) => {
    const { stream, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 3))
    await applied('t3')
    for (let times = 0; times < 4; times++) subscriber.onPeerPosition('e1', 3)
    await delay(100)
    assert.equal(stream.readers.length, 1)
  })

  it('is nothing either while the database is at work', async (test) => {
    const { stream, host, subscriber, applied } = await subscribe(test)
    let release = () => {}
    host.beforeApply = () =>
      new Promise((resolve) => {
        release = resolve
      })
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 3))
    await eventually('it is asked', () => subscriber.status().lastSequence === 3)
    for (let times = 0; times < 4; times++) subscriber.onPeerPosition('e1', 3)
    await delay(100)
    host.beforeApply = undefined
    release()
    await applied('t3')
    assert.deepEqual([stream.readers.length, reader.lost], [1, false])
  })

  it('of another epoch has its stream read again, whatever the numbers are', async (test) => {
    const { stream, subscriber, standAt } = await subscribe(test)
    await standAt(3)
    subscriber.start()
    await stream.reader(0)
    subscriber.onPeerPosition('e2', 1)
    subscriber.onPeerPosition('e2', 1)
    await stream.reader(1)
  })
})

describe('suspicion', { timeout: 30_000 }, () => {
  /** So many ms later there is a suspicion again. Was it acted on? */
  async function suspects(
    stream: RemoteStream,
    subscriber: Subscriber,
    pass: (ms: number) => void,
    ms: number,
  ): Promise<boolean> {
    const { length } = stream.readers
    const reader = stream.readers.at(-1)!
    pass(ms)
    subscriber.restartIfStuck()
    if (!reader.lost) return false
    await stream.reader(length)
    // Its place is known again.
    await new Promise((resolve) => setImmediate(resolve))
    return true
  }

  it('without progress waits twice as long each time, up to half a minute; with progress it begins anew', async (test) => {
    const { stream, subscriber, applied } = await subscribe(test)
    const pass = standingTime(test)
    subscriber.start()
    await reading(stream, 0)
    stream.last = 9
    subscriber.onPeerPosition('e1', 9)
    assert.ok(await suspects(stream, subscriber, pass, 0), 'the first time at once')
    for (const timeoutMs of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      assert.ok(!(await suspects(stream, subscriber, pass, timeoutMs - 1)), `${timeoutMs - 1} ms later`)
      assert.ok(await suspects(stream, subscriber, pass, 1), `${timeoutMs} ms later`)
    }
    stream.readers.at(-1)!.give(...stream.entries(1, 1))
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    await applied('t1')
    assert.ok(await suspects(stream, subscriber, pass, 0), 'something arrived: at once')
    assert.ok(await suspects(stream, subscriber, pass, 1_000), 'and a second later')
  })

  it('of what is not behind stays at a second', async (test) => {
    const { stream, subscriber } = await subscribe(test)
    const pass = standingTime(test)
    subscriber.start()
    await reading(stream, 0)
    assert.ok(await suspects(stream, subscriber, pass, 0))
    for (let times = 0; times < 3; times++) {
      assert.ok(!(await suspects(stream, subscriber, pass, 999)))
      assert.ok(await suspects(stream, subscriber, pass, 1))
    }
  })

  /** The reader of this number, and its subscriber waits for it. */
  async function reading(stream: RemoteStream, index: number): Promise<ScriptedReader> {
    const reader = await stream.reader(index)
    await new Promise((resolve) => setImmediate(resolve))
    return reader
  }
})

describe('what the database refuses', { concurrency: true, timeout: 30_000 }, () => {
  it('is tried again without end, told each time, and nothing is skipped', async (test) => {
    const { stream, host, reported, subscriber, applied } = await subscribe(test)
    let refusals = 0
    host.beforeApply = () => {
      if (refusals++ < 30) throw new Error('not now')
    }
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 3))
    // Whoever hears of the other node does not wait any longer.
    const nudging = setInterval(() => subscriber.onPeerPosition('e1', 3), 1)
    test.after(() => clearInterval(nudging))
    await applied('t3')
    assert.deepEqual(host.applied, ids(1, 3))
    assert.deepEqual(
      reported,
      Array.from({ length: 30 }, (_, index) => `stalled at 3: not now, ${index + 1}`),
    )
  })

  it('is tried with less haste each time', async (test) => {
    const { stream, host, subscriber } = await subscribe(test)
    let attempts = 0
    host.beforeApply = () => {
      attempts++
      throw new Error('not now')
    }
    subscriber.start()
    const reader = await stream.reader(0)
    const started = Date.now()
    reader.give(...stream.entries(1, 1))
    await eventually('it is tried again', () => attempts >= 3)
    await delay(300)
    const elapsed = Date.now() - started
    assert.ok(attempts <= attemptsWithin(elapsed), `${attempts} attempts in ${elapsed} ms`)
  })

  it('is tried behind what makes the table again', async (test) => {
    let made = false
    const restoreTable = async () => {
      made = true
    }
    const { stream, host, subscriber, applied } = await subscribe(test, { restoreTable })
    host.beforeApply = () => {
      if (!made) throw new Error('there is no such table')
    }
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 1))
    await applied('t1')
  })
})

describe('a database that never waits', () => {
  it('leaves a turn between its batches, in which the network is heard', async (test) => {
    const { stream, host, subscriber, applied } = await subscribe(test, { maxBatch: 1 })
    let turn = 0
    const ticking = setInterval(() => {}, 1)
    test.after(() => clearInterval(ticking))
    const seen = new Set<number>()
    host.beforeApply = () => {
      seen.add(turn)
      setImmediate(() => turn++)
    }
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 20))
    await applied('t20')
    assert.equal(seen.size, 20)
  })
})

describe('what cannot be taken', { concurrency: true, timeout: 30_000 }, () => {
  const HOUR_MS = 3_600_000
  const ahead = () => makeTimestamp(Date.now() + HOUR_MS, 0, 'node1')

  it('is on disk before the checkpoint passes it', async (test) => {
    const { stream, host, reported, quarantine, subscriber, applied } = await subscribe(test)
    const seen: number[] = []
    let refusals = 0
    host.beforeApply = ({ checkpoint }) => {
      if (!checkpoint.quarantined) return
      seen.push(quarantine.size)
      if (refusals++ === 0) throw new Error('not now')
    }
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(stream.entry(1, { timestamp: ahead() }), ...stream.entries(2, 2))
    await applied('t2')
    assert.deepEqual(seen.slice(0, 2), [1, 1])
    assert.deepEqual(reported, ['stalled at 1: not now, 1', 'quarantined 1'])
    assert.deepEqual(host.checkpoints.get(JSON.stringify(Object.values(source)))?.quarantined, { e1: [[1, 1]] })
  })

  it('is on disk until the checkpoint has released it', async (test) => {
    const { stream, host, quarantine, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(
      { ...stream.entry(1), data: Buffer.from('garbage') },
      stream.entry(2, { timestamp: makeTimestamp(Date.now() + 300_500, 0, 'node1') }),
      ...stream.entries(3, 3),
    )
    await applied('t3')
    assert.equal(quarantine.size, 2)
    host.refusal = new Error('not now')
    await assert.rejects(subscriber.discard([1]), /not now/)
    assert.equal(quarantine.size, 2)
    assert.deepEqual(await subscriber.discard([1]), [1])
    await delay(600)
    host.refusal = new Error('not now')
    await assert.rejects(subscriber.replay(), /not now/)
    assert.equal(quarantine.size, 1)
    assert.deepEqual(await subscriber.replay(), { applied: [2], kept: [] })
    assert.equal(quarantine.size, 0)
    assert.deepEqual(host.applied, ['t3', 't2'])
  })

  it('and has come by another path meanwhile is not kept', async (test) => {
    const { stream, host, quarantine, applier, subscriber, applied } = await subscribe(test)
    const timestamp = ahead()
    const origin = { node: 'node3', epoch: 'o1', sequence: 5, relayedBy: ['node1'] }
    const other = { ...source, node: 'node4' }
    subscriber.start()
    const reader = await stream.reader(0)
    // It comes while the file is being written.
    const { put } = quarantine
    quarantine.put = async (...args) => {
      await put.apply(quarantine, args)
      await applier.apply(other, [{ id: 'far', timestamp, writes: [], origin, sequence: 1 }], {
        epoch: 'x',
        sequence: 1,
      })
    }
    reader.give(stream.entry(1, { id: 'far', timestamp, origin }), ...stream.entries(2, 2))
    await applied('t2')
    assert.deepEqual([quarantine.size, host.applied], [0, ['far', 't2']])
  })

  it('is none of it what we know already, and takes no room, however far ahead its stamp is', async (test) => {
    const { stream, host, reported, quarantine, subscriber, applied } = await subscribe(test)
    quarantine.put = () => Promise.reject(new Error('it is full'))
    subscriber.start()
    const reader = await stream.reader(0)
    const origin = { node: 'node2', epoch: 'o1', sequence: 5, relayedBy: ['node2', 'node1'] }
    reader.give(stream.entry(1, { timestamp: ahead(), origin }), ...stream.entries(2, 2))
    await applied('t2')
    assert.deepEqual([reported, host.applied], [[], ['t2']])
  })

  it('does not move our clock; what is taken does', async (test) => {
    const { stream, clock, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    const near = makeTimestamp(Date.now() + 60_000, 0, 'node1')
    const far = ahead()
    reader.give(stream.entry(1, { timestamp: far }), stream.entry(2, { timestamp: near }))
    await applied('t2')
    const timestamp = clock.timestamp()
    assert.ok(timestamp > near && timestamp < far, timestamp)
  })
})
