// A subscriber to messages with several transactions: each transaction is applied once, in order, wherever reading stops and begins.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { AppliedRange, Checkpoint } from '../../lib/host/host.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { rangesOf } from '../../lib/replication/applied-ranges.ts'
import { eventually } from '../support/cluster.ts'
import { type RemoteStream, source } from '../support/remote-stream.ts'
import { subscribe } from '../support/scripted-subscription.ts'

type Subscription = Awaited<ReturnType<typeof subscribe>>

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, offset) => `t${from + offset}`)
/** The stored checkpoint. Its applied ranges are without timestamps, which other tests check. */
const stored = async ({ host }: Subscription): Promise<Checkpoint> => {
  const { applied, ...checkpoint } = (await host.loadCheckpoint(source))!
  if (!applied) return checkpoint
  const withoutTimestamps = (ranges: Record<string, AppliedRange[]>) =>
    mapValues(ranges, (each) => each.map(([from, to]): AppliedRange => [from, to]))
  return { ...checkpoint, applied: mapValues(applied, withoutTimestamps) }
}
const mapValues = <T, U>(record: Record<string, T>, change: (value: T) => U): Record<string, U> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]))
/** The place in the stream of the stored checkpoint. */
const place = async (subscription: Subscription) => {
  const { epoch, sequence, index, partial, lastId } = await stored(subscription)
  return { epoch, sequence, index, ...(partial && { partial }), ...(lastId !== undefined && { lastId }) }
}
/** The process of the subscriber ends, and another one begins on the same database. */
const restart = async (test: TestContext, { subscriber, stream, host, directory }: Subscription) => {
  await subscriber.stop()
  const next = await subscribe(test, {}, { stream, host, directory })
  next.subscriber.start()
  return next
}

/** Applies these messages until the database refuses batches after this number of them; a batch has at most four transactions. */
async function stopInside(test: TestContext, sizes: number[], batches: number): Promise<Subscription> {
  const subscription = await subscribe(test, { maxBatch: 4 })
  const { host, stream, subscriber } = subscription
  let count = 0
  host.beforeApply = ({ transactions }) => {
    if (transactions.length > 0 && ++count > batches) throw new MeshError('disconnected')
  }
  subscriber.start()
  const reader = await stream.reader(0)
  reader.give(...stream.frames(sizes))
  await eventually('it is refused', () => count > batches)
  await subscriber.stop()
  host.beforeApply = undefined
  return subscription
}

