// A subscription that began before the stream of its source existed, and returns when that has lost its messages: they are a gap.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import type { EpochRange } from '../../lib/replication/stream-metadata.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { Cursor, type Gap } from '../../lib/replication/subscribe/cursor.ts'
import { Begun } from '../support/begun.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { RemoteStream, source } from '../support/remote-stream.ts'

const { signal } = new AbortController()

/** The gaps, and the epoch of the checkpoint then. */
async function gapsWith(epochs: EpochRange[], state: { first: number; last: number }) {
  const stream = new RemoteStream()
  const counters = replicationCounters()
  const host = new MemoryHost([['dev', 'dog']])
  const applier = new Applier({ host, node: 'node2', relayEnabled: false, counters, relay() {}, validate() {} })
  const gaps: unknown[][] = []
  let exists = false
  const cursor = new Cursor({
    source,
    mesh: { ...stream.mesh, streamState: async () => (exists ? stream.state : undefined) },
    applier,
    begun: new Begun(),
    requestTimeout: 1_000,
    gap: ({ from, to, reason }: Gap) => void gaps.push([from, to, reason]),
  })
  await assert.rejects(cursor.resume(signal), { code: 'not_found' })
  exists = true
  Object.assign(stream, state, { epochs })
  await cursor.resume(signal)
  return { gaps, epoch: applier.checkpointOf(source)!.epoch }
}

it('whose description was kept', async () => {
  const epochs = [
    { epoch: 'e1', from: 1, last: 3, lastIndex: 5 },
    { epoch: 'e2', from: 1 },
  ]
  const found = await gapsWith(epochs, { first: 1, last: 0 })
  assert.deepEqual(found, { gaps: [[1, 5, 'recreated']], epoch: 'e2' })
})

it('whose description was lost too', async () => {
  const epochs = [
    { epoch: 'e1', from: 0, last: 3, lastIndex: 5 },
    { epoch: 'e2', from: 1 },
  ]
  const found = await gapsWith(epochs, { first: 1, last: 0 })
  assert.deepEqual(found, { gaps: [[1, 5, 'recreated']], epoch: 'e2' })
})

it('which have ended before, and have no messages', async () => {
  const epochs = [
    { epoch: 'e1', from: 1, last: 3, lastIndex: 5 },
    { epoch: 'e2', from: 4 },
  ]
  const found = await gapsWith(epochs, { first: 4, last: 3 })
  assert.deepEqual(found, { gaps: [[1, 5, 'expired']], epoch: 'e2' })
})
