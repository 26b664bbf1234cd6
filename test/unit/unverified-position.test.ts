// The last applied transaction is in a message that was not read yet in the present stream: after a loss of the stream its source sends again what was not
// confirmed, or the stream was restored and has other messages. Messages may expire meanwhile. Nothing is applied twice, and nothing is lost in silence.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { eventually } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { type RemoteStream, source } from '../support/remote-stream.ts'
import { subscribe } from '../support/scripted-subscription.ts'

/** Message `sequence` of e2 has one transaction, the number `sequence` of the epoch. `name`: which transactions they are. */
const again = (stream: RemoteStream, sequence: number, name = 't') =>
  stream.entry(sequence, {
    epoch: 'e2',
    id: `${name}${sequence}`,
    timestamp: makeTimestamp(sequence + (name === 't' ? 0 : 100), 0, 'node1'),
  })

/** The process of the subscriber begins again, or for the first time. */
async function start(test: TestContext, earlier: Parameters<typeof subscribe>[2]) {
  const subscription = await subscribe(test, {}, earlier)
  subscription.subscriber.start()
  const readers = subscription.stream.readers.length
  return { ...subscription, reader: await subscription.stream.reader(readers) }
}

/** t1 to t4 were applied in e1, and none was confirmed. The subscriber has read the first message of e2 when its process ends. */
async function unverified(test: TestContext, name = 't') {
  const first = await start(test, {})
  const { stream, host, directory, subscriber } = first
  stream.last = 1
  first.reader.give(stream.frame(1, 1, 4))
  await first.applied('t4')
  await subscriber.stop()
  Object.assign(stream, {
    epochs: [
      { epoch: 'e1', from: 0, last: 0, lastIndex: 0 },
      { epoch: 'e2', from: 1 },
    ],
    last: 5,
  })
  const second = await start(test, { stream, host, directory })
  assert.equal(second.reader.from, 1)
  second.reader.give(again(stream, 1, name))
  await eventually('it is passed', async () => (await host.loadCheckpoint(source))?.sequence === 1)
  assert.deepEqual(host.applied, ['t1', 't2', 't3', 't4'])
  return second
}

describe('a position that was not seen in the epoch', { concurrency: true, timeout: 30_000 }, () => {
  it('stays when messages before it expire: nothing is applied twice, whether reading began again or not', async (test) => {
    for (const isRestarted of [false, true]) {
      let subscription = await unverified(test)
      const { stream, host, directory, subscriber } = subscription
      stream.first = 3
      if (isRestarted) {
        await subscriber.stop()
        subscription = await start(test, { stream, host, directory })
      }
      subscription.reader.give(again(stream, 3), again(stream, 4), again(stream, 5))
      await subscription.applied('t5')
      assert.deepEqual([host.applied, subscription.reported], [['t1', 't2', 't3', 't4', 't5'], []])
      const { index, lastId, unverified: flag } = (await host.loadCheckpoint(source))!
      assert.deepEqual([index, lastId, flag], [5, 't5', undefined])
    }
  })

  it('is compared when messages before it expired: other transactions are applied', async (test) => {
    const { stream, host, reader, reported, applied } = await unverified(test, 'other')
    stream.first = 3
    const next = stream.readers.length
    reader.give(again(stream, 3, 'other'), again(stream, 4, 'other'))
    const repeated = await stream.reader(next)
    assert.deepEqual([repeated.from, reported], [1, ['gap 1..4 rewound']])
    repeated.give(again(stream, 3, 'other'), again(stream, 4, 'other'), again(stream, 5, 'other'))
    await applied('other5')
    assert.deepEqual(host.applied.slice(4), ['other3', 'other4', 'other5'])
  })

  it('that is gone leaves open what the epoch began with: all of that is a gap', async (test) => {
    const { stream, host, reader, reported, applied } = await unverified(test)
    stream.first = 5
    reader.give(again(stream, 5))
    await applied('t5')
    assert.deepEqual([host.applied.slice(4), reported], [['t5'], ['gap 1..4 expired']])
  })

  it('passes on to the next epoch', async (test) => {
    const { stream, host, directory, subscriber } = await unverified(test)
    await subscriber.stop()
    // t4 was not confirmed in e2 either, and is sent once more.
    Object.assign(stream, {
      epochs: [
        { epoch: 'e1', from: 0, last: 0, lastIndex: 0 },
        { epoch: 'e2', from: 1, last: 3, lastIndex: 3 },
        { epoch: 'e3', from: 4 },
      ],
      first: 4,
    })
    const { reader, applied, reported } = await start(test, { stream, host, directory })
    const entry = (index: number, id: string) => stream.entry(index + 3, { epoch: 'e3', index, id })
    reader.give(entry(1, 't4'), entry(2, 't5'))
    await applied('t5')
    assert.deepEqual([host.applied, reported], [['t1', 't2', 't3', 't4', 't5'], []])
  })
})

it('a stream that was restored, and whose messages after the position begin before it, is read again', async (test) => {
  const { stream, host, reader, reported, subscriber, directory, applied } = await start(test, {})
  stream.last = 1
  reader.give(stream.frame(1, 1, 4))
  await applied('t4')
  await subscriber.stop()
  // The source wrote other transactions with the same numbers, in smaller messages, and the first of them have expired.
  for (const first of [2, 3]) {
    Object.assign(stream, { first, last: 5 })
    const other = (index: number) =>
      stream.entry(index, { id: `o${first}-${index}`, timestamp: makeTimestamp(100 * first + index, 0, 'node1') })
    const resumed = await start(test, { stream, host, directory })
    const next = stream.readers.length
    const messages = [2, 3, 4, 5].filter((index) => index >= first).map(other)
    resumed.reader.give(...messages)
    const repeated = await stream.reader(next)
    assert.equal(repeated.from, first)
    repeated.give(...messages)
    await resumed.applied(`o${first}-5`)
    assert.deepEqual(
      host.applied.slice(-messages.length),
      messages.map(({ sequence }) => `o${first}-${sequence}`),
    )
    await resumed.subscriber.stop()
    // The same again from the first position.
    await host.apply({ source, transactions: [], checkpoint: { epoch: 'e1', sequence: 1, index: 4, lastId: 't4' } })
  }
  assert.deepEqual(reported, [])
})

it('what was applied in the previous epoch keeps its timestamps: one that arrives again in the new one is not newer', async () => {
  const host = new MemoryHost([['dev', 'dog']])
  const counters = replicationCounters()
  const applier = new Applier({ host, node: 'local', relayEnabled: false, counters, relay() {}, validate() {} })
  const receive = (epoch: string, index: number, id = `t${index}`, time = index) => {
    const timestamp = makeTimestamp(time, 0, 'node1')
    const origin = { node: 'node1', epoch, index, relayedBy: [] }
    const transaction = { id, timestamp, writes: [], origin, sequence: index, index }
    return applier.apply(source, [transaction], { epoch, sequence: index, index, lastId: id })
  }
  for (const index of [1, 2, 3]) await receive('e1', index)
  await applier.move(source, { epoch: 'e2', sequence: 0, index: 3 }, { replayed: 3 })
  for (const index of [2, 3]) await receive('e2', index)
  assert.deepEqual(host.applied, ['t1', 't2', 't3'])
  // A restored source has used the number for another one.
  await receive('e2', 3, 'other', 10)
  assert.deepEqual(host.applied, ['t1', 't2', 't3', 'other'])
})
