// A subscriber: when it reads again, in which batches it applies, and what it does when the database rejects a batch.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import type { Subscriber } from '../../lib/replication/subscribe/subscriber.ts'
import { Frame } from '../../lib/replication/wire/frame.ts'
import { TestClock } from '../../lib/testing.ts'
import { attemptsWithin } from '../support/backoff.ts'
import { eventually } from '../support/cluster.ts'
import { standingTime } from '../support/elapsed.ts'
import { RemoteStream, type ScriptedReader, source } from '../support/remote-stream.ts'
import { subscribe } from '../support/scripted-subscription.ts'

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => `t${from + index}`)

describe('a subscriber', { concurrency: true, timeout: 30_000 }, () => {
  it('reads behind its checkpoint, requests at most two batches, and applies batches of a bounded count', async (test) => {
    const { stream, host, subscriber, checkpointAt, applied } = await subscribe(test)
    await checkpointAt(3)
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

  it('applies batches of a bounded size; a larger transaction ends its batch', async (test) => {
    const sizeOf = Frame.read({ ...new RemoteStream().entry(1), delivery: 1 }).part(0).data.byteLength
    const { stream, host, subscriber, applied } = await subscribe(test, { maxBatchBytes: 2 * sizeOf })
    const sizes: number[] = []
    host.beforeApply = ({ transactions }) => void sizes.push(transactions.length)
    subscriber.start()
    const reader = await stream.reader(0)
    const large = stream.entry(6, { user: 'x'.repeat(3 * sizeOf) })
    reader.give(...stream.entries(1, 5), large, ...stream.entries(7, 7))
    await applied('t7')
    // The large transaction ends the batch that it is added to.
    assert.deepEqual(sizes, [2, 2, 2, 1])
  })

  it('reads again behind its checkpoint when the delivery number jumps, without a gap', async (test) => {
    const { stream, host, reported, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const first = await stream.reader(0)
    const [one, , three] = stream.entries(1, 3)
    first.give(one!)
    first.lose(1)
    first.give(three!)
    const second = await stream.reader(1)
    assert.ok(first.lost)
    assert.deepEqual([second.from, host.applied], [1, ['t1']], 'it reads the message at the checkpoint again')
    second.give(...stream.entries(1, 3))
    await applied('t3')
    assert.deepEqual([host.applied, reported, stream.readers.length], [ids(1, 3), [], 2])
  })

  it('reports a hole in the stream as a gap', async (test) => {
    const { stream, reported, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(stream.entry(1), ...stream.entries(5, 6))
    await applied('t6')
    assert.deepEqual([reported, stream.readers.length], [['gap 2..4 purged'], 1])
  })

  it('reads from the beginning when the message at its checkpoint has another id', async (test) => {
    const { stream, host, reported, subscriber, checkpointAt, applied } = await subscribe(test)
    await checkpointAt(3, { lastId: 't3' })
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

  it('continues when the message at its checkpoint has the same id', async (test) => {
    const { stream, host, reported, subscriber, checkpointAt, applied } = await subscribe(test)
    await checkpointAt(3, { lastId: 't3' })
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(3, 4))
    await applied('t4')
    assert.deepEqual([reported, host.applied, stream.readers.length], [[], ['t4'], 1])
  })

  it('enters another epoch and reports what is lost of the previous one', async (test) => {
    const { stream, host, reported, subscriber, checkpointAt, applied } = await subscribe(test)
    await checkpointAt(3)
    subscriber.start()
    const reader = await stream.reader(0)
    stream.epochs = [
      { epoch: 'e1', from: 1, last: 7, lastIndex: 7 },
      { epoch: 'e2', from: 5 },
    ]
    reader.give(...stream.entries(4, 4), ...stream.entries(5, 6, 'e2', 1))
    await applied('t2')
    assert.deepEqual([reported, host.applied], [['gap 5..7 rewound'], ['t4', 't1', 't2']])
  })

  it('reads an epoch from its beginning when that is before the checkpoint', async (test) => {
    const { stream, host, reported, subscriber, checkpointAt, applied } = await subscribe(test)
    await checkpointAt(3)
    subscriber.start()
    const first = await stream.reader(0)
    stream.epochs = [
      { epoch: 'e1', from: 0, last: 4, lastIndex: 4 },
      { epoch: 'e2', from: 1 },
    ]
    first.give(...stream.entries(4, 5, 'e2'))
    const second = await stream.reader(1)
    assert.equal(second.from, 1)
    second.give(...stream.entries(1, 5, 'e2'))
    await applied('t5')
    assert.deepEqual([reported, host.applied], [['gap 4..4 recreated'], ids(1, 5)])
  })

  it('retries a failed request with increasing delays, and at once when the peer reports a position', async (test) => {
    const clock = new TestClock({ stopped: true })
    const { stream, host, subscriber, applied } = await subscribe(test, { timers: clock })
    stream.obstacle = async () => {
      throw new MeshError('no_responders')
    }
    subscriber.start()
    while (stream.stateRequests < 6) await clock.advance(10)
    const elapsed = clock.elapsed()
    assert.ok(stream.stateRequests <= attemptsWithin(elapsed), `${stream.stateRequests} requests in ${elapsed} ms`)
    stream.obstacle = undefined
    const { stateRequests } = stream
    subscriber.onPeerPosition({ epoch: 'e1', sequence: 1, index: 1 })
    // The clock stands still.
    await eventually('another request', () => stream.stateRequests > stateRequests)
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 1))
    await applied('t1')
    assert.deepEqual(host.applied, ['t1'])
  })

  it('reads again at once when a server restarted, even during a request', async (test) => {
    const { stream, subscriber } = await subscribe(test, { requestTimeout: 60_000 })
    stream.obstacle = (signal) =>
      new Promise((_, reject) => {
        signal?.addEventListener('abort', () => reject(new MeshError('aborted')))
      })
    subscriber.start()
    await eventually('a request', () => stream.stateRequests === 1)
    stream.obstacle = undefined
    subscriber.restart()
    const first = await stream.reader(0)
    subscriber.restart()
    await stream.reader(1)
    assert.ok(first.lost)
  })
})

describe('a position that a peer reports', { concurrency: true, timeout: 30_000 }, () => {
  it('restarts reading when it arrives twice without progress', async (test) => {
    const clock = new TestClock({ stopped: true })
    const { stream, subscriber, applied } = await subscribe(test, { timers: clock })
    subscriber.start()
    const first = await stream.reader(0)
    stream.last = 3
    subscriber.onPeerPosition({ epoch: 'e1', sequence: 3, index: 3 })
    first.give(...stream.entries(1, 1))
    await applied('t1')
    subscriber.onPeerPosition({ epoch: 'e1', sequence: 3, index: 3 })
    await clock.advance(100)
    assert.equal(stream.readers.length, 1, 'there was progress')
    subscriber.onPeerPosition({ epoch: 'e1', sequence: 3, index: 3 })
    await clock.advance(0)
    assert.equal(first.lost, false, 'it arrives at the same time')
    await clock.advance(550)
    subscriber.onPeerPosition({ epoch: 'e1', sequence: 3, index: 3 })
    await clock.advance(1_000)
    await stream.reader(1)
  })

  it('has no effect when everything is applied', async (test) => {
    const { stream, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 3))
    await applied('t3')
    for (let times = 0; times < 4; times++) subscriber.onPeerPosition({ epoch: 'e1', sequence: 3, index: 3 })
    await delay(100)
    assert.equal(stream.readers.length, 1)
  })

  it('has no effect while the database applies a batch', async (test) => {
    const { stream, host, subscriber, applied } = await subscribe(test)
    let release = () => {}
    host.beforeApply = () =>
      new Promise((resolve) => {
        release = resolve
      })
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 3))
    await eventually('the batch is read', () => subscriber.status().lastSequence === 3)
    for (let times = 0; times < 4; times++) subscriber.onPeerPosition({ epoch: 'e1', sequence: 3, index: 3 })
    await delay(100)
    host.beforeApply = undefined
    release()
    await applied('t3')
    assert.deepEqual([stream.readers.length, reader.lost], [1, false])
  })

  it('restarts reading when it is in another epoch, whatever the sequence is', async (test) => {
    const clock = new TestClock({ stopped: true })
    const { stream, subscriber, checkpointAt } = await subscribe(test, { timers: clock })
    await checkpointAt(3)
    subscriber.start()
    await stream.reader(0)
    subscriber.onPeerPosition({ epoch: 'e2', sequence: 1, index: 1 })
    await clock.advance(550)
    subscriber.onPeerPosition({ epoch: 'e2', sequence: 1, index: 1 })
    await clock.advance(1_000)
    await stream.reader(1)
  })
})

