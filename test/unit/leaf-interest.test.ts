// What leaf and hub know of each other's subscriptions.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { LeafInterest } from '../../lib/mesh/nats/leaf-interest.ts'
import type { Version } from '../../lib/mesh/nats/versions.ts'

function scene(version: Version | undefined = [2, 9, 21]) {
  const state = { knowsLeaf: false, routed: [[] as string[]], leaf: [[] as string[]] }
  const asked = { knowsLeaf: 0, routed: 0, leaf: 0 }
  const monitor = {
    async knowsLeaf() {
      if (asked.knowsLeaf++ === 0) throw new Error('the hub is not connected')
      return state.knowsLeaf
    },
    // The last answer is repeated.
    routedSubjects: async () => state.routed[Math.min(asked.routed++, state.routed.length - 1)]!,
    leafSubjects: async () => state.leaf[Math.min(asked.leaf++, state.leaf.length - 1)]!,
  }
  const interest = new LeafInterest('node1', monitor, () => version)
  return { interest, state, asked }
}

const served = ['enmesh.consumer.node2', 'node2.__request__', '$JS.node2-leaf.API.>']

// Each waits a second until it compares again.
describe('what a leaf does not know', { concurrency: true }, () => {
  test('is what its hub knows in two comparisons, of lasting subscriptions', async () => {
    const { interest, state } = scene()
    state.routed = [[...served, 'enmesh.heartbeat', '_INBOX.abc', '$SYS.REQ.SERVER.PING', '$JS.node2-leaf.API.INFO']]
    state.leaf = [['enmesh.heartbeat'], ['enmesh.heartbeat', 'node2.__request__']]
    assert.deepEqual(await interest.missing(), ['enmesh.consumer.node2', '$JS.node2-leaf.API.>'])
  })

  test('is nothing when it has ended, or is there, in the second comparison', async () => {
    const { interest, state } = scene()
    state.routed = [served, served.slice(0, 2)]
    state.leaf = [[], served.slice(0, 2)]
    assert.deepEqual(await interest.missing(), [])
  })
})

test('servers in which nothing is lost, and a hub that does not answer, are not compared', async () => {
  const version = scene([2, 9, 22])
  version.state.routed = [served]
  assert.deepEqual(await version.interest.missing(), [])
  assert.equal(version.asked.routed, 0)
  const silent = scene()
  silent.state.routed = [undefined as never]
  assert.deepEqual(await silent.interest.missing(), [])
})

test('the subscriptions of a leaf are sent when its hub knows them; a second link replaces the first', async () => {
  const { interest, state, asked } = scene()
  const first = interest.sent()
  const second = interest.sent()
  assert.equal(await first, false)
  const before = asked.knowsLeaf
  state.knowsLeaf = true
  assert.equal(await second, true)
  assert.ok(asked.knowsLeaf > before)
})

test('a leaf at the hub of another node counts as linked after a second', async () => {
  assert.equal(await scene().interest.sent(), true)
})
