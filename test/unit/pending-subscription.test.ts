// A remote table that cannot be read although its node is up is a condition of health.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Payload } from '../../lib/index.ts'
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
  const changes: Payload<'health:changed'>[] = []
  two.cluster.on('health:changed', (payload) => void changes.push(payload))
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

  network.cut('node1', 'node2')
  await clock.advance(7_000)
  assert.deepEqual(
    listed().map(({ code }) => code),
    ['isolated', 'peer_down'],
    'the reason is that its node is down',
  )
  network.heal()
  await clock.advance(10_000)
  assert.deepEqual(listed(), [], 'the time begins again when its node is back')
  await clock.advance(12_000)
  assert.deepEqual(listed(), [condition])
  isAnswered = true
  await clock.advance(5_000)
  assert.deepEqual(listed(), [])
  const began = (code: string) =>
    changes.filter((each) => each.began.some((condition) => condition.code === code)).length
  assert.deepEqual([began('subscription_pending'), began('peer_down')], [2, 1], 'no condition begins twice')
})
