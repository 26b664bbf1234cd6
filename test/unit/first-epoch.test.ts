// A subscription that began before the stream of its source existed, and finds it emptied by its limits: it enters the epoch, reports what
// it missed as a gap of that epoch, and answers tokens.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { beginCopy } from '../../lib/replication/copy/copy-position.ts'
import { positionOfCheckpoint } from '../../lib/replication/positions/applied-state.ts'
import { TokenWaits } from '../../lib/replication/positions/token-waits.ts'
import { TestClock } from '../../lib/testing.ts'
import { findLateStream } from '../support/late-stream.ts'
import { source } from '../support/remote-stream.ts'
import { outcome, soon } from '../support/waits.ts'

const { node, database, table } = source

/** The stream had three messages, and has none of them. */
async function emptied({ repair = true } = {}) {
  const { stream, applier, gaps } = await findLateStream(
    { first: 4, last: 3 },
    {
      initial: async () => undefined,
      requested: () => undefined,
      afterLoss: (_, current, reason) => (repair ? beginCopy(current, reason) : undefined),
    },
  )
  const clock = new TestClock()
  const tokens = new TokenWaits({
    node: 'node2',
    mesh: { timers: clock, streamState: async () => stream.state },
    requestTimeout: 1_000,
    publisher: { endOf: () => undefined, ensure: () => Promise.reject(new Error('unexpected')) },
    index: { sourcesOf: () => [source] },
    checkpoint: () => applier.checkpointOf(source),
    position: () => positionOfCheckpoint(node, applier.checkpointOf(source)!, false),
    statusOf: () => Promise.reject(new Error('unexpected')),
  })
  const token = (epoch: string) => ({ node, timestamp: '', parts: [{ database, table, epoch, index: 7 }] })
  const caughtUp = (epoch = 'e1') => soon(clock, outcome(tokens.wait(token(epoch), { timeout: 10_000 })))
  return { applier, gaps, caughtUp }
}

describe('a subscription that is older than the stream, which has been emptied since', () => {
  it('reports a gap in the epoch of the stream', async () => {
    const { applier, gaps } = await emptied({ repair: false })
    const { epoch, sequence, missing } = applier.checkpointOf(source)!
    assert.deepEqual([epoch, sequence, Object.keys(missing!)], ['e1', 3, ['e1']])
    assert.deepEqual(gaps, [[1, undefined, 'expired']])
  })

  it('answers a token at once without repair: not_applied', async () => {
    const { caughtUp } = await emptied({ repair: false })
    assert.equal(await caughtUp(), 'not_applied')
    assert.equal(await caughtUp('of another stream'), 'token_expired')
  })

  it('answers a token when the rows are copied', async () => {
    const { applier, caughtUp } = await emptied()
    const from = applier.checkpointOf(source)!.copy!
    assert.ok(await applier.copy(source, [], { from, to: undefined, completes: true }))
    assert.equal(await caughtUp(), 'resolved')
  })
})
