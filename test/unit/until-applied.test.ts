// A copy waits for transactions that are on their way, but not again and again for a subscription that is late.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { PeerHashes } from '../../lib/replication/copy/peer-hashes.ts'
import { waitUntilApplied } from '../../lib/replication/copy/until-applied.ts'
import type { Applier } from '../../lib/replication/subscribe/applier.ts'

const source = { node: 'node1', database: 'dev', table: 'dog' }

/** The source has published 5 transactions. `applied`: how many of them are applied at that time, in ms. */
function waiting(applied: (ms: number) => number) {
  let now = 0
  const timers = {
    now: () => now,
    every: () => () => {},
    elapsed: () => now,
    after: (ms: number, work: () => void) => {
      now += ms
      queueMicrotask(work)
      return () => {}
    },
  }
  const hashes = { status: async () => ({ epoch: 'a', sequence: 5 }) } as unknown as PeerHashes
  const applier = { checkpointOf: () => ({ epoch: 'a', sequence: applied(now) }) } as unknown as Applier
  const wait = waitUntilApplied(source, { hashes, applier, timers })
  const { signal } = new AbortController()
  return async () => {
    const begin = now
    await wait(signal)
    return now - begin
  }
}

describe('waiting until all that is published is applied', () => {
  it('ends when it is', async () => {
    const wait = waiting((ms) => (ms < 1_000 ? 4 : 5))
    const ms = await wait()
    assert.ok(ms >= 1_000 && ms < 2_000, `${ms} ms`)
    assert.equal(await wait(), 0)
  })

  it('ends after a minute, and takes no time later', async () => {
    const wait = waiting(() => 4)
    const ms = await wait()
    assert.ok(ms >= 60_000 && ms < 61_000, `${ms} ms`)
    assert.equal(await wait(), 0)
  })
})
