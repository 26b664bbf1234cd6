// Both nodes of every subscription end with mirror images, after a crash of either node at any step of a negotiation, and after a
// restore from an old copy.

import assert from 'node:assert/strict'
import fs, { cpSync, existsSync, readFileSync } from 'node:fs'
import promises, { cp, mkdir, rm, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { basename, join, sep } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import { parse, parseDocument, stringify } from 'yaml'
import { ClusterManager } from '../../lib/index.ts'
import { type Mesh, MeshError } from '../../lib/mesh/mesh.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { seedOf } from '../support/random.ts'

const seed = seedOf()

const never = new Promise<never>(() => {})
/** The locks of the directory are sockets, which Node does not copy. */
const isNoLock = (path: string) => !basename(path).startsWith('lock-')

// --- crashes at a step --------------------------------------------------------------------------------------------------

/** Counts the calls of a manager to host, mesh and disk from `arm` on, and crashes at one of these steps. */
class Probe {
  readonly labels: string[] = []
  #last = Number.POSITIVE_INFINITY
  #die: (() => void) | undefined
  isDead = false

  arm(last: number, die: () => void): void {
    this.#last = last
    this.#die = die
  }

  disarm(): void {
    this.#die = undefined
  }

  /** Synchronous, so that `die` copies the state of exactly this step. */
  step(label: string): void {
    if (!this.#die || this.isDead) return
    this.labels.push(label)
    if (this.labels.length < this.#last) return
    this.isDead = true
    this.#die()
  }
}

/** Calls without an effect on a disk or a remote node: a crash there equals one at the step before. */
const QUIET: ReadonlySet<PropertyKey> = new Set([
  ...['info', 'open', 'close', 'announce', 'listen'],
  ...[
    'describe',
    'loadCheckpoint',
    'confirmPublished',
    'publishedPosition',
    'readOutbox',
    'streamState',
    'sequenceAt',
    'read',
    'members',
  ],
])

/** The start and the end of every call are steps; `refuse` is the result after the crash. */
function watched<T extends object>(target: T, probe: Probe, own: Partial<T>, refuse?: () => never): T {
  return new Proxy(target, {
    get(_, key) {
      const value = Reflect.get(own, key) ?? Reflect.get(target, key, target)
      if (typeof value !== 'function') return value
      if (QUIET.has(key)) return value.bind(target)
      return (...args: unknown[]) => {
        probe.step(String(key))
        if (probe.isDead && refuse) return Promise.reject(new MeshError('disconnected', 'dead'))
        const result: unknown = value.apply(target, args)
        if (!(result instanceof Promise)) return result
        return result.then((found) => {
          probe.step(`${String(key)} done`)
          return probe.isDead && refuse ? refuse() : found
        })
      }
    },
  })
}

/** Pending requests; they can time out at once. */
class Waiting {
  readonly #late = new Set<() => void>()

  on<T>(answer: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const late = () => reject(new MeshError('timeout', 'no answer'))
      this.#late.add(late)
      answer.then(resolve, reject).finally(() => this.#late.delete(late))
    })
  }

  giveUp(): void {
    for (const late of this.#late) late()
  }
}

/** Blocks all messages after the crash. */
function watchedMesh(mesh: Mesh, probe: Probe, waiting: Waiting): Mesh {
  const own: Partial<Mesh> = {
    request: (...args) => waiting.on(mesh.request(...args)),
    streamState: (...args) => waiting.on(mesh.streamState(...args)),
    sequenceAt: (...args) => waiting.on(mesh.sequenceAt(...args)),
    announce: (data) => probe.isDead || mesh.announce(data),
    listen: (handler) => mesh.listen((data) => probe.isDead || handler(data)),
    serve: (handler) =>
      mesh.serve(async (data) => {
        probe.step('asked')
        if (probe.isDead) return never
        const answer = await handler(data)
        probe.step('answered')
        return probe.isDead ? never : answer
      }),
  }
  return watched(mesh, probe, own, () => {
    throw new MeshError('disconnected', 'dead')
  })
}

/** Directories in which each replaced file is a step. */
const disks = new Map<string, Probe>()
const probeOf = (path: unknown) => [...disks].find(([directory]) => String(path).startsWith(directory + sep))?.[1]

const originals = { rename: promises.rename, renameSync: fs.renameSync }
before(() => {
  promises.rename = async (from, to) => {
    const probe = probeOf(to)
    probe?.step('rename')
    await originals.rename(from, to)
    probe?.step('rename done')
  }
  fs.renameSync = (from, to) => {
    const probe = probeOf(to)
    probe?.step('renameSync')
    originals.renameSync(from, to)
    probe?.step('renameSync done')
  }
  syncBuiltinESMExports()
})
after(() => {
  promises.rename = originals.rename
  fs.renameSync = originals.renameSync
  syncBuiltinESMExports()
})

// --- nodes --------------------------------------------------------------------------------------------------------------

type Image = { directory: string; host: MemoryHost }
type Line = string

function copyOf(host: MemoryHost): MemoryHost {
  const copy = new MemoryHost()
  for (const name of ['tables', 'rows', 'checkpoints', 'publishedPositions'] as const)
    for (const [key, value] of structuredClone(host[name])) (copy[name] as Map<string, unknown>).set(key, value)
  copy.outbox = structuredClone(host.outbox)
  return copy
}

const lineOf = ({ table, publish, subscribe }: { table: string; publish: boolean; subscribe: boolean }): Line =>
  `${table}${publish ? ' publish' : ''}${subscribe ? ' subscribe' : ''}`
const swapped: Record<string, string> = { publish: 'subscribe', subscribe: 'publish' }
/** The mirror image. */
const mirrored = (line: Line): Line => {
  const [table, ...ways] = line.split(' ')
  return [table, ...ways.map((way) => swapped[way]).sort()].join(' ')
}
const subscriptionOf = (line: Line) => {
  const [table = '', ...ways] = line.split(' ')
  return { database: 'dev', table, publish: ways.includes('publish'), subscribe: ways.includes('subscribe') }
}

type Row = [database: string, table: string, publish: boolean, subscribe: boolean, removed: boolean, revision: string]

/** The state on a disk: the lines of the file, and the registers with their revisions. */
class Disk {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  get file(): string {
    return join(this.directory, 'config.yaml')
  }

  get state(): string {
    return join(this.directory, 'clustering')
  }

  held(other: string): Line[] {
    const { clustering } = parse(readFileSync(this.file, 'utf8')) as {
      clustering: { nodes?: { name: string; subscriptions?: Parameters<typeof lineOf>[0][] }[] | null }
    }
    return (clustering.nodes?.find(({ name }) => name === other)?.subscriptions ?? []).map(lineOf).sort()
  }

  registers(other: string): Row[] {
    const path = join(this.state, 'revisions.json')
    if (!existsSync(path)) return []
    return (JSON.parse(readFileSync(path, 'utf8')) as { nodes: Record<string, Row[]> }).nodes[other] ?? []
  }

  /** As `held`, from the registers. */
  noted(other: string): Line[] {
    return this.registers(other)
      .filter(([, , , , removed]) => !removed)
      .map(([, table, publish, subscribe]) => lineOf({ table, publish, subscribe }))
      .sort()
  }

  /** The revision of each subscription; removed ones without it, because they may have been removed repeatedly. */
  revisions(other: string): Line[] {
    return this.registers(other)
      .filter(([, , , , removed]) => !removed)
      .map(([, table, , , , revision]) => `${table} ${revision}`)
      .sort()
  }
}

class Node {
  readonly name: string
  readonly disk: Disk
  readonly host: MemoryHost
  readonly probe = new Probe()
  readonly waiting = new Waiting()
  cluster!: ClusterManager

  constructor(name: string, { directory, host }: Image) {
    this.name = name
    this.disk = new Disk(directory)
    this.host = host
  }

  async open(network: MemoryNetwork): Promise<void> {
    const { probe, disk, waiting } = this
    disks.set(disk.directory, probe)
    this.cluster = await ClusterManager.open({
      configFile: disk.file,
      host: watched(this.host, probe, {}),
      mesh: watchedMesh(network.mesh(), probe, waiting),
    })
    this.cluster.on('manifest:changed', () => probe.step('manifest:changed'))
  }

  async close(): Promise<void> {
    await this.cluster.close()
    disks.delete(this.disk.directory)
  }

  held(other: string): Line[] {
    const node = this.cluster.manifest.nodes.find(({ name }) => name === other)
    return (node?.subscriptions ?? []).map(lineOf).sort()
  }

  /** Edits the file: the subscriptions with `other`; undefined: without the node. */
  async edit(other: string, lines: Line[] | undefined): Promise<void> {
    await editFile(this.disk, other, lines)
  }

  /** As `edit`, and waits for the import. */
  async edited(other: string, lines: Line[] | undefined): Promise<void> {
    await this.edit(other, lines)
    await eventually(`${this.name} takes the edit in`, () => same(this.held(other), [...(lines ?? [])].sort()))
  }

  configure(other: string, lines: Line[]): Promise<{ failed_nodes?: string[] }> {
    return this.cluster.configureCluster({
      connections: [{ node_name: other, subscriptions: lines.map(subscriptionOf) }],
    })
  }

  ask(other: string, lines: Line[]): Promise<unknown> {
    return this.cluster.setNodeReplication({ node_name: other, subscriptions: lines.map(subscriptionOf) })
  }

  /** Differences between the running state and the manifest, except open comparisons. */
  unrest(): string | undefined {
    const { nodes } = this.cluster.manifest
    for (const { name } of nodes) {
      const [held, filed, noted] = [this.held(name), this.disk.held(name), this.disk.noted(name)]
      if (held.join() !== filed.join()) return `${this.name} holds ${held} with ${name}, its file ${filed}`
      if (held.join() !== noted.join()) return `${this.name} holds ${held} with ${name}, its registers ${noted}`
    }
    const desired = nodes.flatMap(({ name, subscriptions }) =>
      subscriptions.filter(({ subscribe }) => subscribe).map(({ table }) => `${name} ${table}`),
    )
    const running = this.cluster.subscriptions().map(({ source }) => `${source.node} ${source.table}`)
    if (desired.sort().join() !== running.sort().join()) return `${this.name} wants ${desired}, ${running} run`
    return undefined
  }
}

async function editFile(disk: Disk, other: string, lines: Line[] | undefined): Promise<void> {
  const document = parseDocument(await promises.readFile(disk.file, 'utf8'))
  const path = ['clustering', 'nodes']
  const { clustering } = document.toJS() as { clustering: { nodes?: { name: string }[] | null } }
  const others = (clustering.nodes ?? []).filter(({ name }) => name !== other)
  const nodes = lines ? [...others, { name: other, subscriptions: lines.map(subscriptionOf) }] : others
  document.setIn(path, document.createNode(nodes))
  await writeFile(disk.file, document.toString())
}

const TABLES: Record<string, string[]> = {
  node1: ['cat', 'dog', 'elk', 'bird'],
  node2: ['cat', 'dog', 'elk', 'fox'],
  node3: ['cat', 'dog', 'elk'],
}

class World {
  readonly network = new MemoryNetwork()
  readonly #nodes = new Map<string, Node>()
  readonly #root: string
  readonly #remove: () => Promise<void>
  #directories = 0

  private constructor(root: string, remove: () => Promise<void>) {
    this.#root = root
    this.#remove = remove
  }

  static async with<T>(names: string[], work: (world: World) => Promise<T>): Promise<T> {
    const world = new World(...(await temporaryDirectory()))
    try {
      for (const name of names) {
        const image = {
          directory: world.#directory(),
          host: new MemoryHost(TABLES[name]!.map((table) => ['dev', table])),
        }
        await mkdir(image.directory)
        const clustering = { enabled: true, nodeName: name, user: 'cluster_user' }
        await writeFile(join(image.directory, 'config.yaml'), stringify({ rootPath: '.', clustering }))
        await world.start(name, image)
      }
      return await work(world)
    } finally {
      await Promise.all([...world.#nodes.values()].map((node) => node.close()))
      await world.network.close()
      await world.#remove()
    }
  }

  #directory(): string {
    return join(this.#root, `${++this.#directories}`)
  }

  node(name: string): Node {
    const node = this.#nodes.get(name)
    if (!node) throw new Error(`${name} is closed`)
    return node
  }

  async start(name: string, image: Image): Promise<Node> {
    const node = new Node(name, image)
    await node.open(this.network)
    this.#nodes.set(name, node)
    return node
  }

  /** Its disk and its database, to start from. */
  async stop(name: string): Promise<Image> {
    const node = this.node(name)
    this.#nodes.delete(name)
    await node.close()
    return { directory: node.disk.directory, host: node.host }
  }

  /** Its present disk and database, copied synchronously. */
  copy(name: string): Image {
    const { disk, host } = this.node(name)
    const directory = this.#directory()
    for (let attempt = 1; ; attempt++) {
      try {
        cpSync(disk.directory, directory, { recursive: true, filter: isNoLock })
        return { directory, host: copyOf(host) }
      } catch (error) {
        // The file was replaced while the directory was read.
        if (attempt === 5) throw error
        fs.rmSync(directory, { recursive: true, force: true })
      }
    }
  }

  difference(a: string, b: string): string | undefined {
    const [one, two] = [this.node(a), this.node(b)]
    const [here, there] = [one.held(b), two.held(a)]
    if (here.join() !== there.map(mirrored).sort().join()) return `${a} holds ${here}, ${b} holds ${there}`
    const pendingReason = one.unrest() ?? two.unrest()
    if (pendingReason) return pendingReason
    const [ours, theirs] = [one.disk.revisions(b), two.disk.revisions(a)]
    return ours.join() === theirs.join() ? undefined : `revisions: ${a} ${ours}, ${b} ${theirs}`
  }

  /** Mirror images with equal revisions, in the files and in memory. */
  async converge(names: string[] = [...this.#nodes.keys()], timeout = 20_000): Promise<void> {
    const pairs = names.flatMap((a) => names.filter((b) => b > a).map((b) => [a, b] as const))
    let difference: string | undefined
    const check = () => {
      difference = undefined
      for (const [a, b] of pairs) difference ??= this.difference(a, b)
      return difference === undefined
    }
    await eventually(() => `mirror images: ${difference}`, check, timeout)
  }
}

// --- the tests ----------------------------------------------------------------------------------------------------------

type Operation = {
  name: string
  ask(one: Node): Promise<unknown>
  /** The subscriptions of node1 afterwards. */
  after: Line[]
  /** It succeeds even when the remote node does not answer. */
  isFinal: boolean
  isEdit?: boolean
}

const old: Line[] = ['cat publish', 'dog publish subscribe']
const operations: Operation[] = [
  {
    name: 'set_node_replication',
    ask: (one) => one.ask('node2', ['bird publish subscribe', 'dog subscribe', 'fox publish subscribe']),
    after: ['bird publish subscribe', 'cat publish', 'dog subscribe', 'fox publish subscribe'],
    isFinal: false,
  },
  {
    name: 'remove_node',
    ask: (one) => one.cluster.removeNode({ node_name: 'node2' }),
    after: [],
    isFinal: true,
  },
  {
    name: 'configure_cluster',
    ask: (one) => one.configure('node2', ['bird publish subscribe', 'dog subscribe']),
    after: ['bird publish subscribe', 'dog subscribe'],
    isFinal: true,
  },
  {
    name: 'an edit of the file',
    ask: (one) => one.edit('node2', ['bird publish', 'cat publish', 'dog subscribe']),
    after: ['bird publish', 'cat publish', 'dog subscribe'],
    isFinal: true,
    isEdit: true,
  },
]

const same = (one: readonly Line[], other: readonly Line[]) => one.join() === other.join()

/** Runs an operation of node1 with node2 and crashes `victim` at the step of this number. Returns the number of steps. */
async function crash(operation: Operation, victim: string, at: number): Promise<{ steps: string[]; died: boolean }> {
  return World.with(['node1', 'node2'], async (world) => {
    const [one, two] = [world.node('node1'), world.node('node2')]
    await one.cluster.addNode({ node_name: 'node2', subscriptions: old.map(subscriptionOf) })
    await world.converge()
    const { probe } = world.node(victim)
    let image: Image | undefined
    let isNewThere = false
    let wasAcknowledged = false
    let outcome = 'unknown'
    probe.arm(at, () => {
      image = world.copy(victim)
      wasAcknowledged = outcome === 'acknowledged'
      isNewThere = same(two.held('node1').map(mirrored).sort(), operation.after)
    })
    const asked = operation.ask(one).then(
      () => {
        outcome = 'acknowledged'
      },
      (error) => {
        outcome = String(error.code)
      },
    )
    const isOver = () =>
      outcome !== 'unknown' && same(one.held('node2'), operation.after) && !world.difference('node1', 'node2')
    await eventually(
      () => `${operation.name}: ${outcome}, ${world.difference('node1', 'node2')}`,
      () => probe.isDead || isOver(),
    )
    const steps = [...probe.labels]
    const died = probe.isDead
    if (died) {
      await world.stop(victim)
      // The request times out before or after the remote node is back.
      if (victim === 'node2' && at % 2 === 0) {
        one.waiting.giveUp()
        await asked
      }
      const disk = new Disk(image!.directory)
      const [filed, noted] = [disk.held('node1'), disk.noted('node1')]
      await world.start(victim, image!)
      one.waiting.giveUp()
      await asked
      await world.converge().catch((error) => {
        throw new Error(`${operation.name}, ${victim} died at ${at}, '${steps.at(-1)}', ${outcome}: ${error.message}`)
      })
      const held = world.node('node1').held('node2')
      const reported = `${operation.name}, ${victim} died at ${at}, '${steps.at(-1)}', ${outcome}`
      let expected: Line[] | undefined
      if (operation.isFinal && victim === 'node2') expected = operation.after
      else if (victim === 'node1') {
        if (wasAcknowledged || isNewThere || same(disk.held('node2'), operation.after)) expected = operation.after
      } else if (outcome === 'acknowledged') expected = operation.after
      // The file was written but not the registers: this counts as an edit made while the node was down.
      else if (same(filed, noted)) expected = old
      if (expected) assert.deepEqual(held, expected, reported)
      else assert.ok(same(held, old) || same(held, operation.after), `${reported}: half applied, ${held}`)
    } else probe.disarm()
    return { steps, died }
  })
}

/** Crashes at every step; in a short run at every fourth one. */
async function crashEverywhere(test: TestContext, operation: Operation, victim: string): Promise<void> {
  const stride = isLong ? 1 : 4
  let next = 1 + (seed % stride)
  let isOver = false
  const kinds = new Set<string>()
  const at = async (step: number) => {
    const { steps, died } = await crash(operation, victim, step)
    for (const each of steps) kinds.add(each)
    return died
  }
  const lane = async () => {
    while (!isOver) {
      const step = next
      next += stride
      if (!(await at(step))) isOver = true
    }
  }
  await Promise.all(Array.from({ length: 4 }, lane))
  // An edited file is not written by the node.
  const written = operation.isEdit && victim === 'node1' ? [] : ['renameSync', 'renameSync done']
  const missed = () => [...written, 'manifest:changed', 'rename', 'rename done'].filter((each) => !kinds.has(each))
  // The last step may be one of the skipped ones.
  for (let step = next - 1; step > 0 && missed().length > 0; step -= 1) await at(step)
  test.diagnostic(`SEED=${seed} ${operation.name}, ${victim}: up to step ${next - 1}, ${[...kinds].join(', ')}`)
  for (const step of missed()) assert.fail(`it never died at '${step}'`)
}

describe('a node that crashes at any step', { concurrency: 2 }, () => {
  for (const operation of operations)
    for (const [victim, role] of [
      ['node1', 'of its own'],
      ['node2', 'of the other one'],
    ] as const)
      it(`${role}: ${operation.name}`, { timeout: 180_000 }, (test) => crashEverywhere(test, operation, victim))
})

describe('a node that was away', { concurrency: 4 }, () => {
  /** Negotiated after `old`: one table changed, one removed, one new. */
  const recent: Line[] = ['cat subscribe', 'elk publish subscribe']
  const back = (lines: readonly Line[]): Line[] => lines.map(mirrored).sort()

  /** node1 and node2, and the disk of node2 before the later negotiation. */
  async function grown(world: World): Promise<Image> {
    const one = world.node('node1')
    await one.ask('node2', old)
    await world.converge()
    const copy = world.copy('node2')
    await one.configure('node2', recent)
    await world.converge()
    return copy
  }

  /** Replaces parts of the disk of `node` by those of a copy. `none`: the directory is missing. */
  async function restore(world: World, name: string, copy: Image, parts: { file?: boolean; state?: boolean | 'none' }) {
    const image = await world.stop(name)
    const [kept, copied] = [new Disk(image.directory), new Disk(copy.directory)]
    if (parts.file) await cp(copied.file, kept.file)
    if (parts.state) await rm(kept.state, { recursive: true })
    if (parts.state === true) await cp(copied.state, kept.state, { recursive: true, filter: isNoLock })
    await world.start(name, image)
  }

  for (const [what, parts, expected] of [
    // An edit while it was down.
    ['its file from an old copy', { file: true }, old],
    ['its state from an old copy', { state: true }, recent],
    ['both from an old copy', { file: true, state: true }, recent],
    ['its state lost', { state: 'none' }, recent],
    ['its file from an old copy and its state lost', { file: true, state: 'none' }, recent],
  ] as const)
    it(`comes back with ${what}`, () =>
      World.with(['node1', 'node2'], async (world) => {
        const copy = await grown(world)
        await restore(world, 'node2', copy, parts)
        await world.converge()
        assert.deepEqual(world.node('node1').held('node2'), expected)
        // It works as before: new negotiations are newer than the restored state.
        await world.node('node2').ask('node1', ['cat publish subscribe', 'fox publish'])
        await world.converge()
        const changed = world.node('node2').held('node1')
        assert.ok(changed.includes('cat publish subscribe') && changed.includes('fox publish'))
      }))

  for (const [what, parts] of [
    ['as it was', {}],
    ['from an old copy', { file: true, state: true }],
  ] as const)
    it(`and was removed meanwhile, comes back ${what}: stays removed`, () =>
      World.with(['node1', 'node2'], async (world) => {
        const copy = await grown(world)
        const image = await world.stop('node2')
        await world.node('node1').cluster.removeNode({ node_name: 'node2' })
        await world.start('node2', image)
        await restore(world, 'node2', copy, parts)
        await eventually('it learns of it', () => world.node('node2').cluster.manifest.nodes.length === 0)
        await world.converge()
        assert.deepEqual(world.node('node1').cluster.manifest.nodes, [])
        // Until an operation adds it again.
        await world.node('node1').ask('node2', ['dog publish'])
        await world.converge()
        assert.deepEqual(world.node('node2').held('node1'), ['dog subscribe'])
      }))

  for (const [what, change] of [
    ['configured', (one: Node) => one.configure('node2', recent)],
    ['edited', (one: Node) => one.edited('node2', recent)],
  ] as const)
    it(`while the other one was ${what}, receives its changes`, () =>
      World.with(['node1', 'node2'], async (world) => {
        const one = world.node('node1')
        await one.ask('node2', old)
        await world.converge()
        const image = await world.stop('node2')
        await change(one)
        assert.deepEqual(one.held('node2'), recent)
        // The node with the changes may have been down too.
        await world.start('node1', await world.stop('node1'))
        await world.start('node2', image)
        await world.converge()
        assert.deepEqual(world.node('node2').held('node1'), back(recent))
      }))

  it('under another name is another node with the same subscriptions', () =>
    World.with(['node1', 'node2'], async (world) => {
      const [one] = [world.node('node1')]
      await one.ask('node2', old)
      await world.converge()
      const image = await world.stop('node2')
      const { file } = new Disk(image.directory)
      await writeFile(file, (await promises.readFile(file, 'utf8')).replace('nodeName: node2', 'nodeName: node3'))
      await world.start('node3', image)
      await eventually('it is known under that name', () => same(one.held('node3'), old))
      await world.converge()
      // The old name stays in the manifest as an unreachable node until it is removed.
      assert.deepEqual(one.held('node2'), old)
      await one.cluster.removeNode({ node_name: 'node2' })
      await world.converge()
      assert.deepEqual(
        one.cluster.manifest.nodes.map(({ name }) => name),
        ['node3'],
      )
    }))
})

describe('both ends, while they are separated', { concurrency: 4 }, () => {
  // Each differs from the common state before.
  const earlierLines: Line[] = ['cat', 'dog subscribe']
  const laterLines: Line[] = ['cat publish subscribe', 'dog publish']

  for (const [first, second] of [
    ['node1', 'node2'],
    ['node2', 'node1'],
  ] as const) {
    const separated = (work: (earlier: Node, later: Node, world: World) => Promise<void>) =>
      World.with(['node1', 'node2'], async (world) => {
        await world.node('node1').ask('node2', old)
        await world.converge()
        world.network.cut('node1', 'node2')
        await work(world.node(first), world.node(second), world)
      })
    const healed = async (world: World) => {
      world.network.heal()
      await world.converge()
    }

    it(`change the same subscriptions: the last one, ${second}, wins for each table`, () =>
      separated(async (earlier, later, world) => {
        await earlier.edited(second, [...earlierLines, 'elk subscribe'])
        await later.edited(first, laterLines)
        await healed(world)
        assert.deepEqual(later.held(first), [...laterLines, 'elk publish'])
      }))

    it(`remove and change: the last one, ${second}, wins`, () =>
      separated(async (earlier, later, world) => {
        await earlier.cluster.removeNode({ node_name: second })
        await later.edited(first, laterLines)
        await healed(world)
        assert.deepEqual(later.held(first), laterLines)
      }))

    it(`change and remove: the last one, ${second}, wins`, () =>
      separated(async (earlier, later, world) => {
        await earlier.edited(second, earlierLines)
        await later.cluster.removeNode({ node_name: first })
        await healed(world)
        assert.deepEqual([...earlier.cluster.manifest.nodes, ...later.cluster.manifest.nodes], [])
      }))

    it(`fail to change them by an operation: everything is withdrawn`, () =>
      separated(async (earlier, later, world) => {
        const code = (error: { code: string }) => error.code === 'node_not_listening'
        await assert.rejects(earlier.ask(second, earlierLines), code)
        await later.edited(first, laterLines)
        await healed(world)
        assert.deepEqual(later.held(first), laterLines)
      }))
  }
})
