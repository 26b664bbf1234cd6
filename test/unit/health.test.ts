// Health of a node: every condition, its events, and the state `isolated`.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { assessHealth, type HealthFacts } from '../../lib/cluster/health.ts'
import { Reachability, type ReachabilityOptions } from '../../lib/cluster/reachability.ts'
import { ClusterManager, type HealthCode, healthCodes, type Payload, type SubscriptionStatus } from '../../lib/index.ts'
import { serverProblems } from '../../lib/mesh/nats/server-problems.ts'
import {
  type ClusterNode,
  eventually,
  MemoryHost,
  MemoryNetwork,
  type StartOptions,
  startCluster,
  TestClock,
} from '../../lib/testing.ts'
import { temporaryDirectory } from './store-fixture.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node2', ...dog }

const live: SubscriptionStatus = {
  source,
  state: 'live',
  appliedSequence: 1,
  lastSequence: 1,
  lag: 0,
  lagSeconds: 0,
  gaps: 1,
  lost: 1,
  quarantined: 0,
  copied: 0,
}

const healthy: HealthFacts = {
  superseded: undefined,
  mesh: { state: 'connected', reason: undefined, isSettled: true, problems: [] },
  peers: [{ node: 'node2', up: true }],
  pending: [],
  subscriptions: [live],
  refusals: [],
  clockAhead: undefined,
}
const { mesh } = healthy
const problem = (facts: Partial<Parameters<typeof serverProblems>[0]>) => ({
  mesh: {
    ...mesh,
    problems: serverProblems({
      hubFailure: undefined,
      configuredRoutes: 0,
      linkedRoutes: undefined,
      lowDisk: undefined,
      certificates: [],
      exposures: [],
      ...facts,
    }),
  },
})
const subscription = (status: Partial<SubscriptionStatus>) => ({ subscriptions: [{ ...live, ...status }] })

/** What causes each condition, and the message. `not_open` is no matter of the facts. */
const causes: Record<Exclude<HealthCode, 'not_open'>, [facts: Partial<HealthFacts>, message: string]> = {
  superseded: [{ superseded: 'another process' }, 'another process'],
  mesh_disconnected: [
    { mesh: { ...mesh, state: 'disconnected', reason: 'it died' } },
    'the local streams are not writable: it died',
  ],
  isolated: [{ mesh: { ...mesh, state: 'isolated', reason: 'no link' } }, 'no other node is reached: no link'],
  hub_failed: [problem({ hubFailure: 'port taken', configuredRoutes: 1, linkedRoutes: 0 }), 'port taken'],
  no_route_linked: [
    problem({ configuredRoutes: 2, linkedRoutes: 0 }),
    'the hub has 2 routes and is linked with no other hub',
  ],
  peer_down: [{ peers: [{ node: 'node2', up: false }] }, 'no heartbeat of node2'],
  subscription_refused: [{ refusals: [{ ...source, reason: 'no such table' }] }, 'no such table'],
  subscription_pending: [{ pending: [{ source, reason: 'no answer' }] }, 'no answer'],
  subscription_stalled: [subscription({ state: 'stalled', error: 'disk full' }), 'disk full'],
  subscription_stale: [
    subscription({ staleSince: 0 }),
    "not caught up since 1970-01-01T00:00:00.000Z; deletes may be missing here: replace the table by a copy, with 'copy: true' and 'replace: true' in update_node",
  ],
  gap_not_repaired: [
    subscription({ unrepairedGaps: 1, state: 'copying', copy: { reason: 'gap', rows: 5 } }),
    'transactions were lost in 1 gap; rows are being copied',
  ],
  quarantined: [subscription({ quarantined: 2 }), '2 messages are in quarantine: replay or discard them'],
  clock_ahead: [{ clockAhead: 'correct the clock' }, 'correct the clock'],
  disk_low: [problem({ lowDisk: 'nearly full' }), 'nearly full'],
  certificate_expires: [problem({ certificates: ['It expires.'] }), 'It expires.'],
  server_exposed: [problem({ exposures: ['One hole.', 'No fixes.'] }), 'One hole. No fixes.'],
}

