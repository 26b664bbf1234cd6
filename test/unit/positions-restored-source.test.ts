// A position counts only when it was compared with the stream since the source's servers started: database and stream of the source may
// have been restored together, and what was applied after the copy was made is not what is there now.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { type ClusterNode, eventually, MemoryHost, TestClock } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { copyDatabase } from '../support/memory-host-copy.ts'
import { has, outcome, soon } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }
const subscribe = { node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] }

/** node2 subscribes to node1. */
async function pair(test: TestContext, clustering: Record<string, unknown> = {}) {
  const clock = new TestClock()
  const hosts = [1, 2].map(() => new MemoryHost({ tables: [dog] }))
  const opened = await openCluster(test, hosts, {}, { clock, clustering })
  const [one, two] = opened.nodes as [ClusterNode, ClusterNode]
  await two.cluster.addNode(subscribe)
  await opened.cluster.converged()
  return { ...opened, clock, one, two }
}

/** The subscriptions of this host do not read before the returned function is called: what they report is what they had applied. */
function holdReading(host: MemoryHost): () => void {
  const { loadCheckpoint } = host
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  host.loadCheckpoint = async (...args) => {
    await held
    return loadCheckpoint.apply(host, args)
  }
  return () => {
    host.loadCheckpoint = loadCheckpoint
    release()
  }
}

/** node2 has applied three transactions that node1, and its stream, then do not have: both are an older copy. */
async function restoredSource(test: TestContext, clustering?: Record<string, unknown>) {
  const opened = await pair(test, clustering)
  const { network, clock, one, two } = opened
  for (let id = 0; id < 3; id++) await one.host.insert('dev', 'dog', { id })
  await eventually('the outbox is empty', () => one.host.outbox.length === 0)
  const [restoreStreams, restoreDatabase] = [network.snapshotDisk('node1'), copyDatabase(one.host)]
  for (const id of ['future 1', 'future 2', 'future 3'])
    await one.cluster.replicated(commit(one, insertInto('dog', { id })))
  const restore = async () => {
    await one.stop()
    restoreStreams()
    restoreDatabase()
    await one.start()
  }
  /** node2 has reported its position to the new process. */
  const reported = () =>
    eventually('node2 has reported', async () => {
      await clock.advance(100)
      return one.cluster.replicas(dog)[0]?.reportedAt
    })
  const resume = () => two.cluster.resume({ node: 'node1', ...dog })
  return { ...opened, restore, reported, resume }
}

