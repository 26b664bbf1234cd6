// Requests between nodes: repeated, aborted, unanswered, malformed, hostile and concurrent. None may leave a state that the first
// complete request would not leave.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Packr } from 'msgpackr'
import { parse, stringify } from 'yaml'
import { bounds } from '../../lib/cluster/options.ts'
import { makeTimestamp, wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import {
  ClusterError,
  type ClusterManager,
  type ClusterOptions,
  type EventName,
  type Subscription,
} from '../../lib/index.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { PROTOCOL_VERSION } from '../../lib/peers/protocol.ts'
import { eventually, type MemoryNetwork, TestClock } from '../../lib/testing.ts'
import { Gate } from '../support/gate.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { type MemoryNode, Scene } from '../support/memory-scene.ts'
import fc from '../support/properties.ts'
import { randomNumbers, seedOf } from '../support/random.ts'

const seed = seedOf()
const packr = new Packr({ useRecords: false, mapsAsObjects: true })
const nothing = { state() {}, rejected() {}, linked() {} }

type Direction = 'publish' | 'subscribe' | 'both' | 'none'
/** `dog: 'both'` as in the body of an operation. */
const desired = (tables: Record<string, Direction>, more: object = {}) =>
  Object.entries(tables).map(([table, direction]) => ({
    schema: 'dev',
    table,
    publish: direction === 'publish' || direction === 'both',
    subscribe: direction === 'subscribe' || direction === 'both',
    ...more,
  }))
/** The same as in messages between nodes. */
const onWire = (tables: Record<string, Direction>, more: object = {}) =>
  desired(tables, { hash_attribute: 'id', attributes: ['id'], ...more })

type Row = [database: string, table: string, publish: boolean, subscribe: boolean, removed: boolean, revision: string]
type Answer = { status: string; message: unknown }
/** A sent request. */
type Sent = { to: string; operation: string; data: Uint8Array }
/** Delays a message; receives its operation. */
type Hook = (operation: string) => unknown

const manifestEvents = ['manifest:changed', 'node:added', 'node:updated', 'node:removed', 'config:rejected'] as const
const watched = [...manifestEvents, 'connection:rejected', 'listener:failed'] as const satisfies readonly EventName[]

class PeerNode {
  readonly host = new MemoryHost([
    ['dev', 'dog'],
    ['dev', 'cat'],
  ])
  readonly name: string
  readonly events: { name: EventName; payload: unknown }[] = []
  /** Requests to other nodes. */
  readonly sent: Sent[] = []
  /** Called before a peer request is handled, and before its answer is sent. */
  before: Hook | undefined
  after: Hook | undefined
  readonly #world: World
  #node!: MemoryNode
  mesh!: Mesh

  constructor(world: World, name: string) {
    this.#world = world
    this.name = name
  }

  get cluster(): ClusterManager {
    return this.#node.cluster
  }

  get file(): string {
    return this.#node.configFile
  }

  async start(): Promise<void> {
    const options = this.#options()
    this.#node = await this.#world.scene.start(this.name, { options, host: this.host })
    this.#watch()
  }

  async reopen(): Promise<void> {
    await this.#node.reopen(this.#options())
    this.#watch()
  }

  #watch(): void {
    for (const name of watched) this.cluster.on(name, (payload: unknown) => void this.events.push({ name, payload }))
  }

  #options(): Partial<ClusterOptions> {
    const mesh = this.#world.network.mesh()
    const request = mesh.request.bind(mesh)
    const serve = mesh.serve.bind(mesh)
    mesh.request = (to, data, options) => {
      this.sent.push({ to, operation: packr.unpack(data).operation, data })
      return request(to, data, options)
    }
    mesh.serve = (handler) =>
      serve(async (data) => {
        let operation = ''
        try {
          operation = packr.unpack(data)?.operation ?? ''
        } catch {}
        await this.before?.(operation)
        const answer = await handler(data)
        await this.after?.(operation)
        return answer
      })
    this.mesh = mesh
    return { mesh, requestTimeout: this.#world.requestTimeout }
  }

  /** `dog both` for each subscription with that node, sorted. */
  held(node: string): string[] {
    return texts(this.cluster.manifest.nodes.find(({ name }) => name === node)?.subscriptions)
  }

  /** Resolves when revisions.json notes that each of its subscriptions has begun. That takes its own time after an agreement. */
  async allBegun(): Promise<void> {
    const path = join(dirname(this.file), 'clustering', 'revisions.json')
    const desired = this.cluster.subscriptions().map(({ source: { node, database, table } }) => [node, database, table])
    await eventually(`the subscriptions of ${this.name} have begun`, async () => {
      const { begun } = JSON.parse(await readFile(path, 'utf8')) as { begun: Record<string, [string, string][]> }
      const found = Object.entries(begun).flatMap(([node, tables]) => tables.map((table) => [node, ...table]))
      return String(found.sort()) === String(desired.sort())
    })
  }

  /** The revisions on disk, once they have the same subscriptions as the manifest. */
  async #registers(): Promise<string> {
    const path = join(dirname(this.file), 'clustering', 'revisions.json')
    const desired = this.cluster.manifest.nodes.map(({ name, subscriptions }) => [name, ...texts(subscriptions)]).sort()
    return eventually(`${this.name} writes its revisions`, async () => {
      const text = await readFile(path, 'utf8').catch(() => '')
      const { nodes } = (text ? JSON.parse(text) : { nodes: {} }) as { nodes: Record<string, Row[]> }
      const noted = Object.entries(nodes).flatMap(([name, rows]) => {
        const held = rows.filter(([, , , , removed]) => !removed)
        const subscriptions = held.map(([database, table, publish, subscribe]) => ({
          database,
          table,
          publish,
          subscribe,
        }))
        return held.length > 0 ? [[name, ...texts(subscriptions)]] : []
      })
      return String(noted.sort()) === String(desired) && [text]
    }).then(([text]) => text!)
  }

  /** Everything that a request could change, except positions in streams. */
  async picture() {
    // Wait for unexpected work after an answer.
    await delay(30)
    const registers = await this.#registers()
    const { ino, mtimeNs, size } = await stat(this.file, { bigint: true })
    return {
      manifest: this.cluster.manifest,
      file: await readFile(this.file, 'utf8'),
      // A rewritten file has another inode.
      written: `${ino} ${mtimeNs} ${size}`,
      registers,
      events: this.events.map(({ name }) => name),
      tables: [...this.host.tables.keys()],
      subscriptions: this.cluster.subscriptions().map(({ source }) => source),
    }
  }
}

