// A token of a transaction that the stream of its table no longer has, at subscriptions that began afterwards: they do not know its running
// number, and answer nevertheless, also behind a relaying node.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { type ClusterNode, eventually, MemoryHost, TestClock } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { has, outcome, soon } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }
const subscribeTo = (node: string) => ({
  node_name: node,
  subscriptions: [{ ...dog, publish: false, subscribe: true }],
})

it('a token of a stream that was emptied by its age is answered where it was never read', {
  timeout: 60_000,
}, async (test) => {
  const clock = new TestClock()
  const hosts = [1, 2, 3].map(() => new MemoryHost({ tables: [dog] }))
  const clustering = { republishMessages: true, leafServer: { streams: { maxAge: 60 } } }
  const { nodes } = await openCluster(test, hosts, {}, { clock, clustering })
  const [origin, relay, last] = nodes as [ClusterNode, ClusterNode, ClusterNode]
  const write = async (id: string) => {
    const token = await origin.cluster.token(commit(origin, insertInto('dog', { id })))
    await eventually('it is confirmed', () => origin.host.outbox.length === 0)
    return token
  }
  const expired = await write('expired')
  await write('expired too')
  await clock.advance(100_000)
  const answer = (node: ClusterNode, token: string) =>
    soon(clock, outcome(node.cluster.caughtUp(token, { timeout: 10_000 })))
  await relay.cluster.addNode(subscribeTo('node1'))
  assert.equal(await answer(relay, expired), 'resolved')
  await last.cluster.addNode(subscribeTo('node2'))
  assert.equal(await answer(last, expired), 'resolved')
  assert.ok(has(last, 'expired'))
  const next = await write('next')
  assert.equal(await answer(last, next), 'resolved')
  assert.ok(has(last, 'next'))
})
