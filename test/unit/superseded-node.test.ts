// A node that hears an older process with its name stands down, and takes part again by itself when that one has been silent.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { encode } from '../../lib/peers/protocol.ts'
import { type ClusterNode, eventually, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const silent = { state() {}, rejected() {}, linked() {} }

async function open(test: TestContext) {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  // Shorter than the first attempt to take part again, however slow this machine is.
  const options = { publishTimeout: 2_000 }
  const cluster = await startCluster(2, { network, tables: [dog], options })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const mallory: Mesh = network.mesh()
  await mallory.open('mallory', { hub: [], leaf: [] }, silent)
  /** A heartbeat of an older process with the name of the first node. */
  const forge = () =>
    mallory.announce(encode({ node: 'node1', instance: 'other', started: 0, session: '', streams: [] }))
  const standDown = async () => {
    await eventually('node1 stands down', () => {
      forge()
      return one.cluster.state === 'superseded'
    })
  }
  const changes: unknown[] = []
  one.cluster.on('node:superseded', (change) => changes.push(change))
  return { clock, cluster, one, two, forge, standDown, changes }
}

const ids = ({ host }: ClusterNode) =>
  host
    .records('dev', 'dog')
    .map(({ id }) => id)
    .sort()

describe('a node whose name another process uses', { concurrency: true, timeout: 60_000 }, () => {
  it('says so, and comes back without loss when the other one is silent', async (test) => {
    const { clock, cluster, one, two, standDown, changes } = await open(test)
    await one.host.insert('dev', 'dog', { id: 'a' })
    await cluster.converged()
    await standDown()
    assert.equal(one.cluster.view.state, 'superseded')
    await eventually('its servers end', () => one.cluster.meshState === 'stopped')
    const request = { node_name: 'node2', subscriptions: [{ ...dog, publish: true, subscribe: true }] }
    await assert.rejects(one.cluster.updateNode(request), { code: 'node_superseded', retryable: true })
    await assert.rejects(one.cluster.rotatePassword(), { code: 'node_superseded' })
    const { connections } = await one.cluster.status()
    assert.equal(connections[0]?.status, 'closed')
    await one.cluster.setRoutes({ server: 'hub', routes: [{ host: 'h', port: 1 }] })
    // It is committed, and waits in the outbox.
    const committed = assert.rejects(one.host.insert('dev', 'dog', { id: 'b' }), { code: 'publish_timeout' })
    const other = two.host.insert('dev', 'dog', { id: 'c' })
    await clock.advance(2_000)
    await committed
    await clock.advance(3_000)
    await eventually('it watches', () => one.cluster.state === 'superseded')
    await clock.advance(7_000)
    await eventually('it takes part again', () => one.cluster.state === 'open' && one.cluster.meshState === 'connected')
    await other
    await cluster.converged()
    assert.deepEqual(
      [ids(one), ids(two)],
      [
        ['a', 'b', 'c'],
        ['a', 'b', 'c'],
      ],
    )
    assert.equal(one.cluster.manifest.routes.hub.length, 1)
    await eventually('node1 is up', () => two.cluster.peers().every(({ up }) => up))
    const reason = 'another process used this node name first: this process takes no part until that one is gone'
    assert.deepEqual(changes, [{ superseded: true, reason }, { superseded: false }])
    await one.cluster.updateNode(request)
  })

  it('stays away as long as the heartbeats go on, and tries less and less often', async (test) => {
    const { clock, one, forge, standDown, changes } = await open(test)
    await standDown()
    for (let second = 0; second < 120; second++) {
      await clock.advance(1_000)
      forge()
    }
    assert.equal(one.cluster.state, 'superseded')
    assert.equal(changes.length, 1)
    await clock.advance(70_000)
    await eventually('it takes part again', () => one.cluster.state === 'open')
  })

  it('can be closed at any moment', async (test) => {
    for (const wait of [0, 4_500, 8_000]) {
      const { clock, one, standDown } = await open(test)
      await standDown()
      await clock.advance(wait)
      await one.cluster.close()
      assert.equal(one.cluster.state, 'closed')
      await clock.advance(120_000)
      assert.equal(one.cluster.meshState, 'stopped')
    }
  })
})
