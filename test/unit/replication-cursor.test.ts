// Where a subscription is, whatever has become of the stream meanwhile: each loss told once, with its bounds, after it is stored.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Checkpoint } from '../../lib/host/host.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import type { EpochRange } from '../../lib/replication/stream-metadata.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { Cursor } from '../../lib/replication/subscribe/cursor.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { RemoteStream, source } from '../support/remote-stream.ts'

const { signal } = new AbortController()

async function cursorAt(checkpoint?: Checkpoint) {
  const stream = new RemoteStream()
  const host = new MemoryHost([['dev', 'dog']])
  const reported: unknown[][] = []
  if (checkpoint) await host.apply({ source, transactions: [], checkpoint })
  const counters = replicationCounters()
  const applier = new Applier({ host, node: 'node2', relayEnabled: false, counters, relay() {} })
  const gap = (...all: unknown[]) => void reported.push(all)
  const cursor = new Cursor({ source, mesh: stream.mesh, applier, requestTimeout: 1_000, gap })
  const stored = async () => (await host.loadCheckpoint(source))!
  return { stream, host, reported, cursor, stored }
}

/** The stream as its description tells of it. */
const become = (stream: RemoteStream, epochs: EpochRange[], first: number, last: number) =>
  Object.assign(stream, { epochs, first, last })

describe('a place that nobody agreed on', () => {
  it('is the end of the stream, and stored before anything is read', async () => {
    const { stream, reported, cursor, stored } = await cursorAt()
    become(stream, [{ epoch: 'e1', from: 1 }], 1, 7)
    await cursor.resume(signal)
    assert.deepEqual([await stored(), reported], [{ epoch: 'e1', sequence: 7 }, []])
  })
})

describe('what the stream no longer has', () => {
  it('is told when it is stored that it was, and once', async () => {
    const { stream, host, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    become(stream, [{ epoch: 'e1', from: 1 }], 6, 9)
    host.refusal = new Error('not now')
    await assert.rejects(cursor.resume(signal), /not now/)
    assert.deepEqual([reported, (await stored()).sequence], [[], 3])
    await cursor.resume(signal)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[4, 5, 'expired']])
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 5, gaps: { count: 1, lost: 2 } })
  })

  it('is nothing when it was read', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 5 })
    become(stream, [{ epoch: 'e1', from: 1 }], 6, 9)
    await cursor.resume(signal)
    assert.deepEqual([reported, (await stored()).sequence], [[], 5])
  })

  it('leaves a start that was asked for, and a replay under way', async () => {
    const start = { startTime: '2026-01-01T00:00:00Z', replayUntil: 8 }
    const { stream, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3, ...start })
    become(stream, [{ epoch: 'e1', from: 1 }], 6, 9)
    await cursor.resume(signal)
    assert.deepEqual(await stored(), { epoch: 'e1', sequence: 5, ...start, gaps: { count: 1, lost: 2 } })
    become(stream, [{ epoch: 'e2', from: 1 }], 1, 9)
    await cursor.resume(signal)
    const { startTime, replayUntil } = await stored()
    assert.deepEqual([startTime, replayUntil], [start.startTime, undefined], 'numbers of another epoch say nothing')
  })
})

