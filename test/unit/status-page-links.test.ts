// The links between peers that the status page shows: what peers answer, when they are asked, and what is shown of it.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { PeerLink } from '../../lib/cluster/peer-links.ts'
import { clusterError } from '../../lib/errors.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { decodeResponse, encode } from '../../lib/peers/protocol.ts'
import { Monitor } from '../../lib/status-page/monitor.ts'
import type { LinkRow, Snapshot } from '../../lib/status-page.ts'
import { MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'
import { systemTimers } from '../../lib/util/timers.ts'
import { peerLinks, StatusView } from '../support/status-view.ts'

const names = (count: number) => Array.from({ length: count }, (_, index) => `node${index + 2}`)
const others = (peers: readonly string[], node: string) => ['node1', ...peers.filter((peer) => peer !== node)]

/** Every peer replicates with every other one; `change` edits each link that a peer describes. */
function open(t: TestContext, peers: readonly string[], change: (node: string, link: PeerLink) => void = () => {}) {
  const clock = new TestClock({ stopped: true })
  const source = new StatusView({ peers })
  source.linksOf = (node) => peerLinks(others(peers, node), (link) => change(node, link))
  const monitor = new Monitor(source.view, clock)
  t.after(() => monitor.close())
  const snapshot = async () => {
    await clock.advance(500)
    return JSON.parse(monitor.snapshot()) as Snapshot
  }
  return { clock, source, monitor, snapshot, watch: () => monitor.watch(() => {}) }
}

const brief = ({ from, to, state }: LinkRow) => `${from} ${to} ${state}`

test('a node answers how it replicates with each of its peers, and the other nodes see the links between them', async (t) => {
  const cluster = await startCluster(3, { network: new MemoryNetwork(), tables: [{ database: 'dev', table: 'dog' }] })
  t.after(() => cluster.close())
  const { view } = cluster.node('node1').cluster
  await cluster.node('node2').host.insert('dev', 'dog', { id: 1 })
  await cluster.converged()
  const links = await view.linksOf('node3')
  assert.deepEqual(
    links.map(({ node, up, received }) => [node, up, received?.state, received?.tables, received?.lag]),
    [
      ['node1', true, 'live', 1, 0],
      ['node2', true, 'live', 1, 0],
    ],
  )
  assert.equal(links[1]!.received!.applied, 1)
  assert.equal(links[1]!.sent!.tables, 1)
  const monitor = new Monitor(view)
  t.after(() => monitor.close())
  const stop = monitor.watch(() => {})
  const { promise, resolve } = withResolvers<Snapshot>()
  const polling = setInterval(() => {
    const snapshot = JSON.parse(monitor.snapshot()) as Snapshot
    if (snapshot.links.length === 2) resolve(snapshot)
  }, 50)
  t.after(() => clearInterval(polling))
  const { links: rows } = await promise
  stop()
  assert.deepEqual(rows.map(brief).sort(), ['node2 node3 live', 'node3 node2 live'])
})

function withResolvers<T>() {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((done) => {
    resolve = done
  })
  return { promise, resolve }
}

test('an unknown peer, and one of HarperDB, is not asked', async (t) => {
  const cluster = await startCluster(2, { network: new MemoryNetwork(), tables: [{ database: 'dev', table: 'dog' }] })
  t.after(() => cluster.close())
  await assert.rejects(cluster.node('node1').cluster.view.linksOf('node9'), { code: 'peer_rejected' })
})

test('a node that does not describe its links answers that it does not know the request', async (t) => {
  let answer = async (_data: Uint8Array): Promise<Uint8Array> => new Uint8Array()
  const mesh = {
    timers: systemTimers,
    session: 's',
    listen() {},
    announce() {},
    serve: (serve: typeof answer) => (answer = serve),
  }
  const host = { info: () => ({}) }
  const peers = new Peers({
    mesh,
    host,
    node: 'node2',
    logger: silentLogger,
    positions: () => [],
    listener: {},
  } as never)
  peers.start()
  t.after(() => peers.close())
  const { status, message } = decodeResponse(await answer(encode({ operation: 'peer_links', v: 1 })))!
  assert.deepEqual([status, message], ['error', "Operation 'peer_links' not found"])
})

test('peers are asked only while a page is open, each every five seconds', async (t) => {
  const { clock, source, watch, snapshot } = open(t, names(2))
  await clock.advance(60_000)
  await snapshot()
  assert.deepEqual(source.asked, [])
  const [one, other] = [watch(), watch()]
  await clock.advance(12_000)
  assert.deepEqual(source.asked.length, 6)
  one()
  await clock.advance(5_000)
  assert.deepEqual(source.asked.length, 8)
  other()
  await clock.advance(60_000)
  assert.deepEqual([source.asked.length, (await snapshot()).links], [8, []])
})

test('a node that goes down or comes up is a reason to ask sooner, but not more than once a second', async (t) => {
  const { clock, source, watch } = open(t, names(2))
  watch()
  await clock.advance(2_000)
  source.emit('peer:down', { node: 'node3' })
  await clock.advance(1_100)
  assert.equal(source.asked.length, 4)
  for (let index = 0; index < 20; index++) {
    source.emit('peer:up', { node: 'node3' })
    await clock.advance(100)
  }
  assert.equal(source.asked.length, 8)
})

test('pages that open and close do not make more questions, and many peers are asked ten times a second together', async (t) => {
  const { clock, source, watch } = open(t, names(100))
  for (let index = 0; index < 10; index++) {
    const stop = watch()
    await clock.advance(100)
    stop()
  }
  assert.equal(source.asked.length, 100)
  watch()
  await clock.advance(30_000)
  assert.equal(source.asked.length, 400)
})

test('a peer that is down is not asked, and one that does not know the request is asked again ten minutes later', async (t) => {
  const { clock, source, watch, snapshot } = open(t, names(3))
  const answer = source.linksOf
  source.linksOf = (node) => {
    if (node === 'node2') throw clusterError('peer_rejected', node, "Operation 'peer_links' not found")
    return answer(node)
  }
  source.down.add('node3')
  watch()
  await clock.advance(60_000)
  assert.deepEqual(new Set(source.asked.slice(2)), new Set(['node4']))
  // The links of the silent peer are known from the other end.
  assert.deepEqual((await snapshot()).links.map(brief).sort(), [
    'node2 node4 live',
    'node3 node4 live',
    'node4 node2 live',
    'node4 node3 live',
  ])
  await clock.advance(600_000)
  const asked = () => source.asked.filter((node) => node === 'node2').length
  assert.equal(asked(), 2)
  // It restarts within one interval, as another version.
  source.emit('peer:down', { node: 'node2', reason: 'no heartbeat' })
  source.emit('peer:up', { node: 'node2' })
  await clock.advance(2_000)
  assert.equal(asked(), 3)
})

test('a peer that refuses the request for another reason is asked again after the usual interval', async (t) => {
  const { clock, source, watch, snapshot } = open(t, names(2))
  const answer = source.linksOf
  source.linksOf = () => {
    throw clusterError('peer_rejected', 'node2', 'its answer is unreadable')
  }
  watch()
  await clock.advance(1_000)
  source.linksOf = answer
  await clock.advance(5_000)
  assert.deepEqual((await snapshot()).links.map(brief), ['node3 node2 live', 'node2 node3 live'])
})

test('of what a peer answers, only links to peers are kept', async (t) => {
  const { clock, source, watch, snapshot } = open(t, names(3))
  const all = source.view.peers()
  let known = all.filter(({ node }) => node !== 'node4')
  Object.assign(source.view, { peers: () => known })
  watch()
  await clock.advance(1_000)
  known = all
  assert.deepEqual(
    (await snapshot()).links.filter(({ to }) => to === 'node4'),
    [],
  )
  await clock.advance(5_000)
  assert.equal((await snapshot()).links.filter(({ to }) => to === 'node4').length, 2)
})

test('the figures of a link are those of the subscriber, and its state is the worse of both ends', async (t) => {
  const { clock, watch, snapshot } = open(t, names(3), (node, link) => {
    if (node === 'node2' && link.node === 'node3')
      Object.assign(link.received!, { lag: 7, lagSeconds: 3, state: 'catching-up' })
    if (node === 'node3' && link.node === 'node4') link.up = false
  })
  watch()
  await clock.advance(5_000)
  const { links, linkCount } = await snapshot()
  assert.deepEqual([links.length, linkCount], [6, 6])
  assert.deepEqual(links.slice(0, 3).map(brief), ['node4 node3 down', 'node3 node4 down', 'node3 node2 catching-up'])
  assert.deepEqual([links[2]!.lag, links[2]!.lagSeconds], [7, 3])
})

test('rates are computed from two answers, and not from numbers that begin again', async (t) => {
  let applied = 100
  const { clock, watch, snapshot } = open(t, names(2), (_node, link) => {
    link.received!.applied = applied
  })
  watch()
  assert.equal((await snapshot()).links[0]!.rate, undefined)
  applied = 200
  await clock.advance(5_000)
  assert.equal((await snapshot()).links[0]!.rate, 20)
  applied = 5
  await clock.advance(5_000)
  assert.equal((await snapshot()).links[0]!.rate, undefined)
})

test('with many peers, only interrupted links between peers that are up are shown, and the size is bounded', async (t) => {
  const peers = names(100)
  let isWrong = (_one: string, _other: string) => false
  const { clock, source, watch, snapshot } = open(t, peers, (node, link) => {
    if (isWrong(node, link.node)) link.up = false
  })
  watch()
  await clock.advance(10_000)
  const well = await snapshot()
  assert.deepEqual([well.links, well.linkCount], [[], 9_900])
  isWrong = (one, other) => one === 'node7' && other === 'node8'
  source.down.add('node9')
  await clock.advance(10_000)
  assert.deepEqual((await snapshot()).links.map(brief).sort(), ['node7 node8 down', 'node8 node7 down'])
  isWrong = () => true
  await clock.advance(10_000)
  const { links } = await snapshot()
  assert.equal(links.length, 400)
  assert.ok(JSON.stringify(links).length < 50_000)
})