describe('messages with several transactions', { concurrency: true, timeout: 30_000 }, () => {
  it('are applied in batches of a bounded count, which may end inside of them', async (test) => {
    const subscription = await subscribe(test)
    const { stream, host, subscriber, applied } = subscription
    const batches: unknown[] = []
    host.beforeApply = ({ transactions, checkpoint: { sequence, index, partial, lastId } }) =>
      void batches.push([transactions.length, sequence, index, partial, lastId])
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.frames([1, 3, 12, 1, 8]))
    await applied('t25')
    assert.deepEqual(host.applied, ids(1, 25))
    assert.deepEqual(batches, [
      [10, 2, 10, true, 't10'],
      [10, 4, 20, true, 't20'],
      [5, 5, 25, undefined, 't25'],
    ])
    assert.deepEqual((await stored(subscription)).applied, { node1: { e1: [[1, 25]] } })
    const { appliedSequence, lastSequence, lag } = subscriber.status()
    assert.deepEqual([appliedSequence, lastSequence, lag], [5, 5, 0])
  })

  it('are continued inside, after a restart: nothing is applied twice or skipped', async (test) => {
    const before = await stopInside(test, [1, 9, 3], 2)
    assert.deepEqual(await place(before), { epoch: 'e1', sequence: 1, index: 8, partial: true, lastId: 't8' })
    const after = await restart(test, before)
    const reader = await before.stream.reader(1)
    assert.equal(reader.from, 2, 'the message that holds the position')
    reader.give(...before.stream.frames([9, 3], { sequence: 2, first: 2 }))
    await after.applied('t13')
    assert.deepEqual([before.host.applied, after.reported], [ids(1, 13), []])
  })

  it('show that the stream was rewound when another transaction is at the position', async (test) => {
    for (const change of ['another', 'shorter', 'ends there', 'later'] as const) {
      const before = await stopInside(test, [1, 9], 2)
      const { stream, host } = before
      const after = await restart(test, before)
      const reader = await stream.reader(1)
      const size = { another: 9, shorter: 3, 'ends there': 7, later: 9 }[change]
      const other = Array.from({ length: size }, (_, offset) => ({ id: `${change}${offset}` }))
      if (change === 'ends there') other[6] = { id: 't8' }
      const first = change === 'later' ? 9 : 2
      reader.give(stream.frame(2, first, other))
      const again = await stream.reader(2)
      assert.deepEqual([again.from, after.reported], [1, ['gap 1..8 rewound']], change)
      again.give(stream.entry(1), stream.frame(2, first, other))
      await after.applied(`${change}${size - 2}`)
      assert.equal(host.applied.filter((id) => id.startsWith(change)).length, change === 'ends there' ? 6 : size)
    }
  })

  it('are waited for when the one with the position is gone: the stream must have more than the checkpoint', async (test) => {
    const before = await stopInside(test, [1, 9], 2)
    before.stream.last = 1
    const after = await restart(test, before)
    await eventually('it waits', () => after.subscriber.status().error?.includes('ends before the checkpoint'))
    after.subscriber.onPeerPosition({ epoch: 'e1', sequence: 1, index: 1 })
    const reader = await before.stream.reader(1)
    assert.deepEqual([reader.from, after.reported], [1, ['gap 1..8 rewound']])
  })

  it('of which the last one has more transactions than were applied show that the stream was rewound', async (test) => {
    const { stream, reported, subscriber, checkpointAt } = await subscribe(test)
    await checkpointAt(1, { index: 3, lastId: 't3' })
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(stream.frame(1, 1, 5))
    await stream.reader(1)
    assert.deepEqual(reported, ['gap 1..3 rewound'])
  })

  it('are read from an index that is not known yet', async (test) => {
    const subscription = await subscribe(test)
    const { stream, reported, subscriber, checkpointAt, applied } = subscription
    await checkpointAt(3, { index: undefined })
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.frames([2, 5], { sequence: 4, first: 71 }))
    await applied('t77')
    assert.deepEqual(await place(subscription), { epoch: 'e1', sequence: 5, index: 77, lastId: 't77' })
    assert.deepEqual([(await stored(subscription)).applied, reported], [{ node1: { e1: [[71, 77]] } }, []])
  })

  it('follow messages of HarperDB with numbers of their own', async (test) => {
    const subscription = await subscribe(test)
    const { stream, host, reported, subscriber, checkpointAt, applied } = subscription
    await checkpointAt(40, { epoch: '', index: 40 })
    stream.epochs = [{ epoch: 'e1', from: 41 }]
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(...stream.frames([3, 2], { sequence: 41 }))
    await applied('t5')
    assert.deepEqual([host.applied, reported], [ids(1, 5), []])
    assert.deepEqual(await place(subscription), { epoch: 'e1', sequence: 42, index: 5, lastId: 't5' })
  })
})