const texts = (subscriptions: readonly Subscription[] = []): string[] =>
  subscriptions
    .map(({ table, publish, subscribe }) =>
      [table, publish && subscribe ? 'both' : publish ? 'publish' : subscribe ? 'subscribe' : 'none'].join(' '),
    )
    .sort()
const mirrored = (held: string[]): string[] =>
  held
    .map((text) => text.replace(/(publish|subscribe)$/, (word) => (word === 'publish' ? 'subscribe' : 'publish')))
    .sort()

class World {
  readonly scene: Scene
  readonly requestTimeout: number
  readonly nodes: PeerNode[] = []
  readonly #probes: Mesh[] = []

  private constructor(scene: Scene, requestTimeout: number) {
    this.scene = scene
    this.requestTimeout = requestTimeout
  }

  get network(): MemoryNetwork {
    return this.scene.network
  }

  /** Nodes of these names in a scope that ends with the test. */
  static async open(test: TestContext, names: string[], requestTimeout = 30_000, clock?: TestClock): Promise<World> {
    const world = new World(new Scene(test, clock && { clock }), requestTimeout)
    for (const name of names) {
      const node = new PeerNode(world, name)
      await node.start()
      world.nodes.push(node)
    }
    return world
  }

  /** A node without a manager. */
  async probe(name: string): Promise<Probe> {
    const mesh = this.network.mesh()
    await mesh.open(name, { hub: [], leaf: [] }, nothing)
    this.#probes.push(mesh)
    return new Probe(name, mesh)
  }

  differences(): string[] {
    return this.nodes.flatMap((node, index) =>
      this.nodes
        .slice(index + 1)
        .filter((other) => String(node.held(other.name)) !== String(mirrored(other.held(node.name))))
        .map((other) => `${node.name}: ${node.held(other.name)}; ${other.name}: ${other.held(node.name)}`),
    )
  }

  /** Both nodes hold mirror images, in memory and in the file. */
  async converged(timeout = 15_000): Promise<void> {
    await eventually(
      () => `mirror images: ${this.differences().join(' | ')}`,
      () => this.differences().length === 0,
      timeout,
    )
    for (const { file, cluster } of this.nodes)
      assert.deepEqual(new ConfigText(await readFile(file, 'utf8')).config?.manifest, cluster.manifest)
  }
}

class Probe {
  readonly name: string
  readonly mesh: Mesh

  constructor(name: string, mesh: Mesh) {
    this.name = name
    this.mesh = mesh
  }

  /** Sends bytes unchanged; other values as MessagePack. */
  async send(to: string, body: unknown, timeout = 10_000): Promise<Answer> {
    const data = body instanceof Uint8Array ? body : packr.pack(body)
    return packr.unpack(await this.mesh.request(to, data, { timeout }))
  }

  request(to: string, operation: string, more: object = {}): Promise<Answer> {
    return this.send(to, { operation, node_name: this.name, ...more })
  }
}

/** A readable text without internals. */
function assertRefused(answer: Answer, what: string): void {
  assert.equal(answer.status, 'error', `${what} is answered with ${JSON.stringify(answer)}`)
  assert.equal(typeof answer.message, 'string', what)
  assert.ok(answer.message !== '', what)
  assert.doesNotMatch(String(answer.message), /\n\s+at |\bat .*:\d+|node_modules|file:\/\/|\.yaml/, what)
}

const codeOf = async (work: Promise<unknown>): Promise<string> => {
  try {
    await work
  } catch (error) {
    return error instanceof ClusterError ? error.code : String(error)
  }
  return 'resolved'
}

const pair = async (test: TestContext, requestTimeout?: number, clock?: TestClock) => {
  const world = await World.open(test, ['node1', 'node2'], requestTimeout, clock)
  const [node1, node2] = world.nodes as [PeerNode, PeerNode]
  return { world, node1, node2 }
}

