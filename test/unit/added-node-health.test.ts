// A node that was just added to the manifest has the time to send its first heartbeat before it counts as down.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import { NodeHealth } from '../../lib/cluster/node-health.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { TestClock } from '../../lib/testing.ts'

/** A node whose servers have been running for a while. */
async function running(test: TestContext, peers: { node: string; up: boolean }[]) {
  const clock = new TestClock({ stopped: true })
  const reported: string[] = []
  const health = new NodeHealth({
    mesh: { timers: clock },
    peers: () => peers,
    facts: () => ({ superseded: undefined, pending: [], subscriptions: [], refusals: [], clockAhead: undefined }),
    emit: (name, payload) => {
      if (name === 'health:changed') {
        const { began, ended } = payload as unknown as { began: { code: string }[]; ended: { code: string }[] }
        reported.push(...began.map(({ code }) => code), ...ended.map(({ code }) => `no ${code}`))
      }
    },
    logger: silentLogger,
  })
  test.after(() => health.close())
  health.start()
  health.onMesh('connected')
  await clock.advance(60_000)
  const codes = () => health.status().degraded.map(({ code }) => code)
  const add = (node: string) => {
    peers.push({ node, up: false })
    health.onPeers()
  }
  return { clock, health, peers, reported, codes, add }
}

it('the first node that is added is neither down nor a reason to be isolated before its first heartbeat', async (test) => {
  const { clock, health, peers, reported, codes, add } = await running(test, [])
  add('node2')
  assert.deepEqual([health.meshState, codes()], ['connected', []])
  await clock.advance(3_000)
  peers[0]!.up = true
  health.onPeers()
  await clock.advance(10_000)
  assert.deepEqual([health.meshState, codes(), reported], ['connected', [], []])
  peers[0]!.up = false
  health.onPeers()
  assert.deepEqual([health.meshState, codes()], ['isolated', ['isolated', 'peer_down']])
})

it('a node that sends no heartbeat after it was added is down after some seconds', async (test) => {
  const { clock, health, peers, codes, add } = await running(test, [])
  add('node2')
  await clock.advance(5_000)
  assert.deepEqual([health.meshState, codes()], ['isolated', ['isolated', 'peer_down']])
  peers.length = 0
  await clock.advance(1_000)
  add('node2')
  assert.deepEqual([health.meshState, codes()], ['connected', []])
})

it('a node that is added beside others is not down at once', async (test) => {
  const { clock, codes, add, reported } = await running(test, [{ node: 'node2', up: true }])
  add('node3')
  await clock.advance(3_000)
  assert.deepEqual([codes(), reported], [[], []])
  await clock.advance(3_000)
  assert.deepEqual([codes(), reported], [['peer_down'], ['peer_down']])
})