describe('a gap between messages', { concurrency: true, timeout: 30_000 }, () => {
  it('is counted in transactions, also from inside a message', async (test) => {
    const before = await stopInside(test, [1, 9], 2)
    const { stream } = before
    stream.purged = [{ from: 1, to: 3, firstIndex: 1, lastIndex: 30 }]
    Object.assign(stream, { first: 6, last: 6 })
    const after = await restart(test, before)
    const reader = await stream.reader(1)
    reader.give(stream.frame(6, 51, 5))
    await after.applied('t55')
    assert.deepEqual(after.reported, ['gap 9..30 purged', 'gap 31..50 expired'])
    const { gaps, lost } = after.subscriber.status()
    assert.deepEqual([gaps, lost], [2, 42])
  })

  it('is no gap when nothing in it is new', async (test) => {
    const { stream, reported, subscriber, checkpointAt, applied } = await subscribe(test)
    await checkpointAt(1, { index: 9 })
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(stream.frame(4, 10, 3))
    await applied('t12')
    assert.deepEqual(reported, [])
  })

  it('of a stream that has no messages is reported at once; its length is known if the source has reported its position', async (test) => {
    for (const [isKnown, expected] of [
      [true, 'gap 4..50 expired'],
      [false, 'gap 4..undefined expired'],
    ] as const) {
      const subscription = await subscribe(test)
      const { stream, reported, subscriber, checkpointAt } = subscription
      await checkpointAt(3)
      Object.assign(stream, { first: 10, last: 9 })
      if (isKnown) subscriber.onPeerPosition({ epoch: 'e1', sequence: 9, index: 50 })
      subscriber.start()
      await stream.reader(0)
      assert.deepEqual(reported, [expected])
      const { gaps, sequence, index } = await stored(subscription)
      assert.deepEqual(
        [gaps, sequence, index],
        isKnown ? [{ count: 1, lost: 47 }, 9, 50] : [{ count: 1, lost: 0 }, 9, undefined],
      )
      assert.equal(subscriber.status().state, 'live')
    }
  })

  it('is also a jump of the index alone; lower numbers are skipped', async (test) => {
    const { stream, host, reported, subscriber, applied } = await subscribe(test)
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(stream.frame(1, 1, 2), stream.frame(2, 6, 2), stream.frame(3, 4, 6))
    await applied('t9')
    assert.deepEqual([host.applied, reported], [['t1', 't2', 't6', 't7', 't8', 't9'], ['gap 3..5 rewound']])
  })
})

