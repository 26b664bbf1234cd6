// A node whose clock was days ahead: it says so, and takes part again after `restamp`; both databases end equal.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import type { Logger } from '../../lib/observe/logger.ts'
import {
  type ClusterNode,
  eventually,
  MemoryHost,
  MemoryNetwork,
  type StartOptions,
  startCluster,
  TestClock,
} from '../../lib/testing.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const dog = { database: 'dev', table: 'dog' }
const both = [{ ...dog, publish: true, subscribe: true }]
type Line = { level: string; details: Record<string, unknown>; text: string }

async function open(test: TestContext, nodes = 2, options: StartOptions = {}) {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const lines = new Map<string, Line[]>()
  const loggerOf = (name: string): Logger => {
    const list: Line[] = []
    lines.set(name, list)
    const at = (level: string) => (details: object, text: string) =>
      void list.push({ level, details: details as Record<string, unknown>, text })
    return { debug: () => {}, info: at('info'), warn: at('warn'), error: at('error') }
  }
  const cluster = await startCluster(nodes, {
    network,
    tables: [dog],
    options: (name) => ({ logger: lines.has(name) ? loggerOf(`${name} again`) : loggerOf(name) }),
    ...options,
  })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  return { clock, network, cluster, lines, nodes: cluster.nodes as readonly ClusterNode[] }
}

const insert = (node: ClusterNode, id: number, more = {}) =>
  node.host.insert('dev', 'dog', { id, from: node.name, ...more })
const rows = (node: ClusterNode) => node.host.records('dev', 'dog')
const aside = (node: ClusterNode) => node.cluster.quarantine.list().length

/** The wall time of these nodes passes without waiting: their timers stay where they are. */
function pass(network: MemoryNetwork, nodes: readonly ClusterNode[], ms: number): void {
  for (const { name } of nodes) network.skew(name, ms)
}

/** Resolves when all nodes have the same rows and nothing in quarantine. */
async function equal(nodes: readonly ClusterNode[]): Promise<void> {
  const [first, ...others] = nodes as [ClusterNode, ...ClusterNode[]]
  await eventually('the quarantine is empty', () => nodes.every((node) => aside(node) === 0))
  for (const other of others)
    await eventually(
      () => `${other.name} equals ${first.name}: ${JSON.stringify([rows(first), rows(other)])}`,
      () => JSON.stringify(rows(first)) === JSON.stringify(rows(other)),
    )
}