describe('a request that is repeated', { concurrency: true }, () => {
  /** Every operation that sends requests, in sequence; `between` runs after each. */
  async function story(
    { world, node1, node2 }: Awaited<ReturnType<typeof pair>>,
    between: (what: string, sent: Sent[]) => Promise<void>,
  ): Promise<void> {
    const { cluster } = node1
    const node_name = 'node2'
    const start_time = '2024-01-01T00:00:00.000Z'
    const steps: [string, () => Promise<unknown>][] = [
      ['add_node', () => cluster.addNode({ node_name, subscriptions: desired({ dog: 'both' }) })],
      ['update_node', () => cluster.updateNode({ node_name, subscriptions: desired({ dog: 'publish', cat: 'both' }) })],
      [
        'set_node_replication',
        () => cluster.setNodeReplication({ node_name, subscriptions: desired({ dog: 'subscribe' }, { start_time }) }),
      ],
      ['cluster_status', () => cluster.status()],
      [
        'configure_cluster',
        () => cluster.configureCluster({ connections: [{ node_name, subscriptions: desired({ cat: 'publish' }) }] }),
      ],
      [
        'an edit of the file',
        async () => {
          const text = await readFile(node1.file, 'utf8')
          await writeFile(node1.file, text.replace('subscribe: false', 'subscribe: true'))
          await eventually('the edit is agreed on', () => String(node2.held('node1')) === 'cat both')
        },
      ],
      ['remove_node', () => cluster.removeNode({ node_name })],
      ['add_node, again', () => cluster.addNode({ node_name, subscriptions: desired({ cat: 'publish' }) })],
    ]
    for (const [what, step] of steps) {
      node1.sent.length = 0
      await step()
      await world.converged()
      // A request for rows is refused once the table is no longer published.
      const changing = node1.sent.filter(({ operation }) => operation !== 'read_rows')
      await between(what, changing)
    }
  }

  it('two and three times changes nothing: no state, no file, no event', async (test) => {
    const nodes = await pair(test)
    const { node2 } = nodes
    const probe = await nodes.world.probe('probe')
    const seen = new Set<string>()
    await story(nodes, async (what, sent) => {
      assert.ok(sent.length > 0, what)
      for (const { operation } of sent) seen.add(operation)
      const before = await node2.picture()
      for (const times of [2, 3])
        for (const { to, operation, data } of sent) {
          const answer = await probe.send(to, data)
          assert.equal(answer.status, 'success', `${what}: ${operation}, ${times} times`)
        }
      assert.deepEqual(await node2.picture(), before, what)
      // Concurrently as well.
      await Promise.all([...sent, ...sent, ...sent].map(({ to, data }) => probe.send(to, data)))
      assert.deepEqual(await node2.picture(), before, `${what}, at once`)
    })
    // Reports are sent in their own time.
    seen.delete('report_positions')
    assert.deepEqual([...seen].sort(), [
      'add_node',
      'cluster_status',
      'compare_node',
      'describe_all',
      'remove_node',
      'update_node',
    ])
  })

  it('does not undo later changes', async (test) => {
    const nodes = await pair(test)
    const { node1, node2 } = nodes
    const probe = await nodes.world.probe('probe')
    const all: Sent[] = []
    await story(nodes, async (what, sent) => {
      all.push(...sent)
      const before = await node2.picture()
      for (const order of [all, all.toReversed()])
        for (const { to, operation, data } of order) {
          assert.equal((await probe.send(to, data)).status, 'success', `${operation} after ${what}`)
          assert.deepEqual(node2.cluster.manifest, before.manifest, `${operation} after ${what}`)
        }
      await Promise.all(all.map(({ to, data }) => probe.send(to, data)))
      assert.deepEqual(await node2.picture(), before, what)
    })
    const { manifest } = node2.cluster
    // The same after the remote node was reopened from its disk.
    await node2.reopen()
    for (const { to, data } of all) await probe.send(to, data)
    assert.deepEqual(node2.cluster.manifest, manifest)
    assert.deepEqual(node1.held('node2'), ['cat publish'])
  })

  it('moves no checkpoint', async (test) => {
    const { world, node1, node2 } = await pair(test)
    const probe = await world.probe('probe')
    const subscriptions = desired({ dog: 'publish' }, { start_time: '2024-01-01T00:00:00.000Z' })
    const source = { node: 'node1', database: 'dev', table: 'dog' }
    await node1.cluster.addNode({ node_name: 'node2', subscriptions })
    for (const id of ['a', 'b', 'c'])
      await node1.host.write(id, { operation: 'insert', database: 'dev', table: 'dog', records: [{ id }] })
    await eventually('node2 has read it', () => node2.host.applied.length === 3)
    const old = node1.sent.filter(({ operation }) => operation === 'add_node')
    const later = desired({ dog: 'publish' }, { start_time: '2024-06-01T00:00:00.000Z' })
    await node1.cluster.updateNode({ node_name: 'node2', subscriptions: later })
    await eventually('node2 has read it again', async () => (await node2.host.loadCheckpoint(source))?.sequence === 3)
    const before = await node2.host.loadCheckpoint(source)
    for (const { to, data } of old) await probe.send(to, data)
    await delay(100)
    assert.deepEqual(await node2.host.loadCheckpoint(source), before)
    // A removed subscription has no checkpoint.
    await node1.cluster.removeNode({ node_name: 'node2' })
    await eventually('it is forgotten', async () => !(await node2.host.loadCheckpoint(source)))
    for (const { to, data } of old) await probe.send(to, data)
    await delay(100)
    assert.equal(await node2.host.loadCheckpoint(source), undefined)
  })
})

