// Waiting for positions in streams with a past: stores and databases that were restored, and tables that were purged and are quiet.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { type ClusterNode, eventually, MemoryHost, TestClock } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { has, outcome, soon } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }
const subscribe = { node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] }

/** node2 subscribes to node1; the others do not yet. */
async function nodesOf(test: TestContext, count: number, options: object = {}) {
  const clock = new TestClock()
  const hosts = Array.from({ length: count }, () => new MemoryHost({ tables: [dog] }))
  const opened = await openCluster(test, hosts, options, { clock })
  const [one, two, three] = opened.nodes as [ClusterNode, ClusterNode, ClusterNode]
  await two.cluster.addNode(subscribe)
  await opened.cluster.converged()
  return { ...opened, clock, one, two, three }
}

/** The transaction is lost: that is the answer until the rows are copied, if they are. */
async function answers(clock: TestClock, call: () => Promise<void>, isCopied: boolean): Promise<void> {
  const results: string[] = []
  while (results.at(-1) !== (isCopied ? 'resolved' : 'not_applied') && results.length < 1_000)
    results.push(await soon(clock, outcome(call())))
  assert.ok(
    results.slice(0, -1).every((each) => each === 'not_applied'),
    [...new Set(results)].join(),
  )
}

describe('replicated', { concurrency: true, timeout: 180_000 }, () => {
  it('goes on in the next epoch when the store is lost, and says what a subscriber without repair has not', async (test) => {
    for (const repair of [true, false]) {
      const { network, clock, one, two } = await nodesOf(test, 2, { repair })
      await one.cluster.replicated(commit(one, insertInto('dog', { id: 'first' })))
      network.cut('node1', 'node2')
      const lost = commit(one, insertInto('dog', { id: 'lost' }))
      const waiting = one.cluster.replicated(lost, { timeout: 60_000 })
      waiting.catch(() => {})
      await eventually('it is confirmed', () => one.host.outbox.length === 0)
      network.wipeDisk('node1')
      network.crash('node1')
      network.restart('node1')
      network.heal()
      const first = await soon(clock, outcome(waiting))
      assert.ok(first === 'not_applied' || (repair && first === 'resolved'), first)
      // It is in no stream now: what counts is the end of the table.
      if (repair) await eventually('the copy brings it', () => has(two, 'lost'))
      assert.equal(has(two, 'lost'), repair)
      await soon(clock, one.cluster.replicated(commit(one, insertInto('dog', { id: 'next' }))))
      assert.ok(has(two, 'next'))
    }
  })
})

describe('a token of a table that was purged and is quiet', { concurrency: true, timeout: 180_000 }, () => {
  it('is answered by a subscription that had not read it: when the rows are copied, or that it lacks it', async (test) => {
    for (const repair of [true, false]) {
      const { network, clock, one, two } = await nodesOf(test, 2, { repair })
      await one.cluster.replicated(commit(one, insertInto('dog', { id: 'first' })))
      network.cut('node1', 'node2')
      const token = await one.cluster.token(commit(one, insertInto('dog', { id: 'purged' })))
      await eventually('it is confirmed', () => one.host.outbox.length === 0)
      await one.cluster.purgeStream(dog)
      network.heal()
      await answers(clock, () => two.cluster.caughtUp(token, { timeout: 60_000 }), repair)
      assert.equal(has(two, 'purged'), repair)
    }
  })

  it('is answered by a subscription that began afterwards', async (test) => {
    const { clock, one, three } = await nodesOf(test, 3)
    const token = await one.cluster.token(commit(one, insertInto('dog', { id: 'purged' })))
    await eventually('it is confirmed', () => one.host.outbox.length === 0)
    await one.cluster.purgeStream(dog)
    await three.cluster.addNode(subscribe)
    await soon(clock, three.cluster.caughtUp(token, { timeout: 60_000 }))
    assert.ok(has(three, 'purged'))
    await three.stop()
    await three.start()
    await soon(clock, three.cluster.caughtUp(token, { timeout: 60_000 }))
  })
})