describe('a node whose clock was two days ahead', { concurrency: true }, () => {
  it('says so, refuses operations, and takes part again after a restamp', async (test) => {
    const { network, cluster, lines, nodes } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    await insert(one, 1)
    await cluster.converged()
    network.skew('node1', 2 * DAY_MS)
    await insert(one, 2)
    await one.host.update('dev', 'dog', { id: 1, age: 3 })
    await one.host.delete('dev', 'dog', 99)
    await cluster.converged()
    assert.equal(aside(two), 3)
    network.skew('node1', 0)
    const ahead = await one.cluster.events.once('clock:ahead', { where: ({ reason }) => reason === 'timestamps' })
    const [condition] = one.cluster.health().degraded
    assert.deepEqual([condition?.code, condition?.node], ['clock_ahead', undefined])
    assert.match(condition!.message, /call cluster\.restamp\(\) \(\d+ ms ahead\)$/)
    assert.deepEqual([ahead.node, ahead.peers], ['node1', ['node2']])
    assert.ok(ahead.aheadMs > DAY_MS)
    assert.ok(one.cluster.view.clock.aheadMs > DAY_MS)
    assert.ok(lines.get('node1')!.some(({ level, text }) => level === 'error' && text === 'clock ahead'))
    // Commits with the right clock are quarantined too, because timestamps never decrease.
    await insert(one, 3)
    await cluster.converged()
    assert.equal(aside(two), 4)
    const refused = { code: 'clock_ahead', statusCode: 503, message: /node1.*restamp/ }
    await assert.rejects(one.cluster.updateNode({ node_name: 'node2', subscriptions: both }), refused)
    await assert.rejects(two.cluster.updateNode({ node_name: 'node1', subscriptions: both }), {
      code: 'peer_rejected',
      message: /node1.*restamp/,
    })
    const over = one.cluster.events.once('clock:ok')
    const outcome = await one.cluster.restamp()
    assert.deepEqual([outcome.rows, outcome.transactions], [4, 2])
    assert.deepEqual(await over, { node: 'node1' })
    assert.equal(one.cluster.clock.reason, undefined)
    await insert(one, 4)
    await insert(two, 5)
    await cluster.converged()
    await equal(nodes)
    assert.deepEqual(
      rows(two).map(({ id, age }) => [id, age]),
      [
        [1, 3],
        [2, undefined],
        [3, undefined],
        [4, undefined],
        [5, undefined],
      ],
    )
    await one.cluster.updateNode({ node_name: 'node2', subscriptions: both })
    await two.cluster.updateNode({ node_name: 'node1', subscriptions: both })
    assert.deepEqual(await one.cluster.restamp(), { rows: 0, transactions: 0, subscriptions: 0 })
  })

  it('renews the revisions of subscriptions that were changed meanwhile', async (test) => {
    const { network, nodes } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    await one.stop()
    const file = await readFile(one.configFile, 'utf8')
    const edited = file.replace('publish: true', 'publish: false')
    assert.notEqual(edited, file)
    await writeFile(one.configFile, edited)
    // The edit is found at open, and gets a revision of the future.
    network.skew('node1', 2 * DAY_MS)
    await one.start()
    await one.stop()
    network.skew('node1', 0)
    await one.start()
    const subscriptionsOf = (node: ClusterNode) => node.cluster.manifest.nodes[0]!.subscriptions[0]!
    assert.equal(subscriptionsOf(one).publish, false)
    assert.equal(one.cluster.clock.reason, 'timestamps')
    const refused = { code: 'clock_ahead' }
    await assert.rejects(one.cluster.updateNode({ node_name: 'node2', subscriptions: both }), refused)
    assert.equal(subscriptionsOf(two).subscribe, true, 'node2 refuses the revision')
    const { subscriptions } = await one.cluster.restamp()
    assert.equal(subscriptions, 1)
    await eventually('node2 has the change', () => !subscriptionsOf(two).subscribe)
    await one.cluster.updateNode({ node_name: 'node2', subscriptions: both })
    assert.equal(subscriptionsOf(two).subscribe, true)
  })

  it('says so at open, after a restart with the right clock', async (test) => {
    const { network, cluster, nodes } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    await one.stop()
    network.skew('node1', 2 * DAY_MS)
    await one.start()
    await insert(one, 1)
    await one.stop()
    network.skew('node1', 0)
    await one.start()
    const seen = await one.cluster.events.once('clock:ahead', { signal: AbortSignal.timeout(5_000) })
    assert.equal(seen.reason, 'timestamps')
    await one.cluster.restamp()
    await insert(one, 2)
    await cluster.converged()
    await equal(nodes)
    assert.equal(rows(two).length, 2)
    // The database's last timestamp is of the present too.
    await one.stop()
    await one.start()
    assert.equal(one.cluster.clock.reason, undefined)
  })

  it('is noticed by itself and by its peers while the clock is wrong, and cannot restamp then', async (test) => {
    const { network, nodes, lines } = await open(test, 3)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    const noticed = one.cluster.events.once('clock:ahead')
    network.skew('node1', 2 * DAY_MS)
    const { reason, peers, aheadMs } = await noticed
    assert.deepEqual([reason, peers], ['wall-clock', ['node2', 'node3']])
    assert.ok(Math.abs(aheadMs - 2 * DAY_MS) < 60_000)
    await assert.rejects(one.cluster.restamp(), { code: 'clock_ahead', message: /correct it/ })
    await eventually('node2 warns', () =>
      lines.get('node2')!.some(({ text, details }) => text.includes('peer is ahead') && details.peer === 'node1'),
    )
    assert.equal(two.cluster.clock.reason, undefined)
    const over = one.cluster.events.once('clock:ok')
    network.skew('node1', 0)
    await over
    await eventually('node2 logs the end', () => lines.get('node2')!.some(({ text }) => text.includes('no longer')))
    assert.equal(lines.get('node2')!.filter(({ level }) => level === 'warn').length, 1, 'one warning')
  })

  it('whose database cannot restamp rejects, and its transactions arrive when their time has come', async (test) => {
    const { network, cluster, nodes } = await open(test, 2, {
      host: () => Object.assign(new MemoryHost({ tables: [dog] }), { restamp: undefined }) as never,
    })
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    network.skew('node1', HOUR_MS)
    await insert(one, 1)
    await insert(one, 2)
    network.skew('node1', 0)
    await cluster.converged()
    await assert.rejects(one.cluster.restamp(), { code: 'restamp_unsupported' })
    const applied: number[] = []
    two.cluster.on('replication:applied', ({ sequence }) => void applied.push(sequence))
    pass(network, nodes, HOUR_MS)
    await equal(nodes)
    await eventually('both are applied', () => applied.length === 2)
    assert.deepEqual(applied, [1, 2], 'in order')
    await eventually('the clock is not ahead', () => one.cluster.clock.reason === undefined)
  })

  it('rejects local commits while the database restamps', async (test) => {
    const { nodes } = await open(test)
    const [one] = nodes as [ClusterNode]
    let finish = () => {}
    const { restamp } = one.host
    one.host.restamp = async (plan) => {
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      return restamp.call(one.host, plan)
    }
    const restamping = one.cluster.restamp()
    await assert.rejects(insert(one, 1), { code: 'restamping', retryable: true })
    await assert.rejects(one.cluster.restamp(), { code: 'restamping' })
    finish()
    await restamping
    await insert(one, 1)
  })

  it('keeps its timestamps when the database rejects the restamp', async (test) => {
    const { network, cluster, nodes } = await open(test)
    const [one] = nodes as [ClusterNode]
    network.skew('node1', DAY_MS)
    await insert(one, 1)
    network.skew('node1', 0)
    const { restamp } = one.host
    one.host.restamp = async (plan) => {
      await restamp.call(one.host, plan)
      throw new Error('the outcome is unknown')
    }
    await assert.rejects(one.cluster.restamp(), { code: 'internal', message: /outcome is unknown/ })
    assert.equal(one.cluster.clock.reason, 'timestamps')
    one.host.restamp = restamp
    await one.cluster.restamp()
    await insert(one, 2)
    await cluster.converged()
    await equal(nodes)
  })
})