describe('an operation that is aborted', { concurrency: 8 }, () => {
  const node_name = 'node2'
  const start = desired({ dog: 'both', cat: 'publish' })
  const later = desired({ dog: 'publish', cat: 'both' })
  type Case = {
    name: string
    /** It starts with a negotiation. */
    known: boolean
    run(cluster: ClusterManager, signal: AbortSignal): Promise<unknown>
    /** Requests that it waits for. */
    asks: string[]
    turn: boolean
  }
  const cases: Case[] = [
    {
      name: 'add_node',
      known: false,
      run: (cluster, signal) => cluster.addNode({ node_name, subscriptions: later }, { signal }),
      asks: ['describe_all', 'add_node'],
      turn: true,
    },
    {
      name: 'update_node',
      known: true,
      run: (cluster, signal) => cluster.updateNode({ node_name, subscriptions: later }, { signal }),
      asks: ['describe_all', 'update_node'],
      turn: true,
    },
    {
      name: 'set_node_replication',
      known: true,
      run: (cluster, signal) => cluster.setNodeReplication({ node_name, subscriptions: later }, { signal }),
      asks: ['describe_all', 'update_node'],
      turn: true,
    },
    {
      name: 'configure_cluster',
      known: true,
      run: (cluster, signal) =>
        cluster.configureCluster({ connections: [{ node_name, subscriptions: later }] }, { signal }),
      asks: ['describe_all', 'update_node'],
      turn: true,
    },
    {
      name: 'configure_cluster without the node',
      known: true,
      run: (cluster, signal) => cluster.configureCluster({ connections: [] }, { signal }),
      asks: ['remove_node'],
      turn: true,
    },
    {
      name: 'remove_node',
      known: true,
      run: (cluster, signal) => cluster.removeNode({ node_name }, { signal }),
      asks: ['remove_node'],
      turn: true,
    },
    {
      name: 'cluster_status',
      known: true,
      run: (cluster, signal) => cluster.status({}, { signal }),
      asks: ['cluster_status'],
      turn: false,
    },
  ]

  /** Slower means that it may have waited for an answer. */
  async function atOnce(work: Promise<unknown>): Promise<string> {
    const moment = new AbortController()
    const late = delay(10_000, 'not at once', { signal: moment.signal }).catch(() => '')
    const code = await Promise.race([codeOf(work), late])
    moment.abort()
    return code
  }

  const prepared = async (test: TestContext, { known }: Case) => {
    const nodes = await pair(test, 60_000)
    if (known) await nodes.node1.cluster.addNode({ node_name, subscriptions: start })
    await nodes.world.converged()
    const { node1, node2 } = nodes
    const before = [await node1.picture(), await node2.picture()] as const
    return { ...nodes, before, held: [node1.held('node2'), node2.held('node1')] }
  }

  for (const each of cases) {
    it(`${each.name}: before it began`, async (test) => {
      const { node1, node2, before } = await prepared(test, each)
      node1.sent.length = 0
      assert.equal(await atOnce(each.run(node1.cluster, AbortSignal.abort())), 'aborted')
      assert.deepEqual(node1.sent, [])
      assert.deepEqual([await node1.picture(), await node2.picture()], before)
    })

    if (each.turn)
      it(`${each.name}: while it was queued`, async (test) => {
        const { node1, node2, before } = await prepared(test, each)
        let release = () => {}
        const gate = new Promise<void>((resolve) => {
          release = resolve
        })
        test.after(() => release())
        node2.before = (operation) => operation === 'describe_all' && gate
        const first = codeOf(node1.cluster.updateNode({ node_name, subscriptions: desired({ bird: 'both' }) }))
        const { signal, abort } = abortable()
        const queued = each.run(node1.cluster, signal)
        queued.catch(() => {})
        await delay(20)
        abort()
        assert.equal(await atOnce(queued), 'aborted')
        release()
        // The operation before it was not aborted: its table exists on neither node and is skipped.
        assert.equal(await first, 'resolved')
        assert.deepEqual(getEventListeners(signal, 'abort'), [])
        assert.deepEqual([await node1.picture(), await node2.picture()], before)
      })

    for (const operation of each.asks)
      for (const taken of [false, true])
        it(`${each.name}: while it waits for ${operation}, which was ${taken ? '' : 'not '}accepted`, {
          timeout: 180_000,
        }, async (test) => {
          const { world, node1, node2, held } = await prepared(test, each)
          let release = () => {}
          const gate = new Promise<void>((resolve) => {
            release = resolve
          })
          test.after(() => release())
          const reached = new Promise<void>((resolve) => {
            const hook: Hook = async (asked) => {
              if (asked !== operation) return
              resolve()
              await gate
              // The request was lost.
              if (!taken) throw new Error('lost')
            }
            if (taken) node2.after = hook
            else node2.before = hook
          })
          const { signal, abort } = abortable()
          const work = each.run(node1.cluster, signal)
          work.catch(() => {})
          await reached
          abort()
          assert.equal(await atOnce(work), 'aborted')
          assert.deepEqual(node1.held('node2'), held[0])
          assert.deepEqual(getEventListeners(signal, 'abort'), [])
          node2.before = undefined
          node2.after = undefined
          release()
          // A comparison withdraws a request that may have been accepted, within ten seconds.
          await eventually('as it was', () => String(node2.held('node1')) === String(held[1]), 15_000)
          await world.converged()
          assert.deepEqual(node1.held('node2'), held[0])
          // It does not come back, and does not disturb the next operation.
          await node1.cluster.updateNode({ node_name, subscriptions: desired({ dog: 'none', cat: 'subscribe' }) })
          await world.converged()
          assert.deepEqual(node1.held('node2'), ['cat subscribe', 'dog none'])
        })
  }

  it('cluster_network: while it waits', async (test) => {
    const { world, node1 } = await pair(test)
    world.network.delay('node1', 'node2', 30_000)
    const { signal, abort } = abortable()
    const work = node1.cluster.network({ timeout: 60_000 }, { signal })
    work.catch(() => {})
    await delay(20)
    abort()
    assert.equal(await atOnce(work), 'aborted')
    assert.deepEqual(getEventListeners(signal, 'abort'), [])
    assert.equal(await atOnce(node1.cluster.network({}, { signal: AbortSignal.abort() })), 'aborted')
  })

  it('after the remote node has accepted: all or nothing', { timeout: 180_000 }, async (test) => {
    const { world, node1, node2 } = await pair(test, 60_000)
    const { signal, abort } = abortable()
    node1.host.describe = async () => [] // It must create the tables.
    const { createTable } = MemoryHost.prototype
    node1.host.createTable = async (table) => {
      abort()
      await createTable.call(node1.host, table)
    }
    const code = await atOnce(node1.cluster.addNode({ node_name, subscriptions: later }, { signal }))
    assert.ok(code === 'resolved' || code === 'aborted', code)
    const end = code === 'resolved' ? ['cat both', 'dog publish'] : []
    await eventually(
      'both ends have it or have it not',
      () => String(node1.held('node2')) === String(end) && String(node2.held('node1')) === String(mirrored(end)),
      15_000,
    )
    await world.converged()
  })

  it('and one that fails after the remote node has accepted: withdrawn there', {
    timeout: 180_000,
  }, async (test) => {
    const { world, node1, node2 } = await pair(test)
    await node1.cluster.addNode({ node_name, subscriptions: start })
    await world.converged()
    node1.host.createTable = async () => {
      throw new Error('the disk is full')
    }
    node2.host.tables.set('["dev","bird"]', { database: 'dev', table: 'bird', primaryKey: 'id', attributes: ['id'] })
    const subscriptions = desired({ dog: 'publish', bird: 'both' })
    assert.equal(await codeOf(node1.cluster.updateNode({ node_name, subscriptions })), 'internal')
    await eventually('mirror images', () => world.differences().length === 0, 15_000)
    assert.deepEqual(node1.held('node2'), ['cat publish', 'dog both'])
  })
})