describe('an assessment', () => {
  it('is ready and lists nothing when nothing is wrong', () => {
    assert.deepEqual(assessHealth(healthy), { ready: true, degraded: [] })
    assert.deepEqual(assessHealth({ ...healthy, ...problem({ configuredRoutes: 1, linkedRoutes: 2 }) }).degraded, [])
  })

  for (const [code, [facts, message]] of Object.entries(causes))
    it(`lists ${code}`, () => {
      const { ready, degraded } = assessHealth({ ...healthy, ...facts })
      const [first, ...others] = degraded
      const { message: text, ...where } = first!
      assert.deepEqual([where.code, text, others], [code, message, []])
      assert.equal(ready, healthCodes[code as HealthCode].ready)
      const isOfTable = /^(subscription_|gap_|quarantined)/.test(code)
      assert.deepEqual(where, { code, ...(isOfTable ? source : code === 'peer_down' ? { node: 'node2' } : {}) })
    })

  it('expects no peers and no links of a node that has just started', () => {
    const facts = { ...healthy, ...problem({ configuredRoutes: 1, linkedRoutes: 0 }) }
    const down = { ...facts, peers: [{ node: 'node2', up: false }] }
    assert.equal(assessHealth(down).degraded.length, 2)
    assert.deepEqual(assessHealth({ ...down, mesh: { ...facts.mesh, isSettled: false } }).degraded, [])
  })
})

describe('the state of the mesh', () => {
  function reachability(test: TestContext, peers: ReturnType<ReachabilityOptions['peers']>) {
    const clock = new TestClock({ stopped: true })
    const states: string[] = []
    const changed = (state: string, reason?: string) => void states.push(reason ? `${state}: ${reason}` : state)
    const state = new Reachability({ timers: clock, peers: () => peers, changed })
    test.after(() => state.close())
    return { clock, states, state }
  }

  it('is connected with nobody to reach, and while others may still be heard', async (test) => {
    const alone = reachability(test, [])
    alone.state.onMesh('connected')
    await alone.clock.advance(10_000)
    assert.deepEqual(alone.states, ['connected'])
    const early = reachability(test, [{ node: 'two', up: false }])
    early.state.onMesh('connected')
    await early.clock.advance(3_000)
    early.state.onMesh('disconnected', 'restart')
    early.state.onMesh('connected')
    await early.clock.advance(3_000)
    assert.deepEqual(early.states, ['connected', 'disconnected: restart', 'connected'])
    await early.clock.advance(1_000)
    assert.equal(early.states.at(-1), 'isolated: no node of the manifest sends heartbeats')
  })

  it('is connected while a node is reached over a fallback although the hub fails', (test) => {
    const peers = [{ node: 'two', up: true }]
    const { states, state } = reachability(test, peers)
    state.onMesh('connected')
    state.onMesh('connected', 'the hub fails')
    assert.deepEqual([states, state.reason], [['connected'], undefined])
    peers[0]!.up = false
    state.onPeers()
    assert.deepEqual([state.state, state.reason], ['isolated', 'the hub fails'])
    peers[0]!.up = true
    state.onPeers()
    state.onPeers()
    assert.deepEqual(states, ['connected', 'isolated: the hub fails', 'connected'])
  })
})

async function two(test: TestContext, options: StartOptions = {}) {
  const clock = new TestClock({ stopped: true })
  const network = new MemoryNetwork({ clock })
  const cluster = await startCluster(2, { network, tables: [dog], ...options })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const changes: Payload<'health:changed'>[] = []
  two.cluster.on('health:changed', (payload) => void changes.push(payload))
  const codes = () => two.cluster.view.health().degraded.map(({ code }) => code)
  return { clock, network, cluster, one, two, changes, codes }
}