describe('a restart on suspicion', { timeout: 30_000 }, () => {
  /** Requests a restart after `ms`. Resolves with whether the subscriber restarted. */
  async function restarts(
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
    // The subscriber has read its checkpoint again.
    await new Promise((resolve) => setImmediate(resolve))
    return true
  }

  it('has an interval that doubles without progress, up to 30 seconds, and starts at one second after progress', async (test) => {
    const { stream, subscriber, applied } = await subscribe(test)
    const pass = standingTime(test)
    subscriber.start()
    await reading(stream, 0)
    stream.last = 9
    subscriber.onPeerPosition({ epoch: 'e1', sequence: 9, index: 9 })
    assert.ok(await restarts(stream, subscriber, pass, 0), 'the first restart is immediate')
    for (const timeoutMs of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      assert.ok(!(await restarts(stream, subscriber, pass, timeoutMs - 1)), `${timeoutMs - 1} ms later`)
      assert.ok(await restarts(stream, subscriber, pass, 1), `${timeoutMs} ms later`)
    }
    stream.readers.at(-1)!.give(...stream.entries(1, 1))
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    await applied('t1')
    assert.ok(await restarts(stream, subscriber, pass, 0), 'immediate after progress')
    assert.ok(await restarts(stream, subscriber, pass, 1_000), 'and again after a second')
  })

  it('keeps an interval of one second when the subscription is not behind', async (test) => {
    const { stream, subscriber } = await subscribe(test)
    const pass = standingTime(test)
    subscriber.start()
    await reading(stream, 0)
    assert.ok(await restarts(stream, subscriber, pass, 0))
    for (let times = 0; times < 3; times++) {
      assert.ok(!(await restarts(stream, subscriber, pass, 999)))
      assert.ok(await restarts(stream, subscriber, pass, 1))
    }
  })

  /** Resolves with the reader of this index when the subscriber waits for its messages. */
  async function reading(stream: RemoteStream, index: number): Promise<ScriptedReader> {
    const reader = await stream.reader(index)
    await new Promise((resolve) => setImmediate(resolve))
    return reader
  }
})