describe('a request that is not answered', { concurrency: 5 }, () => {
  const node_name = 'node2'
  const subscriptions = desired({ dog: 'both' })

  it('times out after five seconds by default', async (test) => {
    const clock = new TestClock()
    const { world, node1 } = await pair(test, bounds.requestTimeout.default, clock)
    const before = await node1.picture()
    world.network.cut('node1', 'node2', { silent: true })
    let isDone = false
    const code = codeOf(node1.cluster.addNode({ node_name, subscriptions })).finally(() => {
      isDone = true
    })
    await clock.advance(4_500)
    assert.equal(isDone, false)
    // A node whose hub does not answer either counts as not listening, which takes one more request.
    await clock.advance(4_500)
    assert.match(await code, /^node_(timeout|not_listening)$/)
    assert.deepEqual(await node1.picture(), before)
  })

  it('fails with a time-out, and its late effects are withdrawn', async (test) => {
    const clock = new TestClock()
    const { world, node1, node2 } = await pair(test, 60_000, clock)
    const answer = new Gate(test)
    node2.after = (operation) => operation === 'add_node' && answer.pass()
    let code = ''
    const asked = codeOf(node1.cluster.addNode({ node_name, subscriptions })).then((result) => {
      code = result
    })
    await answer.reached
    await clock.advance(50_000)
    assert.equal(code, '')
    await clock.advance(15_000)
    await asked
    assert.equal(code, 'node_timeout')
    assert.deepEqual(node1.held('node2'), [])
    answer.open()
    await eventually(
      () => `it is taken back: ${node2.held('node1')}`,
      () => node2.held('node1').length === 0,
    )
    assert.deepEqual(node1.held('node2'), [])
    await eventually('no start is left', () => node1.host.checkpoints.size + node2.host.checkpoints.size === 0)
    node2.after = undefined
    await node1.cluster.addNode({ node_name, subscriptions })
    await world.converged()
    assert.deepEqual(node2.held('node1'), ['dog both'])
  })

  /** node2 has accepted the first request, its answer is held back by the gate, and the nodes have compared meanwhile. */
  async function comparedMeanwhile(test: TestContext, request: object, prepare = async (_: PeerNode[]) => {}) {
    const clock = new TestClock()
    const { world, node1, node2 } = await pair(test, 60_000, clock)
    await prepare([node1, node2])
    const answer = new Gate(test)
    let comparisons = 0
    for (const node of [node1, node2])
      node.after = (operation) => {
        if (operation === 'compare_node') comparisons++
        return operation === 'add_node' && answer.pass()
      }
    const code = codeOf(node1.cluster.addNode({ node_name, subscriptions: desired({ dog: 'both' }, request) }))
    await answer.reached
    // They compare after an edit.
    const edited = parse(await readFile(node2.file, 'utf8'))
    edited.clustering.nodes[0].subscriptions.push({ database: 'dev', table: 'cat', publish: true, subscribe: true })
    await writeFile(node2.file, stringify(edited))
    await eventually('the nodes compare', () => comparisons > 0 && node1.held('node2').includes('cat both'))
    assert.deepEqual([node1.held('node2'), node2.held('node1')], [['cat both'], ['cat both', 'dog both']])
    return { clock, world, node1, node2, answer, code }
  }

  it('is withdrawn too when a comparison has shown it before it failed', async (test) => {
    const { clock, world, node1, node2, code } = await comparedMeanwhile(test, {})
    await clock.advance(65_000)
    assert.equal(await code, 'node_timeout')
    assert.deepEqual(node1.held('node2'), ['cat both'])
    await eventually('it is taken back', () => String(node2.held('node1')) === 'cat both')
    assert.deepEqual([node1.held('node2'), world.differences()], [['cat both'], []])
  })

  it('is done in full when a comparison has shown it before it was answered', async (test) => {
    const request = { copy: true, replace: true }
    const { world, node1, node2, answer, code } = await comparedMeanwhile(test, request, async (nodes) => {
      for (const { name, host } of nodes) host.storeExisting('dev', 'dog', { id: `of ${name}` })
    })
    answer.open()
    assert.equal(await code, 'resolved')
    await world.converged()
    const idsOf = ({ host }: PeerNode) => host.records('dev', 'dog').map(({ id }) => id)
    await eventually(
      () => `the rows are replaced: ${idsOf(node1)}`,
      () => String(idsOf(node1)) === 'of node2',
    )
    assert.deepEqual(idsOf(node2), ['of node2'])
  })

  it('does not delay others: cluster_status', async (test) => {
    const clock = new TestClock()
    const world = await World.open(test, ['node1', 'node2', 'node3'], 60_000, clock)
    const [node1, node2, node3] = world.nodes as [PeerNode, PeerNode, PeerNode]
    for (const { name } of [node2, node3]) await node1.cluster.addNode({ node_name: name, subscriptions })
    const requests = new Gate(test)
    node2.before = () => requests.pass()
    const answered = new Promise<void>((resolve) => {
      node3.after = (operation) => operation === 'cluster_status' && resolve()
    })
    const status = node1.cluster.status()
    await Promise.all([requests.reached, answered])
    await clock.advance(65_000)
    assert.deepEqual(
      (await status).connections.map(({ status }) => status),
      ['Timeout', 'open'],
    )
    // An operation with a hanging node does not delay one with another node.
    const hung = codeOf(node1.cluster.updateNode({ node_name, subscriptions: desired({ dog: 'none' }) }))
    await node1.cluster.updateNode({ node_name: 'node3', subscriptions: desired({ dog: 'publish' }) })
    assert.deepEqual(node1.held('node2'), ['dog both'])
    await clock.advance(65_000)
    assert.equal(await hung, 'node_timeout')
  })

  it('or is rejected temporarily: the comparison is retried', { timeout: 180_000 }, async (test) => {
    const { world, node1, node2 } = await pair(test)
    // They compare on the first heartbeat.
    const met = [node1, node2].map(({ cluster }) => new Promise((resolve) => cluster.once('peer:up', resolve)))
    await node1.cluster.addNode({ node_name: 'node2', subscriptions: desired({ dog: 'both' }) })
    await Promise.all(met)
    await delay(200)
    const good = await readFile(node2.file, 'utf8')
    await writeFile(node2.file, 'clustering: [this is no section')
    await eventually('it rejects its file', () => node2.events.some(({ name }) => name === 'config:rejected'))
    const rejected = new Promise<void>((resolve) => {
      node2.after = (operation) => operation === 'compare_node' && resolve()
    })
    await writeFile(node1.file, (await readFile(node1.file, 'utf8')).replace('publish: true', 'publish: false'))
    await rejected
    assert.deepEqual(node2.held('node1'), ['dog both'])
    await writeFile(node2.file, good)
    await world.converged(30_000)
    assert.deepEqual(node2.held('node1'), ['dog publish'])
  })

  it('or gets an invalid answer: rejected, and nothing has changed', async (test) => {
    const { world, node1 } = await pair(test)
    const probe = await world.probe('probe')
    const before = await node1.picture()
    const bad: unknown[] = [
      new Uint8Array(),
      Uint8Array.of(0xc1),
      undefined,
      [],
      'success',
      {},
      { status: 1, message: {} },
      { status: 'success' },
      { status: 'success', message: 'not tables' },
      { status: 'success', message: { dev: 'not tables' } },
      { status: 'success', message: { dev: { dog: { hash_attribute: 7 } } } },
      { status: 'success', message: { dev: { dog: { hash_attribute: 'id', attributes: 'id' } } } },
      { status: 'error', message: { toString: null } },
      { status: 'ERROR' },
    ]
    for (const answer of bad) {
      probe.mesh.serve(async () => (answer instanceof Uint8Array ? answer : packr.pack(answer)))
      const code = await codeOf(node1.cluster.addNode({ node_name: 'probe', subscriptions }))
      assert.equal(code, 'peer_rejected', JSON.stringify(answer))
    }
    assert.deepEqual(await node1.picture(), before)
  })
})

