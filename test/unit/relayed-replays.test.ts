// A relaying node puts each transaction into its outbox once, also when it applies it again in a replay: the outbox is read on by ids, so a
// transaction that is there a second time would hide the ones before it.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { RemoteTable, RemoteTransaction, Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { type ClusterNode, eventually, MemoryHost as KitHost } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { has } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }
const from = (node: string): RemoteTable => ({ node, ...dog })

it('a replay applies everything again, and relays only what is new', async () => {
  const host = new MemoryHost([['dev', 'dog']])
  const relayed: Transaction[] = []
  const counters = replicationCounters()
  const relay = (all: readonly Transaction[]) => void relayed.push(...all)
  const applier = new Applier({ host, node: 'local', relayEnabled: true, counters, relay, validate() {} })
  const transaction = (number: number, relayedBy: string[] = [], sequence = number): RemoteTransaction => ({
    id: `t${number}`,
    timestamp: makeTimestamp(number, 0, 'node1'),
    writes: [{ operation: 'insert', ...dog, records: [{ id: number }] }],
    origin: { node: 'node1', epoch: 'e1', index: number, relayedBy },
    sequence,
    index: sequence,
  })
  const at = (sequence: number, epoch = 'e1') => ({ epoch, sequence, index: sequence })
  await applier.apply(from('node1'), [transaction(1), transaction(2)], at(2))
  // By another path.
  await applier.apply(from('node2'), [transaction(4, ['node2'], 1)], at(1, 'f1'))
  await applier.move(from('node1'), { ...at(0), replayUntil: 4 })
  const all = [1, 2, 3, 4].map((number) => transaction(number))
  assert.equal(await applier.apply(from('node1'), all, { ...at(4), replayUntil: 4 }), 4)
  assert.deepEqual(host.applied.slice(-4), ['t1', 't2', 't3', 't4'])
  assert.deepEqual(
    relayed.map(({ writes }) => (writes[0] as { records?: { id?: unknown }[] }).records?.[0]?.id),
    [1, 2, 4, 3],
  )
})

it('a transaction of an origin without epochs gets another id each time that it arrives', async () => {
  const relayed: Transaction[] = []
  const counters = replicationCounters()
  const relay = (all: readonly Transaction[]) => void relayed.push(...all)
  const host = new MemoryHost([['dev', 'dog']])
  const applier = new Applier({ host, node: 'local', relayEnabled: true, counters, relay, validate() {} })
  for (const [node, relayedBy] of [
    ['harper', []],
    ['node2', ['node2']],
  ] as const) {
    const transaction: RemoteTransaction = {
      id: 'same',
      timestamp: makeTimestamp(1, 0, 'harper'),
      writes: [{ operation: 'insert', ...dog, records: [{ id: 1 }] }],
      origin: { node: 'harper', relayedBy: [...relayedBy] },
      sequence: 1,
      index: 1,
    }
    await applier.apply(from(node), [transaction], { epoch: node === 'harper' ? '' : 'f1', sequence: 1, index: 1 })
  }
  assert.equal(new Set(relayed.map(({ id }) => id)).size, 2)
})

it('a local write between two replayed transactions is not lost', { timeout: 60_000 }, async (test) => {
  const hosts = [1, 2, 3].map(() => new KitHost({ tables: [dog] }))
  const { nodes } = await openCluster(test, hosts, {}, { clustering: { republishMessages: true } })
  const [origin, relay, last] = nodes as [ClusterNode, ClusterNode, ClusterNode]
  const subscribeTo = (node: string, more: object = {}) => ({
    node_name: node,
    subscriptions: [{ ...dog, publish: false, subscribe: true, ...more }],
  })
  await relay.cluster.addNode(subscribeTo('node1'))
  await last.cluster.addNode(subscribeTo('node2'))
  for (const id of ['one', 'two']) await origin.host.insert('dev', 'dog', { id })
  await eventually('the last node has them', () => has(last, 'two') && relay.host.outbox.length === 0)
  const { apply } = relay.host
  let isReplayed = false
  relay.host.apply = async (batch) => {
    // Before the replayed transactions, and read from the outbox together with them.
    if (batch.transactions.length > 0 && !isReplayed) commit(relay, insertInto('dog', { id: 'local' }))
    isReplayed ||= batch.transactions.length > 0
    return apply.call(relay.host, batch)
  }
  await relay.cluster.updateNode(subscribeTo('node1', { start_time: '2020-01-01T00:00:00Z' }))
  await eventually('it is replayed', () => isReplayed)
  await relay.host.insert('dev', 'dog', { id: 'later' })
  await eventually('both local writes arrive', () => has(last, 'local') && has(last, 'later'))
  assert.equal(relay.host.outbox.length, 0)
})