describe('a batch that the database rejects', { concurrency: true, timeout: 30_000 }, () => {
  it('is retried without end and reported each time, and nothing is skipped', async (test) => {
    const { stream, host, reported, subscriber, applied } = await subscribe(test)
    let refusals = 0
    host.beforeApply = () => {
      if (refusals++ < 30) throw new Error('not now')
    }
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.entries(1, 3))
    // A reported position ends the delay before the next attempt.
    const reporting = setInterval(() => subscriber.onPeerPosition({ epoch: 'e1', sequence: 3, index: 3 }), 1)
    test.after(() => clearInterval(reporting))
    await applied('t3')
    assert.deepEqual(host.applied, ids(1, 3))
    // The first attempt is the whole batch; then the first transaction is refused again and again.
    assert.deepEqual(
      reported,
      Array.from({ length: 29 }, (_, index) => `stalled at 1: not now, ${index + 1}`),
    )
  })

  it('is retried with increasing delays', async (test) => {
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
    await eventually('three attempts', () => attempts >= 3)
    await delay(300)
    const elapsed = Date.now() - started
    assert.ok(attempts <= attemptsWithin(elapsed), `${attempts} attempts in ${elapsed} ms`)
  })
})

describe('a database that answers without waiting', () => {
  it('leaves a turn of the event loop between batches for the network', async (test) => {
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

describe('a quarantined message', { concurrency: true, timeout: 30_000 }, () => {
  const HOUR = 3_600_000
  const ahead = () => makeTimestamp(Date.now() + HOUR, 0, 'node1')

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
    const { stream, host, quarantine, subscriber, applied, time } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(
      { ...stream.entry(1), data: Buffer.from('garbage') },
      stream.entry(2, { timestamp: makeTimestamp(Date.now() + 360_000, 0, 'node1') }),
      ...stream.entries(3, 3),
    )
    await applied('t3')
    assert.equal(quarantine.size, 2)
    host.refusal = new Error('not now')
    await assert.rejects(subscriber.discard([1]), /not now/)
    assert.equal(quarantine.size, 2)
    assert.deepEqual(await subscriber.discard([1]), [1])
    time.ahead = 60_000
    host.refusal = new Error('not now')
    await assert.rejects(subscriber.replay(), /not now/)
    assert.equal(quarantine.size, 1)
    assert.deepEqual(await subscriber.replay(), { applied: [2], voided: [], kept: [] })
    assert.equal(quarantine.size, 0)
    assert.deepEqual(host.applied, ['t3', 't2'])
  })

  it('is not kept when its transaction arrives by another path meanwhile', async (test) => {
    const { stream, host, quarantine, applier, subscriber, applied } = await subscribe(test)
    const timestamp = ahead()
    const origin = { node: 'node3', epoch: 'o1', index: 5, relayedBy: ['node1'] }
    const other = { ...source, node: 'node4' }
    subscriber.start()
    const reader = await stream.reader(0)
    // The transaction arrives while the file is being written.
    const { put } = quarantine
    quarantine.put = async (...args) => {
      const message = await put.apply(quarantine, args)
      await applier.apply(other, [{ id: 'far', timestamp, writes: [], origin, sequence: 1, index: 1 }], {
        epoch: 'x',
        sequence: 1,
      })
      return message
    }
    reader.give(stream.entry(1, { id: 'far', timestamp, origin }), ...stream.entries(2, 2))
    await applied('t2')
    assert.deepEqual([quarantine.size, host.applied], [0, ['far', 't2']])
  })

  it('does not result from a transaction that is applied already, however far ahead its timestamp is', async (test) => {
    const { stream, host, reported, quarantine, subscriber, applied } = await subscribe(test)
    quarantine.put = () => Promise.reject(new Error('the quarantine is full'))
    subscriber.start()
    const reader = await stream.reader(0)
    const origin = { node: 'node2', epoch: 'o1', index: 5, relayedBy: ['node2', 'node1'] }
    reader.give(stream.entry(1, { timestamp: ahead(), origin }), ...stream.entries(2, 2))
    await applied('t2')
    assert.deepEqual([reported, host.applied], [[], ['t2']])
  })

  it('does not advance the local clock; an applied transaction does', async (test) => {
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