describe('an invalid request', { concurrency: 4 }, () => {
  const good = () => ({
    operation: 'add_node',
    node_name: 'probe',
    revision: makeTimestamp(Date.now(), 0, 'probe'),
    // Unreadable: the sender need not exist.
    subscriptions: onWire({ dog: 'publish' }),
  })
  const entry = { ...onWire({ dog: 'both' })[0], removed: false, revision: '' }

  it('is answered with an error and has no effect', async (test) => {
    const { world, node1 } = await pair(test)
    const probe = await world.probe('probe')
    const before = await node1.picture()
    const bytes = packr.pack(good())
    const bad: [what: string, body: unknown][] = [
      ['nothing', new Uint8Array()],
      ['no MessagePack', Uint8Array.of(0xc1)],
      ['half of it', bytes.subarray(0, bytes.length / 2)],
      ['more than it', Uint8Array.of(...bytes, 0xff)],
      ['nil', null],
      ['a number', 7],
      ['a text', 'add_node'],
      ['a list', [good()]],
      ['a list as deep as a well', JSON.parse(`${'['.repeat(1_000)}${']'.repeat(1_000)}`)],
      ['an empty map', {}],
      ['no operation', { ...good(), operation: undefined }],
      ['an unknown operation', { ...good(), operation: 'drop_table' }],
      ['the name of what every object has', { ...good(), operation: 'constructor' }],
      ['a list of operations', { ...good(), operation: ['add_node'] }],
      ['no name', { ...good(), node_name: undefined }],
      ['the local name', { ...good(), node_name: 'node1' }],
      ['the local name, comparing', { operation: 'compare_node', node_name: 'node1', entries: [entry] }],
      ['the local name, removing', { operation: 'remove_node', node_name: 'node1' }],
      ...[7, null, '', 'a.b', 'a b', 'a/b', '>', '*', '../x', 'a\nb', '\0', 'x'.repeat(1_001)].map(
        (node_name): [string, unknown] => [
          `the name ${JSON.stringify(node_name)?.slice(0, 20)}`,
          { ...good(), node_name },
        ],
      ),
      ...[7, null, '', 'a.b', 'a b', '>', '*', 'a\nb', 'x'.repeat(1_001)].flatMap((name): [string, unknown][] => [
        [`the table ${name}`, { ...good(), subscriptions: onWire({ dog: 'both' }, { table: name }) }],
        [`the database ${name}`, { ...good(), subscriptions: onWire({ dog: 'both' }, { schema: name }) }],
      ]),
      ['a map of subscriptions', { ...good(), subscriptions: { 0: onWire({ dog: 'both' })[0] } }],
      ['a direction as text', { ...good(), subscriptions: onWire({ dog: 'both' }, { publish: 'yes' }) }],
      ['no direction', { ...good(), subscriptions: [{ schema: 'dev', table: 'dog' }] }],
      ['one bad among good ones', { ...good(), subscriptions: [...onWire({ dog: 'both', cat: 'both' }), {}] }],
      ['another primary key', { ...good(), subscriptions: onWire({ dog: 'both' }, { hash_attribute: 'name' }) }],
      [
        'a table that nobody can describe',
        { ...good(), subscriptions: onWire({ dog: 'both', bird: 'both' }, { hash_attribute: null }) },
      ],
      ['attributes as text', { ...good(), subscriptions: onWire({ dog: 'both' }, { attributes: 'id' }) }],
      ['more than a manifest can bear', { ...good(), subscriptions: Array(10_001).fill(onWire({ dog: 'both' })[0]) }],
      ['an invalid revision', { ...good(), revision: 'yesterday' }],
      ['a revision of next year', { ...good(), revision: makeTimestamp(Date.now() + 3e10, 0, 'probe') }],
      ['a replacement as text', { ...good(), replace: 'yes' }],
      ['invalid entries', { operation: 'compare_node', node_name: 'probe', entries: onWire({ dog: 'both' }) }],
      ['an invalid range', { operation: 'compare_node', node_name: 'probe', entries: [], range: 'all' }],
    ]
    for (const [what, body] of bad) assertRefused(await probe.send('node1', body), what)
    await Promise.all(
      bad.map(async ([what, body]) => assertRefused(await probe.send('node1', body), `${what}, at once`)),
    )
    assert.deepEqual(await node1.picture(), before)
  })

  it('of random bytes has no effect, nor has such a heartbeat', async (test) => {
    const { world, node1 } = await pair(test)
    const probe = await world.probe('probe')
    const before = await node1.picture()
    const rejected = fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (bytes) => {
      probe.mesh.announce(bytes)
      assertRefused(await probe.send('node1', bytes), String(bytes))
    })
    await fc.assert(rejected, { seed, numRuns: 300 })
    // Or with one changed byte, which may be valid nevertheless.
    const bytes = packr.pack(good())
    const answered = fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), async (at, byte) => {
      const { status } = await probe.send('node1', bytes.with(at, byte))
      assert.ok(status === 'success' || status === 'error')
    })
    assert.deepEqual(await node1.picture(), before)
    await fc.assert(answered, { seed, numRuns: 300 })
    await world.converged()
    await node1.reopen()
    assert.deepEqual(
      node1.events.filter(({ name }) => name === 'config:rejected'),
      [],
    )
  })

  it('is distinguished from valid but unusual values, which are accepted', async (test) => {
    const { world, node1 } = await pair(test)
    const probe = await world.probe('probe')
    const names = ['__proto__', 'constructor', 'toString', 'null', '~', '- x: #'.replaceAll(' ', '_'), '"quoted"', '猫']
    for (const name of names) {
      const subscriptions = onWire({ dog: 'publish' }, { schema: name, table: name, start_time: 'soon' })
      const answer = await probe.send('node1', { ...good(), node_name: name, subscriptions })
      assert.equal(answer.status, 'success', `${name}: ${answer.message}`)
    }
    // Unknown keys.
    const polluted = new Map<string, unknown>(Object.entries(good()))
    polluted.set('__proto__', { replace: true, polluted: true }).set('constructor', { prototype: { polluted: true } })
    assert.equal((await probe.send('node1', packr.pack(polluted))).status, 'success')
    assert.equal(({} as { polluted?: boolean }).polluted, undefined)
    await world.converged()
    const { manifest } = node1.cluster
    assert.deepEqual(
      manifest.nodes.map(({ name }) => name),
      [...names, 'probe'],
    )
    await node1.reopen()
    assert.deepEqual(node1.cluster.manifest, manifest)
    for (const name of [...names, 'probe'])
      assert.equal((await probe.send('node1', { operation: 'remove_node', node_name: name })).status, 'success')
    assert.deepEqual(node1.cluster.manifest.nodes, [])
    assert.deepEqual(new ConfigText(await readFile(node1.file, 'utf8')).problems, [])
  })

  it('in the name of another node is overruled by later requests of that node, on both nodes', async (test) => {
    const { world, node1, node2 } = await pair(test)
    await node1.cluster.addNode({ node_name: 'node2', subscriptions: desired({ dog: 'both' }) })
    await world.converged()
    const probe = await world.probe('probe')
    const forged = {
      operation: 'update_node',
      v: PROTOCOL_VERSION,
      node_name: 'node2',
      subscriptions: onWire({ dog: 'publish' }),
    }
    const [held] = node1.cluster.manifest.nodes
    // Older than the present revision.
    const old = { ...forged, revision: makeTimestamp(Date.now() - 60_000, 0, 'node2') }
    assert.equal((await probe.send('node1', old)).status, 'success')
    assert.equal(node1.cluster.manifest.nodes[0], held)
    // Newer: counts as any operation once the two compare.
    assert.equal((await probe.send('node1', forged)).status, 'success')
    assert.deepEqual(node1.held('node2'), ['dog publish'])
    await node2.reopen()
    await world.converged()
    await node2.cluster.updateNode({ node_name: 'node1', subscriptions: desired({ dog: 'publish', cat: 'both' }) })
    await world.converged()
    assert.deepEqual(node1.held('node2'), ['cat both', 'dog subscribe'])
  })

  it('with an entry too far in the future: that entry is ignored', async (test) => {
    const { world, node1 } = await pair(test)
    const probe = await world.probe('probe')
    const entries = [
      { ...onWire({ dog: 'both' })[0], removed: false, revision: makeTimestamp(Date.now() + 3e10, 0, 'probe') },
      { ...onWire({ cat: 'both' })[0], removed: false, revision: makeTimestamp(Date.now(), 0, 'probe') },
    ]
    assert.equal((await probe.request('node1', 'compare_node', { entries })).status, 'success')
    assert.deepEqual(node1.held('probe'), ['cat both'])
    assert.ok(wallTimeOf(node1.cluster.timestamp()) < Date.now() + 60_000)
  })
})

