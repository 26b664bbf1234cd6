// The cursor: whatever happened to the stream, each gap is reported once, with its bounds, after its checkpoint is stored.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Checkpoint } from '../../lib/host/host.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import type { EpochRange } from '../../lib/replication/stream-metadata.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { loadCheckpoint } from '../../lib/replication/subscribe/checkpoint-version.ts'
import { Cursor, type Gap } from '../../lib/replication/subscribe/cursor.ts'
import { Begun } from '../support/begun.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { RemoteStream, source } from '../support/remote-stream.ts'

const { signal } = new AbortController()

async function cursorAt(checkpoint?: Checkpoint) {
  const stream = new RemoteStream()
  const host = new MemoryHost([['dev', 'dog']])
  const reported: unknown[][] = []
  if (checkpoint) await host.apply({ source, transactions: [], checkpoint })
  const counters = replicationCounters()
  const applier = new Applier({ host, node: 'node2', relayEnabled: false, counters, relay() {}, validate() {} })
  const begun = new Begun()
  const gap = ({ from, to, reason }: Gap) => void reported.push([from, to, reason])
  const cursor = new Cursor({ source, mesh: stream.mesh, applier, begun, requestTimeout: 1_000, gap })
  const stored = async () => (await loadCheckpoint(host, source))!
  return { stream, host, reported, applier, begun, cursor, stored }
}

/** Sets the epochs and the bounds of the stream. */
const setStream = (stream: RemoteStream, epochs: EpochRange[], first: number, last: number) =>
  Object.assign(stream, { epochs, first, last })

describe('a subscription without a negotiated start', () => {
  it('starts at the end of the stream, and stores that before reading', async () => {
    const { stream, reported, cursor, stored } = await cursorAt()
    setStream(stream, [{ epoch: 'e1', from: 1 }], 1, 7)
    await cursor.resume(signal)
    assert.deepEqual([await stored(), reported], [{ epoch: 'e1', sequence: 7 }, []])
  })
})

describe('messages that the stream no longer has', () => {
  it('are reported as a gap once, after the checkpoint is stored', async () => {
    const { stream, host, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    setStream(stream, [{ epoch: 'e1', from: 1 }], 6, 9)
    await cursor.resume(signal)
    host.refusal = new Error('not now')
    const end = { sequence: 5, index: 50 }
    await assert.rejects(cursor.skipHole(end, signal), /not now/)
    assert.deepEqual([reported, (await stored()).sequence], [[], 3])
    await cursor.skipHole(end, signal)
    await cursor.skipHole(end, signal)
    assert.deepEqual(reported, [[4, 50, 'expired']])
    const lost = { gaps: { count: 1, lost: 47 }, unrepairedGaps: 1, missing: { e1: [[4, 50]] } }
    assert.deepEqual(await stored(), { epoch: 'e1', ...end, ...lost })
  })

  it('are no gap when they were applied', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 5, index: 5 })
    setStream(stream, [{ epoch: 'e1', from: 1 }], 6, 9)
    await cursor.resume(signal)
    assert.deepEqual([reported, (await stored()).sequence], [[], 5])
  })

  it('do not change the requested start or a replay in progress', async () => {
    const start = { startTime: '2026-01-01T00:00:00Z', replayUntil: 8 }
    const { stream, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3, ...start })
    setStream(stream, [{ epoch: 'e1', from: 1 }], 6, 9)
    await cursor.resume(signal)
    await cursor.skipHole({ sequence: 5, index: 5 }, signal)
    const lost = { gaps: { count: 1, lost: 2 }, unrepairedGaps: 1, missing: { e1: [[4, 5]] } }
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 5, index: 5, ...start, ...lost })
    setStream(stream, [{ epoch: 'e2', from: 1 }], 1, 9)
    await cursor.resume(signal)
    const { startTime, replayUntil } = await stored()
    assert.deepEqual(
      [startTime, replayUntil],
      [start.startTime, undefined],
      'the sequences of another epoch do not compare',
    )
  })
})

