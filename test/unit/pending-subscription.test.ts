// A remote table that cannot be read although its node is up is a condition of health.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { type ClusterNode, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'
import { overriding } from '../support/overriding.ts'

const dog = { database: 'dev', table: 'dog' }

test('a table that cannot be read for 15 s, of a node that is up, is listed with the reason until it can be', {
  timeout: 30_000,
}, async (t) => {
  const clock = new TestClock({ stopped: true })
  const network = new MemoryNetwork({ clock })
  let isAnswered = true
  const mesh = (name?: string) => {
    const whole = network.mesh(name)
    const streamState: typeof whole.streamState = async (source, options) => {
      if (source.node === 'node1' && !isAnswered) throw new MeshError('no_responders', 'nobody answers for the stream')
      return whole.streamState(source, options)
    }
    return name === 'node2' ? overriding(whole, { streamState }) : whole
  }
  const cluster = await startCluster(2, { network: overriding(network, { mesh }), tables: [dog], subscribe: false })
  t.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [, two] = cluster.nodes as [ClusterNode, ClusterNode]
  await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] })
  const listed = () => two.cluster.health().degraded
  isAnswered = false
  network.cut('node1', 'node2')
  await clock.advance(1_000)
  network.heal()
  await clock.advance(10_000)
  assert.deepEqual(listed(), [], 'it may be a matter of seconds')
  await clock.advance(6_000)
  const condition = { code: 'subscription_pending', node: 'node1', ...dog, message: 'nobody answers for the stream' }
  assert.deepEqual(listed(), [condition])
  assert.equal(typeof two.cluster.subscriptions()[0]!.pendingSince, 'number')

  network.cut('node1', 'node2')
  await clock.advance(7_000)
  assert.deepEqual(
    listed().map(({ code }) => code),
    ['isolated', 'peer_down'],
    'the reason is that its node is down',
  )
  isAnswered = true
  network.heal()
  await clock.advance(5_000)
  assert.deepEqual([listed(), two.cluster.subscriptions()[0]!.pendingSince], [[], undefined])
})