describe('a node', { concurrency: true, timeout: 30_000 }, () => {
  it('reports a cut and its end, and shows why at any time', async (test) => {
    const { clock, network, cluster, two: node, changes, codes } = await two(test)
    assert.deepEqual(node.cluster.health(), { ready: true, degraded: [] })
    const states: unknown[] = []
    node.cluster.on('mesh:state', ({ state }) => void states.push(state))
    network.cut('node1', 'node2')
    await clock.advance(7_000)
    const { view } = node.cluster
    assert.deepEqual([view.meshState, view.meshReason], ['isolated', 'no node of the manifest sends heartbeats'])
    const health = node.cluster.health()
    assert.ok(health.ready, 'it accepts writes')
    assert.deepEqual(codes(), ['isolated', 'peer_down'])
    assert.deepEqual(changes, [{ ...health, began: health.degraded, ended: [] }])
    await node.host.insert('dev', 'dog', { id: 1 })
    network.heal()
    await clock.advance(2_000)
    await cluster.converged()
    assert.deepEqual([view.meshState, view.meshReason, codes()], ['connected', undefined, []])
    assert.deepEqual(states, ['isolated', 'connected'])
    assert.deepEqual(changes.at(-1), { ready: true, degraded: [], began: [], ended: health.degraded })
    network.crash('node2')
    assert.deepEqual([node.cluster.health().ready, codes()[0]], [false, 'mesh_disconnected'])
    await node.stop()
    assert.deepEqual(view.health(), {
      ready: false,
      degraded: [{ code: 'not_open', message: 'the manager is closed' }],
    })
  })

  it('started while the others are away is isolated after some seconds', async (test) => {
    const { clock, one, two: node, codes } = await two(test)
    await Promise.all([one.stop(), node.stop()])
    await node.start()
    assert.deepEqual([node.cluster.meshState, codes()], ['connected', []])
    await clock.advance(5_000)
    assert.deepEqual([node.cluster.meshState, codes()], ['isolated', ['isolated', 'peer_down']])
  })

  it('lists a gap until the rows are copied, also after a restart', async (test) => {
    const { clock, network, cluster, one, two: node, codes } = await two(test, { options: { repair: false } })
    await one.host.insert('dev', 'dog', { id: 1 })
    await cluster.converged()
    network.cut('node1')
    await one.host.insert('dev', 'dog', { id: 2 })
    await one.cluster.purgeStream(dog)
    const gap = node.cluster.events.once('replication:gap')
    network.heal()
    await clock.advance(10_000)
    await gap
    await cluster.converged()
    const listed = node.cluster.health().degraded
    assert.deepEqual(listed, [
      {
        code: 'gap_not_repaired',
        node: 'node1',
        ...dog,
        message: 'transactions were lost in 1 gap, and no copy of the rows has ended since then',
      },
    ])
    assert.equal(node.cluster.subscriptions()[0]?.unrepairedGaps, 1)
    await node.stop()
    await node.start()
    await clock.advance(2_000)
    await eventually('it is live', () => node.cluster.subscriptions()[0]?.state === 'live')
    assert.deepEqual(node.cluster.health().degraded, listed)
    const copied = node.cluster.events.once('replication:copied')
    await node.cluster.copy({ node: 'node1', ...dog })
    await clock.advance(2_000)
    await copied
    assert.deepEqual([codes(), node.host.get('dev', 'dog', 2)], [[], { id: 2 }])
    const { gaps, unrepairedGaps } = node.cluster.subscriptions()[0]!
    assert.deepEqual([gaps, unrepairedGaps], [1, undefined])
  })

  it('lists what the database or a peer refuses, and what is in quarantine', async (test) => {
    const hosts = new Map(['node1', 'node2'].map((name) => [name, new MemoryHost({ tables: [dog] })]))
    const { clock, one, two: node, codes } = await two(test, { host: (name) => hosts.get(name)! })
    node.host.beforeApply = async () => {
      throw new Error('no room')
    }
    await one.host.insert('dev', 'dog', { id: 1 })
    await eventually('it is listed', async () => {
      await clock.advance(1_000)
      return codes().includes('subscription_stalled')
    })
    assert.match(node.cluster.health().degraded[0]!.message, /no room/)
    await eventually('the transaction is known', async () => {
      await clock.advance(1_000)
      return node.cluster.subscriptions()[0]!.refused
    })
    node.host.beforeApply = async ({ transactions }) => {
      if (transactions.length > 0) throw new Error('no room')
    }
    await node.cluster.quarantine.add({ node: 'node1', ...dog })
    await clock.advance(5_000)
    await eventually('it moved on', () => codes().join() === 'quarantined')
  })
})

it('is ready while clustering is disabled', async (test) => {
  const directory = await temporaryDirectory(test)
  const configFile = join(directory, 'config.yaml')
  await writeFile(configFile, 'clustering:\n  enabled: false\n')
  const manager = await ClusterManager.open({ configFile, host: new MemoryHost() })
  test.after(() => manager.close())
  assert.deepEqual(
    [manager.health(), manager.meshState, manager.meshReason],
    [{ ready: true, degraded: [] }, undefined, undefined],
  )
})