describe('replicated', { concurrency: true, timeout: 180_000 }, () => {
  for (const when of ['before the next transaction', 'after it', 'when the stream is as long as it was'])
    it(`does not count a position of the lost future that is reported ${when}`, async (test) => {
      const { network, clock, one, two, restore, reported } = await restoredSource(test)
      network.cut('node1', 'node2')
      const release = holdReading(two.host)
      await restore()
      const write = () => commit(one, insertInto('dog', { id: 'new' }))
      let transaction = when.startsWith('before') ? undefined : write()
      if (when.startsWith('when')) {
        for (const id of [10, 11]) await one.host.insert('dev', 'dog', { id })
        await eventually('the outbox is empty', () => one.host.outbox.length === 0)
      }
      network.heal()
      await reported()
      transaction ??= write()
      const early = outcome(one.cluster.replicated(transaction, { timeout: 3_000 }))
      assert.equal(await soon(clock, early), 'replication_timeout')
      release()
      await soon(clock, one.cluster.replicated(transaction, { timeout: 60_000 }))
      assert.ok(has(two, 'new'))
    })

  it('does not count the position of a paused subscription, although the stream is as long as it was, until it is resumed', async (test) => {
    const { clock, one, two, restore, reported, resume } = await restoredSource(test)
    await two.cluster.pause({ node: 'node1', ...dog })
    await restore()
    await reported()
    const transaction = commit(one, insertInto('dog', { id: 'new' }))
    const fails = async () => {
      const waiting = outcome(one.cluster.replicated(transaction, { timeout: 3_000 }))
      assert.equal(await soon(clock, waiting), 'replication_timeout')
    }
    await fails()
    for (const id of [10, 11]) await one.host.insert('dev', 'dog', { id })
    await fails()
    await resume()
    await soon(clock, one.cluster.replicated(transaction, { timeout: 60_000 }))
    assert.ok(has(two, 'new'))
  })

  it('counts a paused subscription that has applied it in this run of the servers', async (test) => {
    const { clock, one, two } = await pair(test)
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    await soon(clock, one.cluster.replicated(transaction))
    await two.cluster.pause({ node: 'node1', ...dog })
    await eventually('the source knows it', async () => {
      await clock.advance(100)
      return one.cluster.replicas(dog)[0]!.paused
    })
    await soon(clock, one.cluster.replicated(transaction))
  })

  it('counts the positions of a quiet table again after each restart of servers or processes', async (test) => {
    const { network, clock, one, two } = await pair(test)
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    await soon(clock, one.cluster.replicated(transaction))
    network.crash('node1')
    network.restart('node1')
    await soon(clock, one.cluster.replicated(transaction))
    await one.stop()
    await one.start()
    await soon(clock, one.cluster.replicated(transaction))
    await two.stop()
    await two.start()
    await soon(clock, one.cluster.replicated(transaction))
    await one.cluster.purgeStream(dog)
    await one.stop()
    await one.start()
    await soon(clock, one.cluster.replicated(transaction))
  })
})

describe('caughtUp', { concurrency: true, timeout: 180_000 }, () => {
  it('does not count a position of the lost future', async (test) => {
    const { clock, one, two, restore, reported, resume } = await restoredSource(test)
    await two.cluster.pause({ node: 'node1', ...dog })
    await restore()
    await reported()
    const token = await soon(clock, one.cluster.token(commit(one, insertInto('dog', { id: 'new' }))))
    const waiting = outcome(two.cluster.caughtUp(token, { timeout: 3_000 }))
    assert.equal(await soon(clock, waiting), 'replication_timeout')
    await resume()
    await soon(clock, two.cluster.caughtUp(token, { timeout: 60_000 }))
    assert.ok(has(two, 'new'))
  })

  it('resolves while the source is down, also after a restart', async (test) => {
    const { clock, one, two } = await pair(test)
    const token = await one.cluster.token(commit(one, insertInto('dog', { id: 1 })))
    await soon(clock, two.cluster.caughtUp(token))
    await one.stop()
    await soon(clock, two.cluster.caughtUp(token))
    await two.stop()
    await two.start()
    await soon(clock, two.cluster.caughtUp(token))
  })
})

it('a stream is not trimmed by a position of the lost future', { timeout: 180_000 }, async (test) => {
  const clustering = { leafServer: { streams: { trim: 'applied', trimAfter: 5 } } }
  const { network, clock, one, two, restore, reported, resume } = await restoredSource(test, clustering)
  const observer = network.mesh('observer')
  await observer.open(
    'observer',
    { hub: [], leaf: [] },
    { state() {}, linked() {}, rejected() {}, certificatesChanged() {} },
  )
  test.after(() => observer.close())
  const first = async () => (await observer.streamState({ node: 'node1', ...dog }, { timeout: 1_000 }))!.firstSequence
  await two.cluster.pause({ node: 'node1', ...dog })
  await restore()
  await reported()
  for (let id = 10; id < 16; id++) await one.host.insert('dev', 'dog', { id })
  await eventually('the outbox is empty', () => one.host.outbox.length === 0)
  await clock.advance(30_000)
  assert.equal(await first(), 1)
  await resume()
  await eventually('it is trimmed', async () => {
    await clock.advance(1_000)
    return (await first()) === 9
  })
  assert.ok(has(two, 10) && has(two, 15))
})