describe('another epoch', () => {
  it('behind older messages is entered after the rest of the previous epoch is read', async () => {
    const { stream, reported, applier, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    const epochs: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 8, lastIndex: 8 },
      { epoch: 'e2', from: 6 },
    ]
    setStream(stream, epochs, 1, 7)
    await cursor.resume(signal)
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e1', sequence: 3, index: 3 }])
    await applier.apply(source, [], { epoch: 'e1', sequence: 5, index: 5 })
    await cursor.resume(signal)
    assert.deepEqual(reported, [[6, 8, 'rewound']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e2', 5])
  })

  it('of a recreated stream loses all messages that were acknowledged and not applied', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    const epochs: EpochRange[] = [
      { epoch: 'e1', from: 0, last: 5, lastIndex: 5 },
      { epoch: 'e2', from: 1 },
    ]
    setStream(stream, epochs, 1, 9)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[4, 5, 'recreated']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e2', 0])
  })

  it('of a stream that was recreated twice loses what was acknowledged in the epoch between', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    const epochs: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 3, lastIndex: 3 },
      { epoch: 'e2', from: 0, last: 4, lastIndex: 4 },
      { epoch: 'e3', from: 1 },
    ]
    setStream(stream, epochs, 1, 2)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[1, 4, 'recreated']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e3', 0])
  })

  it('of a stream that was recreated twice begins with what was never acknowledged', async () => {
    const known = { epoch: 'e1', sequence: 9, index: 9, lastId: 't9' }
    for (const [lastIndex, gap, expected] of [
      [4, [], { epoch: 'e3', sequence: 0, index: 2, lastId: 't9' }],
      // What e2 began with is gone, so nothing shows that it was the same.
      [6, [[1, 6, 'recreated']], { epoch: 'e3', sequence: 0, index: 0 }],
      [8, [[1, 8, 'recreated']], { epoch: 'e3', sequence: 0, index: 0 }],
    ] as const) {
      const { stream, reported, cursor, stored } = await cursorAt(known)
      const epochs: EpochRange[] = [
        { epoch: 'e1', from: 0, last: 3, lastIndex: 3 },
        { epoch: 'e2', from: 0, last: lastIndex, lastIndex },
        { epoch: 'e3', from: 1 },
      ]
      setStream(stream, epochs, 1, 2)
      await cursor.resume(signal)
      const { epoch, sequence, index, lastId } = await stored()
      assert.deepEqual(reported, gap)
      assert.deepEqual({ epoch, sequence, index, ...(lastId !== undefined && { lastId }) }, expected)
    }
  })

  it('of a recreated stream is waited for when the description does not contain it yet', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    setStream(stream, [{ epoch: 'e1', from: 0, last: 5, lastIndex: 5 }], 1, 0)
    await assert.rejects(cursor.resume(signal))
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e1', sequence: 3, index: 3 }])
    setStream(stream, [...stream.epochs, { epoch: 'e2', from: 1 }], 1, 0)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[4, 5, 'recreated']])
  })

  it('is waited for when the description contains neither it nor the epoch of the checkpoint', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e0', sequence: 0, index: 0 })
    setStream(stream, [{ epoch: 'e1', from: 0, last: 5, lastIndex: 5 }], 1, 0)
    await assert.rejects(cursor.resume(signal), { code: 'rejected' })
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e0', sequence: 0, index: 0 }])
  })

  it('loses at least one message when the description no longer contains the epoch of the checkpoint', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    setStream(stream, [{ epoch: 'e9', from: 1 }], 1, 2)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[4, undefined, 'recreated']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e9', 0])
  })

  it('of a message is entered even if the description contains later ones', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    stream.last = 3
    await cursor.resume(signal)
    const epochs: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 3, lastIndex: 3 },
      { epoch: 'e2', from: 4, last: 6, lastIndex: 6 },
      { epoch: 'e3', from: 6 },
    ]
    setStream(stream, epochs, 1, 7)
    await cursor.enterEpoch('e2', 4, signal)
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e2', sequence: 3, index: 0 }])
  })

  it('of a message loses at least one message when the description does not contain it', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, index: 3 })
    stream.last = 3
    await cursor.resume(signal)
    setStream(stream, [{ epoch: 'e1', from: 1 }], 1, 7)
    await cursor.enterEpoch('e5', 6, signal)
    assert.deepEqual(reported, [[4, undefined, 'recreated']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e5', 5])
  })
})

describe('a stream that ends before the checkpoint', () => {
  it('is not read until its writer begins a new epoch', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 8, index: 8 })
    stream.last = 8
    await cursor.resume(signal)
    // A delayed report from before the loss.
    cursor.onPeerPosition({ epoch: 'e1', sequence: 5, index: 5 })
    setStream(stream, [{ epoch: 'e1', from: 1 }], 1, 5)
    for (let times = 0; times < 2; times++) await assert.rejects(cursor.resume(signal), { code: 'not_found' })
    cursor.onPeerPosition({ epoch: 'e2', sequence: 5, index: 5 })
    cursor.onPeerPosition({ epoch: 'e1', sequence: 8, index: 8 })
    await assert.rejects(cursor.resume(signal), { code: 'not_found' })
    assert.deepEqual([reported, (await stored()).sequence], [[], 8])
    const epochs: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 9, lastIndex: 9 },
      { epoch: 'e2', from: 6 },
    ]
    setStream(stream, epochs, 1, 6)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[9, 9, 'rewound']])
  })

  it('is read again when its writer confirms the position: its database was restored too', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 8, index: 8 })
    setStream(stream, [{ epoch: 'e1', from: 1 }], 2, 5)
    stream.entry(2)
    await assert.rejects(cursor.resume(signal), { code: 'not_found' })
    cursor.onPeerPosition({ epoch: 'e1', sequence: 5, index: 5 })
    await cursor.resume(signal)
    assert.deepEqual(reported, [[2, 8, 'rewound']])
    const { sequence, replayUntil } = await stored()
    // Its messages are applied although their sequences are in the applied ranges.
    assert.deepEqual([sequence, replayUntil], [1, 8])
    await cursor.resume(signal)
    assert.equal(reported.length, 1)
  })

  it('is read again when it has no epochs', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: '', sequence: 8, index: 8 })
    setStream(stream, [], 1, 5)
    await cursor.resume(signal)
    assert.deepEqual([reported, (await stored()).sequence], [[[1, 8, 'rewound']], 0])
  })
})