describe('a new epoch', { concurrency: true, timeout: 30_000 }, () => {
  /** Applies 10 transactions in e1, of which the source knows 6; then the stream is lost, and e2 begins with the other four. */
  async function unconfirmed(test: TestContext) {
    const subscription = await subscribe(test)
    const { stream, subscriber, applied } = subscription
    subscriber.start()
    const first = await stream.reader(0)
    first.give(...stream.frames([4, 4, 2]))
    await applied('t10')
    Object.assign(stream, {
      epochs: [
        { epoch: 'e1', from: 0, last: 1, lastIndex: 6 },
        { epoch: 'e2', from: 1 },
      ],
      last: 4,
    })
    subscriber.restart()
    return { ...subscription, reader: await stream.reader(1) }
  }
  const sent = (from: number, to: number) => ids(from, to).map((id) => ({ id }))

  it('begins with the transactions that were applied and not confirmed, in other messages than before', async (test) => {
    const subscription = await unconfirmed(test)
    const { stream, host, reported, reader, applied } = subscription
    assert.deepEqual(await place(subscription), { epoch: 'e2', sequence: 0, index: 4, lastId: 't10' })
    assert.equal(reader.from, 1)
    reader.give(stream.frame(1, 1, sent(7, 7), 'e2'), stream.frame(2, 2, sent(8, 9), 'e2'))
    await eventually('they are skipped', async () => (await stored(subscription)).sequence === 2)
    assert.deepEqual(await place(subscription), { epoch: 'e2', sequence: 2, index: 4, lastId: 't10' })
    reader.give(stream.frame(3, 4, sent(10, 13), 'e2'))
    await applied('t13')
    assert.deepEqual([host.applied, reported], [ids(1, 13), []])
    assert.deepEqual((await stored(subscription)).applied!.node1!.e2, [[1, 7]])
  })

  it('is checked by the id of the last of them, also after a restart in between', async (test) => {
    for (const isRestarted of [false, true]) {
      const subscription = await unconfirmed(test)
      const { stream, host } = subscription
      let { reported, applied } = subscription
      subscription.reader.give(stream.frame(1, 1, [{ id: 'other' }], 'e2'))
      await eventually('it is skipped', async () => (await stored(subscription)).sequence === 1)
      const next = { reader: subscription.reader, index: 2 }
      if (isRestarted) {
        ;({ reported, applied } = await restart(test, subscription))
        next.reader = await stream.reader(next.index++)
        // The first message was read; the one with the last of them was not, as the checkpoint tells.
        assert.equal(next.reader.from, 2)
      }
      next.reader.give(stream.frame(2, 2, [{ id: 'x' }, { id: 'y' }, { id: 'z' }, { id: 'more' }], 'e2'))
      const again = await stream.reader(next.index)
      assert.deepEqual([again.from, reported], [1, ['gap 1..4 rewound']])
      again.give(stream.frame(1, 1, [{ id: 'other' }], 'e2'), stream.frame(2, 2, [{ id: 'x' }], 'e2'))
      await applied('x')
      assert.deepEqual(host.applied.slice(10), ['other', 'x'])
    }
  })

  it('reports what the source knows of the previous one and the stream has lost', async (test) => {
    for (const [lastIndex, expected] of [
      [50, 'gap 11..50 recreated'],
      [undefined, 'gap 11..undefined recreated'],
      [10, undefined],
    ] as const) {
      const { stream, reported, subscriber, checkpointAt } = await subscribe(test)
      await checkpointAt(3, { index: 10 })
      const end = { last: lastIndex === 10 ? 3 : 7, ...(lastIndex !== undefined && { lastIndex }) }
      Object.assign(stream, {
        last: 1,
        epochs: [
          { epoch: 'e1', from: 0, ...end },
          { epoch: 'e2', from: 1 },
        ],
      })
      subscriber.start()
      await stream.reader(0)
      assert.deepEqual(reported, expected === undefined ? [] : [expected])
    }
  })

  it('that is entered behind messages which expired reports both ranges', async (test) => {
    const { stream, reported, subscriber, checkpointAt, applied } = await subscribe(test)
    await checkpointAt(2, { index: 20 })
    Object.assign(stream, {
      epochs: [
        { epoch: 'e1', from: 1, last: 4, lastIndex: 40 },
        { epoch: 'e2', from: 5 },
      ],
      first: 7,
      last: 7,
    })
    subscriber.start()
    const reader = await stream.reader(0)
    assert.deepEqual(reported, ['gap 21..40 expired'])
    reader.give(stream.frame(7, 9, 2, 'e2'))
    await applied('t10')
    assert.deepEqual(reported, ['gap 21..40 expired', 'gap 1..8 expired'])
  })

  it('during a replay keeps replaying: what was applied before is applied again', async (test) => {
    const { stream, host, subscriber, checkpointAt, applied } = await subscribe(test)
    const known = { node1: { e1: [[1, 2]], e2: [[1, 2]] } }
    await checkpointAt(0, { applied: known, startTime: '2026-01-01T00:00:00Z', replayUntil: 2 })
    Object.assign(stream, {
      epochs: [
        { epoch: 'e1', from: 1, last: 1, lastIndex: 2 },
        { epoch: 'e2', from: 2 },
      ],
    })
    subscriber.start()
    const reader = await stream.reader(0)
    stream.last = 2
    reader.give(stream.frame(1, 1, 2), stream.frame(2, 1, [{ id: 'a' }, { id: 'b' }], 'e2'))
    await applied('b')
    assert.deepEqual(host.applied, ['t1', 't2', 'a', 'b'])
  })
})

describe('the lag', { concurrency: true, timeout: 30_000 }, () => {
  it('counts transactions: the last message tells their number, and the source reports it', async (test) => {
    const { stream, subscriber } = await subscribe(test)
    stream.frames(Array.from({ length: 20 }, () => 50))
    subscriber.start()
    await eventually('it is counted', () => subscriber.status().lag === 1_000)
    subscriber.onPeerPosition({ epoch: 'e1', sequence: 21, index: 1_001 })
    assert.equal(subscriber.status().lag, 1_001)
    subscriber.onPeerPosition({ epoch: 'e7', sequence: 90, index: 9_001 })
    assert.equal(subscriber.status().lag, 1_001, 'another epoch')
  })
})

