// Both nodes of every subscription end with mirror images, after random operations, cuts, closes and edits.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { stringify } from 'yaml'
import { ClusterManager, type Subscription } from '../../lib/index.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import fc from '../support/properties.ts'

const tables: [string, string][] = [
  ['dev', 'dog'],
  ['dev', 'cat'],
]
const superUser = { superUser: true }

class World {
  readonly network = new MemoryNetwork()
  readonly names: string[]
  readonly #directory: string
  readonly #remove: () => Promise<void>
  readonly #hosts = new Map<string, MemoryHost>()
  readonly #open = new Map<string, ClusterManager>()

  private constructor(names: string[], directory: string, remove: () => Promise<void>) {
    this.names = names
    this.#directory = directory
    this.#remove = remove
  }

  static async open(count: number): Promise<World> {
    const names = Array.from({ length: count }, (_, index) => `node${index + 1}`)
    const world = new World(names, ...(await temporaryDirectory()))
    for (const name of names) {
      world.#hosts.set(name, new MemoryHost(tables))
      const clustering = { enabled: true, nodeName: name, user: 'cluster_user' }
      await writeFile(world.file(name), stringify({ rootPath: name, clustering }))
      await world.start(name)
    }
    return world
  }

  file(name: string): string {
    return join(this.#directory, `${name}.yaml`)
  }

  manager(name: string): ClusterManager | undefined {
    return this.#open.get(name)
  }

  async start(name: string): Promise<void> {
    if (this.#open.has(name)) return
    const host = this.#hosts.get(name)!
    const options = { configFile: this.file(name), host, mesh: this.network.mesh(), requestTimeout: 2_000 }
    this.#open.set(name, await ClusterManager.open(options))
  }

  async stop(name: string): Promise<void> {
    await this.#open.get(name)?.close()
    this.#open.delete(name)
  }

  /** The subscriptions of `name` with `other`, mirrored. */
  mirror(name: string, other: string): string[] {
    const node = this.manager(name)?.manifest.nodes.find((each) => each.name === other)
    return (node?.subscriptions ?? []).map(({ table, publish, subscribe }) => `${table} ${subscribe} ${publish}`).sort()
  }

  held(name: string, other: string): string[] {
    const flip = (text: string) => text.replace(/ (\w+) (\w+)$/, ' $2 $1')
    return this.mirror(name, other).map(flip).sort()
  }

  differences(): string[] {
    return this.names.flatMap((name) =>
      this.names
        .filter((other) => other > name && this.held(name, other).join() !== this.mirror(other, name).join())
        .map((other) => `${name} holds ${this.held(name, other)}, ${other} mirrors ${this.mirror(other, name)}`),
    )
  }

  async close(): Promise<void> {
    for (const name of this.names) await this.stop(name)
    await this.network.close()
    await this.#remove()
  }
}

type Step = (world: World) => Promise<unknown>
type Pair = [name: string, other: string]

const pair = (count: number) =>
  fc
    .tuple(fc.nat(count - 1), fc.nat(count - 2))
    .map(([a, b]): Pair => [`node${a + 1}`, `node${(b >= a ? b + 1 : b) + 1}`])
const subscription = fc.record({
  database: fc.constant('dev'),
  table: fc.constantFrom('dog', 'cat'),
  publish: fc.boolean(),
  subscribe: fc.boolean(),
})

/** Edits the file as a person would: the whole section of one node. */
async function edit(world: World, [name, other]: Pair, subscriptions: Subscription[] | undefined): Promise<void> {
  const manager = world.manager(name)
  if (!manager) return
  const text = await readFile(world.file(name), 'utf8')
  const nodes = manager.manifest.nodes.filter((node) => node.name !== other)
  const list = subscriptions ? [...nodes, { name: other, subscriptions }] : nodes
  const section = list.length > 0 ? stringify({ nodes: list }).replace(/^/gm, '  ').trimEnd() : '  nodes: null'
  const without = text.replace(/^ {2}nodes:.*\n(?: {3,}.*\n| {2}- .*\n)*/m, '')
  await writeFile(world.file(name), `${without.trimEnd()}\n${section}\n`)
}

const label = (text: string, step: Step): Step => Object.assign(step, { toString: () => text })

/** One random step. It may reject only because the remote node is down or rejects. */
function steps(count: number): fc.Arbitrary<Step> {
  const request = (world: World, name: string, body: object) =>
    world
      .manager(name)
      ?.execute(body, superUser)
      .catch(() => {})
  return fc.oneof(
    {
      weight: 6,
      arbitrary: fc
        .tuple(pair(count), subscription)
        .map(([[name, node_name], each]) =>
          label(`${name} updates ${node_name} ${JSON.stringify(each)}`, async (world) =>
            request(world, name, { operation: 'set_node_replication', node_name, subscriptions: [each] }),
          ),
        ),
    },
    {
      weight: 2,
      arbitrary: fc
        .tuple(pair(count), subscription, subscription)
        .map(([[a, b], one, two]) =>
          label(`${a} and ${b} at once`, async (world) =>
            Promise.all([
              request(world, a, { operation: 'set_node_replication', node_name: b, subscriptions: [one] }),
              request(world, b, { operation: 'set_node_replication', node_name: a, subscriptions: [two] }),
            ]),
          ),
        ),
    },
    {
      weight: 2,
      arbitrary: pair(count).map(([name, node_name]) =>
        label(`${name} removes ${node_name}`, async (world) =>
          request(world, name, { operation: 'remove_node', node_name }),
        ),
      ),
    },
    {
      weight: 2,
      arbitrary: fc.tuple(pair(count), subscription).map(([[name, node_name], each]) =>
        label(`${name} is configured with ${node_name} alone`, async (world) =>
          request(world, name, {
            operation: 'configure_cluster',
            connections: [{ node_name, subscriptions: [each] }],
          }),
        ),
      ),
    },
    {
      weight: 2,
      arbitrary: fc
        .tuple(pair(count), subscription)
        .map(([both, each]) =>
          label(`${both} edited ${JSON.stringify(each)}`, async (world) => edit(world, both, [each])),
        ),
    },
    {
      weight: 1,
      arbitrary: pair(count).map((both) => label(`${both} edited away`, async (world) => edit(world, both, undefined))),
    },
    {
      weight: 3,
      arbitrary: pair(count).map(([a, b]) => label(`cut ${a} ${b}`, async (world) => world.network.cut(a, b))),
    },
    {
      weight: 2,
      arbitrary: pair(count).map(([a, b]) => label(`heal ${a} ${b}`, async (world) => world.network.heal(a, b))),
    },
    { weight: 1, arbitrary: pair(count).map(([a]) => label(`stop ${a}`, async (world) => world.stop(a))) },
    { weight: 1, arbitrary: pair(count).map(([a]) => label(`start ${a}`, async (world) => world.start(a))) },
  )
}

describe('negotiation', { concurrency: 4 }, () => {
  // Deterministic; SEED selects other runs, RUNS their number.
  const seed = Number(process.env.SEED) || 1_880_149_186
  after(() => console.log(`SEED=${seed}`))

  for (const count of [2, 3, 4, 5])
    it(`of ${count} nodes ends with mirror images after any sequence of steps`, { timeout: 120_000 }, async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(steps(count), { minLength: 3, maxLength: 12 }), async (all) => {
          const world = await World.open(count)
          try {
            for (const step of all) await step(world)
            world.network.heal()
            for (const name of world.names) await world.start(name)
            // Removals in an edit take effect after 2 s.
            await eventually('mirror images', () => world.differences().length === 0, 40_000).catch(() =>
              assert.deepEqual(world.differences(), []),
            )
          } finally {
            await world.close()
          }
        }),
        { seed, numRuns: Number(process.env.RUNS) || 6, endOnFailure: true },
      )
    })
})
