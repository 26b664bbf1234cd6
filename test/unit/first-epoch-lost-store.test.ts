// A subscription that began before the stream of its source existed, and returns when that has lost its messages: they are a gap.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { EpochRange } from '../../lib/replication/stream-metadata.ts'
import { findLateStream } from '../support/late-stream.ts'
import { source } from '../support/remote-stream.ts'

/** The gaps, and the epoch of the checkpoint then. */
async function gapsWith(epochs: EpochRange[], state: { first: number; last: number }) {
  const { applier, gaps } = await findLateStream({ ...state, epochs })
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
