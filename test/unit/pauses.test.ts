// A paused subscription applies nothing, also after a restart, and continues where it stopped.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type ClusterNode, eventually, MemoryHost, TestClock } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { CopyPair } from '../support/copy-pair.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { hostWithRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const subscribe = { node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] }

async function pair(test: Parameters<typeof openCluster>[0], rows = 0) {
  const clock = new TestClock()
  const hosts = [
    rows > 0 ? hostWithRows('node1', rows) : new MemoryHost({ tables: [dog] }),
    new MemoryHost({ tables: [dog] }),
  ]
  const opened = await openCluster(test, hosts, {}, { clock })
  const [one, two] = opened.nodes as [ClusterNode, ClusterNode]
  if (rows === 0) {
    await two.cluster.addNode(subscribe)
    await opened.cluster.converged()
  }
  return { ...opened, clock, one, two }
}

const stateOf = ({ cluster }: ClusterNode) => cluster.subscriptions()[0]?.state
const idsOf = ({ host }: ClusterNode) => host.records('dev', 'dog').map(({ id }) => id)

describe('a paused subscription', { concurrency: true, timeout: 60_000 }, () => {
  it('applies nothing until it is resumed, and shows how far it is behind', async (test) => {
    const { one, two, clock, cluster } = await pair(test)
    const states: string[] = []
    two.cluster.on('subscription:state', ({ state }) => void states.push(state))
    await two.cluster.pause(source)
    await two.cluster.pause(source)
    for (let id = 0; id < 3; id++) await one.host.insert('dev', 'dog', { id })
    await clock.advance(5_000)
    assert.deepEqual(idsOf(two), [])
    const { state, lag } = two.cluster.subscriptions()[0]!
    assert.deepEqual([state, lag], ['paused', 3])
    const { connections } = await two.cluster.status()
    const { state: shown, reason } = connections[0]!.subscriptions[0]!
    assert.deepEqual([shown, reason], ['paused', 'paused by an operator of this node'])
    await eventually('the source knows it', () => one.cluster.replicas(dog)[0]!.paused)
    assert.equal(two.cluster.metrics()!.apply.subscriptions.paused, 1)
    await two.cluster.resume(source)
    await cluster.converged()
    assert.deepEqual(idsOf(two), [0, 1, 2])
    assert.deepEqual(states.slice(0, 2), ['pending', 'paused'])
    assert.ok(!states.includes('ended'))
    await clock.advance(1_000)
    assert.equal(one.cluster.replicas(dog)[0]!.paused, undefined)
  })

  it('stays paused after a restart of the node, of the source, and of the servers', async (test) => {
    const { network, one, two, clock, cluster } = await pair(test)
    await two.cluster.pauseReplication({ node_name: 'node1', ...dog })
    await two.stop()
    await two.start()
    await one.stop()
    await one.start()
    network.crash('node2')
    network.restart('node2')
    await one.host.insert('dev', 'dog', { id: 1 })
    await clock.advance(10_000)
    assert.deepEqual([stateOf(two), idsOf(two)], ['paused', []])
    const { message } = await two.cluster.resumeReplication({ node_name: 'node1', ...dog })
    assert.equal(message, "Successfully resumed table 'dev.dog' of node 'node1'")
    await cluster.converged()
    assert.deepEqual(idsOf(two), [1])
  })

  it('stops a copy, which continues afterwards', async (test) => {
    const { two, clock, cluster } = await pair(test, 20_000)
    await two.cluster.addNode(subscribe)
    await eventually('the copy has begun', () => (two.cluster.subscriptions()[0]!.copy?.rows ?? 0) > 0)
    await two.cluster.pause(source)
    const { length } = idsOf(two)
    assert.ok(length > 0 && length < 20_000, `${length} rows`)
    await clock.advance(5_000)
    assert.deepEqual([stateOf(two), idsOf(two).length], ['paused', length])
    await two.cluster.resume(source)
    await eventually('the copy has ended', () => idsOf(two).length === 20_000)
    await cluster.converged()
  })

  it('can be one that the database refuses, and ends with the subscription', async (test) => {
    const { one, two, clock } = await pair(test)
    const { apply } = two.host
    two.host.apply = async (batch) => {
      if (batch.transactions.length > 0) throw new Error('refused')
      return apply.call(two.host, batch)
    }
    await one.host.insert('dev', 'dog', { id: 1 })
    await eventually('it is stalled', () => stateOf(two) === 'stalled')
    await two.cluster.pause(source)
    two.host.apply = apply
    await clock.advance(5_000)
    assert.deepEqual([stateOf(two), idsOf(two)], ['paused', []])
    await two.cluster.removeNode({ node_name: 'node1' })
    await two.cluster.addNode(subscribe)
    await eventually('the new one runs', () => stateOf(two) === 'live')
    await assert.rejects(two.cluster.pause({ node: 'node1', database: 'dev', table: 'cat' }), {
      code: 'subscription_not_found',
    })
  })

  it('lets replicated wait, and resolves it after the end of the pause', async (test) => {
    const { one, two } = await pair(test)
    await two.cluster.pause(source)
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    await assert.rejects(one.cluster.replicated(transaction, { timeout: 100 }), { code: 'replication_timeout' })
    const token = await one.cluster.token(transaction)
    await assert.rejects(two.cluster.caughtUp(token, { timeout: 100 }), { code: 'replication_timeout' })
    const waiting = [one.cluster.replicated(transaction), two.cluster.caughtUp(token)]
    await two.cluster.resume(source)
    await Promise.all(waiting)
    assert.deepEqual(idsOf(two), [1])
  })
  it('lets a second call wait until it is in effect', async (test) => {
    const { one, two } = await pair(test)
    const { apply } = two.host
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    let isApplying = false
    two.host.apply = async (batch) => {
      isApplying = true
      await released
      return apply.call(two.host, batch)
    }
    await one.host.insert('dev', 'dog', { id: 1 })
    await eventually('it is being applied', () => isApplying)
    const states: unknown[] = []
    const pauses = [1, 2].map(() => two.cluster.pause(source).then(() => void states.push(stateOf(two))))
    setTimeout(release, 100)
    await Promise.all(pauses)
    assert.deepEqual(states, ['paused', 'paused'])
    await two.cluster.resume(source)
    await eventually('it runs', () => stateOf(two) === 'live')
    assert.deepEqual(idsOf(two), [1])
  })
})

it('a copy that a restored database needs begins after the pause', { timeout: 60_000 }, async (test) => {
  let isPaused = false
  const restored = await CopyPair.open(test, { isPaused: () => isPaused })
  await restored.subscribe()
  await restored.copies(1)
  await restored.live()
  restored.copied.length = 0
  const { replicator, source: origin } = restored
  origin.commitOnly(insertInto('dog', { id: 'lost' }))
  isPaused = true
  await replicator.onPausedChanged(source)
  replicator.onDatabaseRestored(dog)
  await replicator.onPausedChanged(source)
  assert.deepEqual([replicator.statusOf(source)!.state, restored.copied], ['paused', []])
  isPaused = false
  await replicator.onPausedChanged(source)
  await restored.copies(1)
  assert.deepEqual(
    restored.copied.map(({ reason }) => reason),
    ['database_restored'],
  )
})