describe('what cannot be read', { concurrency: true, timeout: 30_000 }, () => {
  const broken = (stream: RemoteStream, sequence: number, first: number, count: number, headers: object = {}) => {
    const stored = stream.frame(sequence, first, count)
    return { ...stored, data: Buffer.from('garbage'), headers: { ...stored.headers, ...headers } }
  }

  it('is quarantined alone when it is one of 256 transactions', async (test) => {
    const subscription = await subscribe(test, { maxBatch: 1_000 })
    const { stream, host, reported, quarantine, subscriber, applied } = subscription
    subscriber.start()
    const reader = await stream.reader(0)
    const list: object[] = Array.from({ length: 256 }, () => ({}))
    list[99] = { writes: [{ operation: 'delete', database: 'dev', table: 'dog', ids: [null] }] }
    reader.give(stream.frame(1, 1, list))
    await applied('t256')
    assert.deepEqual([host.applied, reported], [[...ids(1, 99), ...ids(101, 256)], ['quarantined 100']])
    const [message] = quarantine.list()
    assert.deepEqual([message!.index, message!.count, message!.sequence, message!.epoch], [100, 1, 1, 'e1'])
    assert.ok(message!.bytes < 200)
    assert.deepEqual(
      [(await stored(subscription)).quarantined, (await stored(subscription)).applied],
      [
        { e1: [[100, 100]] },
        {
          node1: {
            e1: [
              [1, 99],
              [101, 256],
            ],
          },
        },
      ],
    )
    assert.deepEqual(await subscriber.replay(), { applied: [], voided: [], kept: [100] })
    assert.deepEqual(await subscriber.discard([100]), [100])
    assert.deepEqual([quarantine.size, (await stored(subscription)).quarantined], [0, undefined])
  })

  it('is quarantined as one message, for its range, when that is unreadable as a whole', async (test) => {
    const subscription = await subscribe(test)
    const { stream, host, reported, quarantine, subscriber, applied } = subscription
    subscriber.start()
    const reader = await stream.reader(0)
    reader.give(stream.frame(1, 1, 2), broken(stream, 2, 3, 5), stream.frame(3, 8, 2))
    await applied('t9')
    assert.deepEqual([host.applied, reported], [['t1', 't2', 't8', 't9'], ['quarantined 3..7']])
    assert.deepEqual(await place(subscription), { epoch: 'e1', sequence: 3, index: 9, lastId: 't9' })
    const checkpoint = await stored(subscription)
    assert.deepEqual(rangesOf(checkpoint.quarantined, 'e1'), [[3, 7]])
    // They may arrive by another path, and are applied then.
    assert.deepEqual(checkpoint.applied!.node1!.e1, [
      [1, 2],
      [8, 9],
    ])
    assert.deepEqual(await subscriber.discard(), [3])
    assert.deepEqual([quarantine.size, (await stored(subscription)).quarantined], [0, undefined])
  })

  it('is not trusted: whatever its headers say, the next messages are applied, and no billion is lost', async (test) => {
    for (const headers of [
      { count: '4000' },
      { count: '1' },
      { first: '1000000000' },
      { first: 'x' },
      { first: '1' },
      { epoch: '' },
      { count: '99999' },
    ]) {
      const { stream, host, reported, quarantine, subscriber, applied } = await subscribe(test)
      subscriber.start()
      const reader = await stream.reader(0)
      reader.give(stream.frame(1, 1, 2), broken(stream, 2, 3, 5, headers), broken(stream, 3, 8, 1, headers))
      reader.give(stream.frame(4, 9, 3), stream.frame(6, 14, 1))
      await applied('t14')
      const what = JSON.stringify([headers, reported])
      assert.deepEqual(host.applied, ['t1', 't2', 't9', 't10', 't11', 't14'], what)
      assert.equal(quarantine.size, 2, what)
      assert.ok(reported.includes('gap 12..13 purged'), what)
      assert.ok(subscriber.status().lost < 20, what)
    }
  })

  it('is quarantined again, once, when it is read again', async (test) => {
    const before = await subscribe(test, { maxBatch: 2 })
    before.subscriber.start()
    const bad = { writes: [{ operation: 'delete', database: 'dev', table: 'dog', ids: [null] }] } as object
    const first = await before.stream.reader(0)
    first.give(before.stream.frame(1, 1, [{}, bad]), broken(before.stream, 2, 3, 4))
    await eventually('both are there', () => before.quarantine.size === 2)
    before.stream.last = 2
    const after = await restart(test, before)
    const reader = await before.stream.reader(1)
    reader.give(...[before.stream.frame(1, 1, [{}, bad]), broken(before.stream, 2, 3, 4)].slice(reader.from - 1))
    reader.give(before.stream.frame(3, 7, 1))
    await after.applied('t7')
    assert.deepEqual([before.host.applied, after.quarantine.size, after.reported], [['t1', 't7'], 2, []])
  })

  it('is applied by a replay when it can be read after all', async (test) => {
    const subscription = await subscribe(test)
    const { stream, host, quarantine, applier, subscriber, checkpointAt } = subscription
    const { data, headers, sequence, time } = stream.frame(1, 1, 5)
    const content = { format: 'message' as const, data, headers, sequence, time, node: 'node1', epoch: 'e1' }
    await checkpointAt(1, { index: 5, quarantined: { e1: [[3, 5]] } })
    await applier.loadCheckpoint(source)
    await quarantine.put(source, { ...content, index: 3, count: 3 }, 'it was unreadable')
    assert.deepEqual(await subscriber.replay([3]), { applied: [3], voided: [], kept: [] })
    assert.deepEqual([host.applied, quarantine.size], [['t3', 't4', 't5'], 0])
    const { quarantined, applied } = await stored(subscription)
    assert.deepEqual([quarantined, applied], [undefined, { node1: { e1: [[3, 5]] } }])
  })
})