describe('a negotiation', { concurrency: 4 }, () => {
  it('with a node whose clock is ahead: later local changes win, also after a restart', async (test) => {
    const { world, node1, node2 } = await pair(test)
    await node1.cluster.addNode({ node_name: 'node2', subscriptions: desired({ dog: 'both', cat: 'both' }) })
    const probe = await world.probe('probe')
    const revision = makeTimestamp(Date.now() + 200_000, 0, 'node2')
    const subscriptions = onWire({ dog: 'none', cat: 'none' })
    for (const [to, node_name] of [
      ['node1', 'node2'],
      ['node2', 'node1'],
    ] as const)
      await probe.send(to, { operation: 'update_node', node_name, revision, subscriptions })
    assert.deepEqual(node1.held('node2'), ['cat none', 'dog none'])
    // One operation, and one edit while it is closed.
    await node1.reopen()
    await node1.cluster.updateNode({ node_name: 'node2', subscriptions: desired({ dog: 'publish' }) })
    await world.converged()
    assert.deepEqual(node1.held('node2'), ['cat none', 'dog publish'])
    await node1.cluster.close()
    const config = parse(await readFile(node1.file, 'utf8'))
    for (const each of config.clustering.nodes[0].subscriptions) each.publish = true
    await writeFile(node1.file, stringify(config))
    await node1.reopen()
    await world.converged()
    assert.deepEqual(node2.held('node1'), ['cat subscribe', 'dog subscribe'])
  })

  it('that is followed by a newer request while it stores its start leaves no start behind', async (test) => {
    const { world, node1, node2 } = await pair(test)
    await node1.cluster.addNode({ node_name: 'node2', subscriptions: desired({ dog: 'publish' }) })
    await world.converged()
    const probe = await world.probe('probe')
    let starts = 0
    let later: Promise<unknown> | undefined
    node1.host.beforeApply = async ({ isCopy }) => {
      if (isCopy) return
      starts++
      const newer = { revision: makeTimestamp(Date.now() + 1_000, 0, 'node2'), subscriptions: onWire({ dog: 'none' }) }
      // Takes effect after the first one: changes with one node are committed one at a time.
      later = probe.send('node1', { operation: 'update_node', node_name: 'node2', ...newer })
    }
    await node2.cluster.updateNode({ node_name: 'node1', subscriptions: desired({ dog: 'both' }) })
    await later
    assert.deepEqual([node1.held('node2'), starts], [['dog none'], 1])
    await eventually('no start is left', () => node1.host.checkpoints.size === 0, 2_000)
  })
})