describe('a voided transaction', { concurrency: true }, () => {
  it('does not win at a peer that had accepted it, nor the writes that lost to it', async (test) => {
    const { network, cluster, nodes } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    // The clocks of both are wrong, so node2 accepts.
    for (const name of ['node1', 'node2']) network.skew(name, DAY_MS)
    await insert(one, 1, { version: 1 })
    await cluster.converged()
    await two.host.update('dev', 'dog', { id: 1, version: 2 })
    await insert(two, 2)
    await cluster.converged()
    for (const name of ['node1', 'node2']) network.skew(name, 0)
    await one.cluster.restamp()
    await two.cluster.restamp()
    await cluster.converged()
    await one.host.update('dev', 'dog', { id: 1, version: 3 })
    await cluster.converged()
    await two.host.update('dev', 'dog', { id: 2, version: 3 })
    await cluster.converged()
    await equal(nodes)
    assert.deepEqual(
      rows(one).map(({ version }) => version),
      [3, 3],
    )
    for (const { cluster } of nodes) assert.equal(cluster.clock.reason, undefined)
  })

  it('stays without effect when it is read again, also when its time has come; what is committed then is valid', async (test) => {
    const { network, clock, cluster, nodes } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    network.skew('node1', HOUR_MS)
    await insert(one, 1, { version: 'future' })
    network.skew('node1', 0)
    await one.cluster.restamp()
    await cluster.converged()
    await two.host.update('dev', 'dog', { id: 1, version: 'two' })
    await cluster.converged()
    pass(network, nodes, HOUR_MS)
    await clock.advance(2_000) // heartbeats with the new time
    await insert(one, 2)
    await cluster.converged()
    const subscriptions = both.map((each) => ({ ...each, start_time: '2020-01-01T00:00:00.000Z' }))
    await two.cluster.updateNode({ node_name: 'node1', subscriptions })
    await cluster.converged()
    await two.stop()
    await two.start()
    await insert(one, 3)
    await cluster.converged()
    await equal(nodes)
    assert.equal(two.host.get('dev', 'dog', 1)!.version, 'two')
    assert.equal(rows(two).length, 3)
    assert.deepEqual(
      two.cluster.subscriptions().map(({ gaps }) => gaps),
      [0],
    )
  })

  it('is dropped by nodes that read it from a relaying node', async (test) => {
    const { network, cluster, nodes } = await open(test, 3, {
      subscribe: false,
      clustering: () => ({ republishMessages: true }),
    })
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await three.cluster.addNode({ node_name: 'node2', subscriptions: both })
    await insert(one, 0)
    await cluster.converged()
    // node2 accepts and relays it; node3 does not accept it.
    network.skew('node1', DAY_MS)
    network.skew('node2', DAY_MS)
    await insert(one, 1)
    await insert(one, 2)
    await eventually('node3 has them in quarantine', () => aside(three) === 2)
    network.skew('node1', 0)
    network.skew('node2', 0)
    await one.cluster.restamp()
    await two.cluster.restamp()
    await insert(one, 3)
    await cluster.converged()
    await equal(nodes)
    assert.equal(rows(three).length, 4)
  })

  it('is discarded by a peer whose quarantine is full, which then reaches the rewritten rows', async (test) => {
    const { network, cluster, nodes } = await open(test, 2, { options: { maxQuarantined: 5 } })
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    network.skew('node1', DAY_MS)
    for (let id = 1; id <= 12; id++) await insert(one, id)
    network.skew('node1', 0)
    await eventually('node2 is stalled', () => two.cluster.subscriptions()[0]!.state === 'stalled')
    await eventually('node1 has correct peers', () => one.cluster.clock.reason === 'timestamps')
    await one.cluster.restamp()
    const source = { node: 'node1', ...dog }
    await eventually('node2 has the rewritten rows', async () => {
      if (two.cluster.subscriptions()[0]!.state === 'stalled') await two.cluster.quarantine.discard(source)
      return rows(two).length === 12
    })
    await insert(one, 13)
    await cluster.converged()
    await equal(nodes)
    assert.equal(rows(two).length, 13)
  })

  it('is reported as voided by a replay', async (test) => {
    const { network, cluster, nodes, lines } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    network.skew('node1', DAY_MS)
    await insert(one, 1)
    network.skew('node1', 0)
    await cluster.converged()
    const [message] = two.cluster.quarantine.list()
    assert.equal(message!.cause, 'timestamp')
    assert.equal(message!.origin!.node, 'node1')
    await one.cluster.restamp()
    await eventually('node2 has the row', () => rows(two).length === 1)
    const { applied, voided } = await two.cluster.quarantine.replay(message!.source)
    // Once a second it is also dropped without a replay.
    const isDropped = lines.get('node2')!.some(({ text }) => text === 'quarantine released')
    assert.deepEqual([applied, voided], [[], isDropped ? [] : [1]])
  })
})

