// A node that is down, or a pause, costs requests for each node, not for each of its tables.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Mesh } from '../../lib/index.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { encode } from '../../lib/peers/protocol.ts'
import { NodeGates } from '../../lib/replication/subscribe/node-gates.ts'
import { eventually, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const TABLES = 100
const tables = Array.from({ length: TABLES }, (_, index) => ({ database: 'dev', table: `t${index}`, primaryKey: 'id' }))

type Counts = { streamState: number; read: number; request: number }

/** Counts the requests of every mesh. */
class CountingNetwork extends MemoryNetwork {
  readonly counts: Counts = { streamState: 0, read: 0, request: 0 }

  override mesh(): Mesh {
    const mesh = super.mesh()
    for (const name of ['streamState', 'read', 'request'] as const) {
      const original = (mesh[name] as (...args: unknown[]) => unknown).bind(mesh)
      Object.assign(mesh, {
        [name]: (...args: unknown[]) => {
          this.counts[name]++
          return original(...args)
        },
      })
    }
    return mesh
  }

  /** The requests since the previous call. */
  take(): Counts {
    const taken = { ...this.counts }
    Object.assign(this.counts, { streamState: 0, read: 0, request: 0 })
    return taken
  }
}

async function startTwo(t: { after(work: () => Promise<void>): void }) {
  const clock = new TestClock({ stopped: true })
  const network = new CountingNetwork({ clock })
  const cluster = await startCluster(2, { network, tables })
  t.after(() => cluster.close())
  await clock.advance(5_000)
  network.take()
  const [one, two] = cluster.nodes
  return { clock, network, cluster, one: one!, two: two! }
}

test('a node that is down gets one probe at a time for all of its tables', async (t) => {
  const { clock, network, cluster, one, two } = await startTwo(t)
  await one.stop()
  await clock.advance(3_000)
  network.take()
  await clock.advance(60_000)
  const { streamState, read, request } = network.take()
  assert.ok(streamState + read <= 80, `${streamState} and ${read} requests in a minute`)
  assert.ok(request <= 20, `${request} requests to compare subscriptions`)
  for (const { state, error } of two.cluster.subscriptions()) {
    assert.equal(state, 'pending')
    assert.match(error ?? '', /no node 'node1' responds/)
  }
  const restarted = one.start()
  await clock.advance(3_000)
  await restarted
  await one.host.insert('dev', 't0', { id: 1 })
  await clock.advance(3_000)
  await cluster.converged()
  assert.ok(two.cluster.subscriptions().every(({ state }) => state === 'live'))
})

test('missed heartbeats cost one comparison, and no request for a table', async (t) => {
  const { clock, network, cluster, one } = await startTwo(t)
  network.cut('node1', 'node2', { silent: true })
  await clock.advance(10_000)
  // Its messages are lost.
  await one.host.insert('dev', 't7', { id: 1 })
  network.take()
  network.heal('node1', 'node2')
  await clock.advance(2_000)
  const { streamState, read, request } = network.take()
  // Each node compares once: the tables, and the subscriptions in pages of 100. It reports its positions in one request.
  assert.ok(request <= 2 * (2 + TABLES / 100), `${request} requests`)
  assert.ok(streamState + read <= 4, `${streamState} and ${read} requests for tables`)
  await clock.advance(3_000)
  await cluster.converged()
})

test('a pause of the process takes no node down', async (t) => {
  // A process that was paused runs one timer, late, and reads its messages after that.
  let elapsed = 0
  let tick = () => {}
  let receive = (_: Uint8Array) => {}
  const events: string[] = []
  const mesh = {
    timers: {
      now: () => elapsed,
      elapsed: () => elapsed,
      after: () => () => {},
      every: (_: number, work: () => void) => {
        tick = work
        return () => {}
      },
    },
    session: 's',
    announce() {},
    serve() {},
    listen: (handler: typeof receive) => {
      receive = handler
    },
  } as unknown as Mesh
  const peers = new Peers({
    mesh,
    host: {} as never,
    node: 'node1',
    clusteringPort: 1,
    operationsApiPort: undefined,
    logger: { debug() {}, info() {}, warn() {}, error() {} },
    requestTimeout: 1_000,
    answerRows: async () => undefined,
    negotiate: async () => undefined,
    positions: () => [],
    listener: {
      up: (node) => events.push(`up ${node}`),
      down: (node) => events.push(`down ${node}`),
      returned: (node, _restarted, silence) => events.push(`returned ${node} after ${silence}`),
      rejected: () => {},
      superseded: () => {},
      streams: () => {},
      time: () => {},
    },
  })
  t.after(() => peers.close())
  peers.start()
  const heartbeat = () => receive(encode({ node: 'node2', instance: 'i', started: 0, session: 's', streams: [] }))
  for (let second = 0; second < 3; second++) {
    elapsed += 1_000
    tick()
    heartbeat()
  }
  elapsed += 10_000
  tick()
  for (let second = 0; second < 10; second++) heartbeat()
  assert.deepEqual(events, [
    `returned node2 after ${Number.POSITIVE_INFINITY}`,
    'up node2',
    'returned node2 after 10000',
  ])
  // Without heartbeats it is down.
  for (let second = 0; second < 5; second++) {
    elapsed += 1_000
    tick()
  }
  assert.equal(events.at(-1), 'down node2')
})

test('the gate of a node', async (t) => {
  const clock = new TestClock({ stopped: true })
  const source = (table: number, node = 'node2') => ({ node, database: 'dev', table: `t${table}` })
  const options = { timeout: 1_000 }
  const state = { description: '', created: '', firstSequence: 1, lastSequence: 0, messages: 0 }
  const setUp = () => {
    const calls: string[] = []
    const reachable: string[] = []
    const down = { streams: false, readers: false }
    const pending: (() => void)[] = []
    let held = false
    const answer = async <T>(kind: 'streams' | 'readers', value: T): Promise<T> => {
      calls.push(kind)
      if (held) await new Promise<void>((resolve) => pending.push(resolve))
      if (down[kind]) throw new MeshError('no_responders')
      return value
    }
    const gates = new NodeGates(
      {
        timers: clock,
        streamState: () => answer('streams', state),
        sequenceAt: () => answer('readers', 1),
        messageAt: () => answer('streams', undefined),
        read: () => answer('readers', {} as never),
      },
      (node) => reachable.push(node),
    )
    const hold = () => {
      held = true
      return () => {
        held = false
        for (const resolve of pending.splice(0)) resolve()
      }
    }
    return { calls, reachable, down, gates, hold, pending }
  }
  const failed = (work: Promise<unknown>) => assert.rejects(work, { code: 'no_responders' })

  await t.test('lets one probe pass, and reports when it is answered', async () => {
    const { gates, calls, down, reachable } = setUp()
    down.streams = true
    for (let table = 0; table < 100; table++) await failed(gates.streamState(source(table), options))
    assert.equal(calls.length, 1)
    await clock.advance(1_000)
    await Promise.all(Array.from({ length: 100 }, (_, table) => failed(gates.streamState(source(table), options))))
    assert.equal(calls.length, 2)
    // Other nodes have gates of their own.
    down.streams = false
    await gates.streamState(source(0, 'node3'), options)
    await failed(gates.streamState(source(0), options))
    await clock.advance(1_000)
    await gates.streamState(source(0), options)
    assert.deepEqual(reachable, ['node2'])
    await gates.read(source(0), 1, { ...options, maxMessages: 1 })
  })

  await t.test('stays closed while the server answers and the process does not', async () => {
    const { gates, calls, down, reachable } = setUp()
    down.readers = true
    for (let round = 0; round < 5; round++) {
      await clock.advance(1_000)
      for (let table = 0; table < 50; table++)
        await gates
          .streamState(source(table), options)
          .then(() => gates.read(source(table), 1, { ...options, maxMessages: 1 }))
          .catch(() => {})
    }
    assert.deepEqual([calls.length, reachable], [10, []])
    down.readers = false
    gates.open('node2')
    await gates.read(source(0), 1, { ...options, maxMessages: 1 })
  })

  await t.test('lets 64 requests pass at a time, and forgets those that are aborted', async () => {
    const { gates, calls, hold } = setUp()
    const release = hold()
    const abort = new AbortController()
    const requests = Array.from({ length: 300 }, (_, table) =>
      gates
        .streamState(source(table), { ...options, ...(table % 2 ? { signal: abort.signal } : {}) })
        .catch((error) => error.code),
    )
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(calls.length, 64)
    abort.abort()
    release()
    const results = await Promise.all(requests)
    assert.equal(results.filter((each) => each === state).length, 150 + 32)
    assert.equal(results.filter((each) => each === 'aborted').length, 150 - 32)
  })

  await t.test('fails all that wait when one fails', async () => {
    const { gates, calls, down, hold } = setUp()
    const release = hold()
    down.streams = true
    const requests = Array.from({ length: 300 }, (_, table) => failed(gates.streamState(source(table), options)))
    await new Promise((resolve) => setImmediate(resolve))
    release()
    await Promise.all(requests)
    assert.equal(calls.length, 64)
  })
})

test('waiting subscriptions notice that a node is back by the one probe', async (t) => {
  const { clock, network, cluster, one, two } = await startTwo(t)
  network.crash('node1')
  await clock.advance(10_000)
  network.take()
  network.restart('node1')
  await clock.advance(3_000)
  await eventually('all are live', () => two.cluster.subscriptions().every(({ state }) => state === 'live'))
  const { streamState, read } = network.take()
  // node1 also looks at its own streams, and both read again.
  assert.ok(read <= 2 * TABLES + 10 && streamState <= 4 * TABLES, `${streamState} and ${read} requests`)
  await one.host.insert('dev', 't1', { id: 1 })
  await clock.advance(2_000)
  await cluster.converged()
})