describe('another epoch', () => {
  it('that goes on behind older messages: what is left of the one before is read first', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    const label: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 8 },
      { epoch: 'e2', from: 6 },
    ]
    become(stream, label, 1, 7)
    await cursor.resume(signal)
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e1', sequence: 3 }])
    await cursor.advance([], { epoch: 'e1', sequence: 5 })
    await cursor.resume(signal)
    assert.deepEqual(reported, [[6, 8, 'rewound']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e2', 5])
  })

  it('of a stream made anew: all that was acknowledged and not read is lost', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    const label: EpochRange[] = [
      { epoch: 'e1', from: 0, last: 5 },
      { epoch: 'e2', from: 1 },
    ]
    become(stream, label, 1, 9)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[4, 5, 'recreated']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e2', 0])
  })

  it('of a stream made anew twice: what nobody saw of the one between is not looked for in it', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    const label: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 3 },
      { epoch: 'e2', from: 0, last: 4 },
      { epoch: 'e3', from: 1 },
    ]
    become(stream, label, 1, 2)
    await cursor.resume(signal)
    assert.deepEqual(reported, [])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e3', 0])
  })

  it('that is not told yet, of a stream just made anew, is waited for', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    become(stream, [{ epoch: 'e1', from: 0, last: 5 }], 1, 0)
    await assert.rejects(cursor.resume(signal))
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e1', sequence: 3 }])
    become(stream, [...stream.epochs, { epoch: 'e2', from: 1 }], 1, 0)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[4, 5, 'recreated']])
  })

  it('that is not told yet, when ours is not any more, is waited for', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e0', sequence: 0 })
    become(stream, [{ epoch: 'e1', from: 0, last: 5 }], 1, 0)
    await assert.rejects(cursor.resume(signal), { code: 'rejected' })
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e0', sequence: 0 }])
  })

  it('when nobody tells of ours any more: the next one, at least, is lost', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    become(stream, [{ epoch: 'e9', from: 1 }], 1, 2)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[4, 4, 'recreated']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e9', 0])
  })

  it('met by a message: as far as that one, though the description tells of more', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    stream.last = 3
    await cursor.resume(signal)
    const label: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 3 },
      { epoch: 'e2', from: 4, last: 6 },
      { epoch: 'e3', from: 6 },
    ]
    become(stream, label, 1, 7)
    await cursor.enterEpoch('e2', 4, signal)
    assert.deepEqual([reported, await stored()], [[], { epoch: 'e2', sequence: 3 }])
  })

  it('met by a message that the description does not tell of: the next one, at least, is lost', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 3 })
    stream.last = 3
    await cursor.resume(signal)
    become(stream, [{ epoch: 'e1', from: 1 }], 1, 7)
    await cursor.enterEpoch('e5', 6, signal)
    assert.deepEqual(reported, [[4, 4, 'recreated']])
    const { epoch, sequence } = await stored()
    assert.deepEqual([epoch, sequence], ['e5', 5])
  })
})

describe('a stream that ends before our place', () => {
  it('is waited for: its writer is to begin a new epoch', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 8 })
    stream.last = 8
    await cursor.resume(signal)
    // An announcement that was long on its way is of the time before.
    cursor.onPeerPosition('e1', 5)
    become(stream, [{ epoch: 'e1', from: 1 }], 1, 5)
    for (let times = 0; times < 2; times++) await assert.rejects(cursor.resume(signal), { code: 'not_found' })
    cursor.onPeerPosition('e2', 5)
    cursor.onPeerPosition('e1', 8)
    await assert.rejects(cursor.resume(signal), { code: 'not_found' })
    assert.deepEqual([reported, (await stored()).sequence], [[], 8])
    const label: EpochRange[] = [
      { epoch: 'e1', from: 1, last: 9 },
      { epoch: 'e2', from: 6 },
    ]
    become(stream, label, 1, 6)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[9, 9, 'rewound']])
  })

  it('went back in time together with its database when its writer says the same: it is read again', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: 'e1', sequence: 8 })
    become(stream, [{ epoch: 'e1', from: 1 }], 2, 5)
    await assert.rejects(cursor.resume(signal), { code: 'not_found' })
    cursor.onPeerPosition('e1', 5)
    await cursor.resume(signal)
    assert.deepEqual(reported, [[2, 8, 'rewound']])
    const { sequence, replayUntil } = await stored()
    // What is there now is applied though its numbers were seen before.
    assert.deepEqual([sequence, replayUntil], [1, 8])
    await cursor.resume(signal)
    assert.equal(reported.length, 1)
  })

  it('and has no epochs has nobody to say more: it is read again', async () => {
    const { stream, reported, cursor, stored } = await cursorAt({ epoch: '', sequence: 8 })
    become(stream, [], 1, 5)
    await cursor.resume(signal)
    assert.deepEqual([reported, (await stored()).sequence], [[[1, 8, 'rewound']], 0])
  })
})