describe('a message in quarantine for its timestamp', { concurrency: true }, () => {
  it('is applied when a clock that was behind at boot is corrected', async (test) => {
    const { network, cluster, nodes, lines } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    await two.stop()
    network.skew('node2', -2 * HOUR_MS)
    await two.start()
    for (let id = 1; id <= 3; id++) await insert(one, id)
    await cluster.converged()
    await eventually('they are in quarantine', () => aside(two) === 3)
    network.skew('node2', 0)
    await equal(nodes)
    await eventually('it is logged', () =>
      lines.get('node2 again')!.some(({ text, details }) => text === 'quarantine released' && details.applied === 3),
    )
  })

  it('is applied after a restart with the right clock', async (test) => {
    const { network, cluster, nodes } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    await two.stop()
    network.skew('node2', -2 * HOUR_MS)
    await two.start()
    await insert(one, 1)
    await cluster.converged()
    await eventually('it is in quarantine', () => aside(two) === 1)
    await two.stop()
    network.skew('node2', 0)
    await two.start()
    await equal(nodes)
  })

  it('waits while its source is away: the source may have voided it', async (test) => {
    const { network, clock, cluster, nodes } = await open(test)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    network.skew('node1', HOUR_MS)
    await insert(one, 1, { version: 'future' })
    network.skew('node1', 0)
    await cluster.converged()
    network.cut('node1')
    await one.cluster.restamp()
    await clock.advance(100)
    await insert(two, 1, { version: 'two' })
    pass(network, nodes, HOUR_MS)
    await clock.advance(3_000)
    assert.equal(aside(two), 1)
    network.heal('node1')
    await clock.advance(10_000)
    await equal(nodes)
    assert.equal(rows(one)[0]!.version, 'two')
  })
})