describe('a later version', { concurrency: true, timeout: 30_000 }, () => {
  it('of a message stalls the subscription: what is before is applied, and nothing is quarantined or skipped', async (test) => {
    const subscription = await subscribe(test)
    const { stream, host, reported, quarantine, subscriber, applied } = subscription
    const states: string[] = []
    subscriber.start()
    const reader = await stream.reader(0)
    const [one, two, three] = stream.frames([3, 2, 1])
    const later = { ...two!, headers: { ...two!.headers, v: '2' } }
    reader.give(one!, later, three!)
    await eventually('it is stalled', () => subscriber.status().state === 'stalled')
    assert.match(subscriber.status().error!, /message 2 has version '2', this node reads version 1/)
    for (let index = 1; index <= 2; index++) {
      const again = await stream.reader(index)
      again.give(...[one!, later, three!].slice(again.from - 1))
      await eventually('it reads again', () => again.lost)
      states.push(subscriber.status().state)
    }
    assert.deepEqual(states, ['stalled', 'stalled'])
    assert.deepEqual([host.applied, quarantine.size, reported.length], [ids(1, 3), 0, 1])
    assert.match(reported[0]!, /^stalled at 2: /)
    const last = await stream.reader(3)
    last.give(...[one!, two!, three!].slice(last.from - 1))
    await applied('t6')
    await eventually('it is live', () => subscriber.status().state === 'live')
  })

  it('of the description stalls the subscription', async (test) => {
    const { stream, reported, subscriber, applied } = await subscribe(test)
    const { streamState } = stream.mesh
    stream.mesh.streamState = async (...args: Parameters<typeof streamState>) => {
      const state = (await streamState(...args))!
      return { ...state, description: state.description.replace('v=1', 'v=2') }
    }
    subscriber.start()
    await eventually('it is stalled', () => subscriber.status().state === 'stalled')
    assert.match(subscriber.status().error!, /version '2', this node reads version 1/)
    const { stateRequests } = stream
    await eventually('it asks again', () => stream.stateRequests > stateRequests)
    assert.equal(reported.length, 1, 'it is reported once')
    stream.mesh.streamState = streamState
    const reader = await stream.reader(0)
    assert.equal(subscriber.status().state, 'live')
    reader.give(...stream.frames([2]))
    await applied('t2')
  })
})