describe('concurrent requests', { concurrency: 4 }, () => {
  it('of both nodes end with mirror images, and repeating all of them changes nothing', async (test) => {
    const { world, node1, node2 } = await pair(test)
    const probe = await world.probe('probe')
    const draw = randomNumbers(seed)
    const directions: Direction[] = ['publish', 'subscribe', 'both', 'none']
    const one = (node: PeerNode, node_name: string): Promise<string> => {
      const subscriptions = desired({ [draw() < 0.5 ? 'dog' : 'cat']: directions[Math.floor(draw() * 4)]! })
      const kind = draw()
      if (kind < 0.7) return codeOf(node.cluster.updateNode({ node_name, subscriptions }))
      if (kind < 0.85) return codeOf(node.cluster.configureCluster({ connections: [{ node_name, subscriptions }] }))
      return codeOf(node.cluster.removeNode({ node_name }))
    }
    for (let round = 0; round < 15; round++) {
      const all = Array.from({ length: 4 }, () => [one(node1, 'node2'), one(node2, 'node1')]).flat()
      for (const code of await Promise.all(all)) assert.match(code, /^(resolved|node_not_found)$/)
      await world.converged()
    }
    for (const node of [node1, node2]) await node.allBegun()
    const before = [await node1.picture(), await node2.picture()]
    const sent = [...node1.sent, ...node2.sent].filter(({ operation }) => operation !== 'compare_node')
    await Promise.all(sent.map(({ to, data }) => probe.send(to, data)))
    assert.deepEqual([await node1.picture(), await node2.picture()], before)
  })

  it('name at most a hundred tables each', async (test) => {
    const { world, node1, node2 } = await pair(test)
    const tables = Object.fromEntries(Array.from({ length: 250 }, (_, index) => [`table${index}`, 'both' as Direction]))
    for (const table of Object.keys(tables))
      await node1.host.createTable({ database: 'dev', table, primaryKey: 'id', attributes: ['id'] })
    await node1.cluster.addNode({ node_name: 'node2', subscriptions: desired(tables) })
    await world.converged()
    await node1.cluster.close()
    const { nodes } = node2.cluster.manifest
    const edited = nodes.map(({ name, subscriptions }) => ({
      name,
      subscriptions: subscriptions.map((each) => (each.table === 'table0' ? { ...each, publish: false } : each)),
    }))
    const config = parse(await readFile(node2.file, 'utf8'))
    await writeFile(node2.file, stringify({ ...config, clustering: { ...config.clustering, nodes: edited } }))
    await eventually('it is taken in', () => node2.held('node1').includes('table0 subscribe'))
    await node1.reopen()
    await world.converged()
    assert.equal(node1.held('node2').length, 250)
    type Body = { subscriptions?: unknown[]; entries?: unknown[]; range: { from: string; to?: string } }
    const bodies = (operation: string): Body[] =>
      node1.sent.filter((each) => each.operation === operation).map(({ data }) => packr.unpack(data))
    const agreed = [...bodies('add_node'), ...bodies('update_node')]
    assert.deepEqual(
      agreed.map(({ subscriptions }) => subscriptions?.length),
      [100, 100, 50],
    )
    await eventually('all is compared', () => bodies('compare_node').some(({ entries }) => entries?.length === 50))
    // A comparison that was not answered in time is repeated.
    const compared = [...new Map(bodies('compare_node').map((each) => [each.range.from, each])).values()]
    assert.deepEqual(
      compared.map(({ entries }) => entries?.length),
      [100, 100, 50],
    )
    // Together they cover all tables.
    const [first, second, third] = compared.map(({ range }) => range)
    assert.ok(first && second && third)
    assert.deepEqual([first.from, first.to, second.to, third.to], ['', second.from, third.from, undefined])
    const probe = await world.probe('probe')
    const range = { from: '["dev","table100"]', to: '["dev","table102"]' }
    const { message } = await probe.send('node2', { operation: 'compare_node', node_name: 'node1', entries: [], range })
    assert.deepEqual((message as { table: string }[]).map(({ table }) => table).sort(), ['table100', 'table101'])
  })
})

/** With a bound `abort`. */
function abortable(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort() }
}
