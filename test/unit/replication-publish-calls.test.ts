// Waiting calls of publish: their number is bounded, and each ends with its transaction, at its deadline, or with the publisher.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { ClusterError, clusterError } from '../../lib/errors.ts'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { type CallHolder, type PublishCall, PublishCalls } from '../../lib/replication/publish/publish-calls.ts'
import { TestClock } from '../../lib/testing.ts'

function start(test: TestContext, maxWaiting = 10) {
  const clock = new TestClock({ stopped: true })
  const holders: CallHolder[] = []
  const counters = { timeouts: 0 }
  const calls = new PublishCalls({
    mesh: { timers: clock, state: 'connected' } as unknown as Mesh,
    timeout: 1_000,
    maxWaiting,
    holders: () => holders,
    onTimeout: () => {
      counters.timeouts++
    },
  })
  test.after(() => calls.stopExpiry())
  /** A call in its first pass; handles its rejection. */
  const create = (pass = 1): PublishCall => {
    const call = calls.create(pass)
    if (call instanceof ClusterError) throw call
    call.promise.catch(() => {})
    return call
  }
  const addUnread = (id: string, pass?: number) => {
    const call = create(pass)
    calls.addUnread(id, call)
    return call
  }
  return { clock, holders, counters, calls, create, addUnread }
}

describe('the calls of publish', () => {
  it('are bounded in number', (test) => {
    const { calls, counters, create } = start(test, 2)
    const [first] = [create(), create()]
    const rejected = calls.create(1)
    assert.ok(rejected instanceof ClusterError && rejected.code === 'publish_timeout')
    assert.deepEqual([calls.waiting, counters.timeouts], [2, 1])
    calls.finish({ call: first })
    assert.ok(!(calls.create(1) instanceof ClusterError), 'a finished call makes space')
  })

  it('end with their transaction', async (test) => {
    const { calls, create } = start(test)
    const [stored, failed] = [create(), create()]
    const holder: CallHolder = { call: stored }
    calls.finish(holder)
    calls.finish(holder)
    calls.finish({ call: failed }, clusterError('transaction_too_large', '9 bytes', 8))
    await stored.promise
    await assert.rejects(failed.promise, { code: 'transaction_too_large' })
    assert.deepEqual([calls.waiting, holder.call], [0, undefined])
  })

  it('end at their deadline, whether their transaction was read or not', async (test) => {
    const { clock, holders, counters, calls, create, addUnread } = start(test)
    const unread = addUnread('unread')
    await clock.advance(500)
    holders.push({ call: create() })
    const [{ call: read }] = holders as [CallHolder]
    await clock.advance(500)
    await assert.rejects(unread.promise, { code: 'publish_timeout', mayStillBeSent: true })
    assert.deepEqual([calls.findUnread('unread'), calls.waiting], [undefined, 1])
    await clock.advance(400)
    assert.equal(calls.waiting, 1)
    await clock.advance(100)
    await assert.rejects(read!.promise, { code: 'publish_timeout' })
    assert.deepEqual([counters.timeouts, calls.waiting], [2, 0])
  })

  it('for transactions that a complete pass did not contain get its outcome, unless the pass began before the call', async (test) => {
    const { calls, addUnread } = start(test)
    const [stored, missing] = [addUnread('stored', 1), addUnread('missing', 1)]
    const later = addUnread('later', 2)
    calls.finishUnread(1, (id) => (id === 'missing' ? clusterError('not_in_outbox', id) : undefined))
    await stored.promise
    await assert.rejects(missing.promise, { code: 'not_in_outbox' })
    assert.deepEqual([calls.waiting, calls.takeUnread('later')], [1, later])
  })

  it('are rejected when the publisher closes', async (test) => {
    const { holders, calls, create, addUnread } = start(test)
    const unread = addUnread('unread')
    const read = create()
    holders.push({ call: read })
    calls.close()
    for (const { promise } of [unread, read]) await assert.rejects(promise, { code: 'closed' })
    assert.equal(calls.waiting, 0)
  })
})
