// Clusters of `startCluster` on a network in memory whose nodes start one by one, with their events recorded.

import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { ClusterManager, ClusterOptions, EventName, Payload } from '../../lib/index.ts'
import type { MemoryMesh } from '../../lib/mesh/memory/memory-mesh.ts'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import {
  type ClusterNode,
  eventually,
  MemoryNetwork,
  startCluster,
  type TestClock,
  type TestingCluster,
} from '../../lib/testing.ts'
import { insert, MemoryHost } from './memory-host.ts'

const watched = [
  'replication:gap',
  'replication:diverged',
  'replication:quarantined',
  'replication:stalled',
  'peer:up',
  'peer:down',
  'connection:rejected',
] as const

export const dog = { database: 'dev', table: 'dog' }
export const both = [{ ...dog, publish: true, subscribe: true }]
export const numbered = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, index) => `${prefix}-${index}`)

/**
 * Nodes that share a busy process may answer each other late. With a clock that the test advances, requests have the usual time: what is
 * lost is then asked again while little of it passes.
 */
export const requestOptions = (clock: TestClock | undefined) => (clock ? {} : { requestTimeout: 30_000 })

export type MemoryNodeOptions = {
  /** Options of the manager. */
  options?: Partial<ClusterOptions>
  /** Keys of the configuration section `clustering`. */
  clustering?: Record<string, unknown>
  /** Default: a database with the table `dev.dog`. */
  host?: MemoryHost
}

/** The network of a scene: remembers the mesh of the node that started last. */
class SceneNetwork extends MemoryNetwork {
  /** Used for the next node instead of another one. */
  next: Mesh | undefined
  last!: Mesh

  override mesh(node?: string): MemoryMesh {
    this.last = this.next ?? super.mesh(node)
    this.next = undefined
    return this.last as MemoryMesh
  }
}

export class MemoryNode {
  readonly events: { [Name in EventName]?: Payload<Name>[] } = {}
  readonly #node: ClusterNode<MemoryHost>
  readonly #network: SceneNetwork
  /** Options of the next start. */
  readonly #options: { next: Partial<ClusterOptions> }
  mesh!: Mesh
  cluster!: ClusterManager

  constructor(node: ClusterNode<MemoryHost>, network: SceneNetwork, options: { next: Partial<ClusterOptions> }) {
    this.#node = node
    this.#network = network
    this.#options = options
    for (const event of watched) this.events[event] = []
    this.#onStart()
  }

  get name(): string {
    return this.#node.name
  }

  /** That of its configuration file. */
  get directory(): string {
    return this.#node.directory
  }

  get host(): MemoryHost {
    return this.#node.host
  }

  get configFile(): string {
    return this.#node.configFile
  }

  async open({ mesh, ...options }: Partial<ClusterOptions> = {}): Promise<void> {
    this.#network.next = mesh
    this.#options.next = options
    await this.#node.stop()
    await this.#node.start()
    this.#onStart()
  }

  async reopen(options: Partial<ClusterOptions> = {}): Promise<void> {
    await this.cluster.close()
    await this.open(options)
  }

  #onStart(): void {
    this.cluster = this.#node.cluster
    this.mesh = this.#network.last
    for (const name of watched)
      this.cluster.on(name, (payload: unknown) => void (this.events[name] as unknown[]).push(payload))
  }

  /** Writes one row for each id, each in a separate transaction. Resolves when the local stream has stored them. */
  async write(ids: readonly string[], table = 'dog'): Promise<void> {
    await Promise.all(ids.map((id) => this.host.write(id, insert(table, { id }))))
  }

  /** As `write`, one after the other, so that each transaction has its own message. */
  async writeEach(ids: readonly string[], table = 'dog'): Promise<void> {
    for (const id of ids) await this.write([id], table)
  }

  /** Ids of the transactions from a remote node, in order. */
  from({ name }: MemoryNode, table = 'dog'): string[] {
    return this.host.from(name, table).map(({ id }) => id)
  }

  /** `[source, from, to, reason]` of each gap. */
  gaps() {
    return this.events['replication:gap']!.map(({ source, from, to, reason }) => [source.node, from, to, reason])
  }

  /** The subscription to a table of a remote node. */
  of({ name }: MemoryNode, table = 'dog') {
    return this.cluster.subscriptions().find(({ source }) => source.node === name && source.table === table)!
  }
}

export class Scene {
  readonly network: SceneNetwork
  readonly nodes: MemoryNode[] = []
  readonly #clusters: TestingCluster<MemoryHost>[] = []
  readonly #clock: TestClock | undefined

  /** With `clock`, the nodes use it instead of the system's time. */
  constructor(test: TestContext, { seed, clock }: { seed?: number; clock?: TestClock } = {}) {
    this.#clock = clock
    this.network = new SceneNetwork({ ...(seed !== undefined && { seed }), ...(clock && { clock }) })
    test.after(async () => {
      const closed = await Promise.allSettled(this.#clusters.map((cluster) => cluster.close()))
      await this.network.close()
      for (const result of closed) if (result.status === 'rejected') throw result.reason
    })
  }

  async start(name: string, { options = {}, clustering = {}, host }: MemoryNodeOptions = {}): Promise<MemoryNode> {
    const { mesh, ...others } = options
    this.network.next = mesh
    const optionsOf = { next: others }
    const cluster = await startCluster([name], {
      network: this.network,
      host: () => host ?? new MemoryHost([['dev', 'dog']]),
      options: () => ({ ...requestOptions(this.#clock), ...optionsOf.next }),
      clustering: () => clustering,
    })
    this.#clusters.push(cluster)
    const node = new MemoryNode(cluster.nodes[0]!, this.network, optionsOf)
    this.nodes.push(node)
    return node
  }

  /** A full mesh: every node subscribes to the table `dog` of every other node. */
  async mesh(...names: string[]): Promise<MemoryNode[]> {
    return this.linked(names, (_, __) => true)
  }

  /** Nodes that replicate the table `dog` both ways where `isLink` returns true for their indexes, the larger first. */
  async linked(
    names: readonly string[],
    isLink: (index: number, other: number) => boolean,
    options: MemoryNodeOptions = {},
  ): Promise<MemoryNode[]> {
    const nodes: MemoryNode[] = []
    for (const [index, name] of names.entries()) {
      const node = await this.start(name, options)
      for (const [number, other] of nodes.entries())
        if (isLink(index, number)) await node.cluster.addNode({ node_name: other.name, subscriptions: both })
      nodes.push(node)
    }
    await this.quiet()
    return nodes
  }

  /** Resolves when every outbox is empty and every checkpoint is at the end of its stream. */
  async quiet(timeout = 20_000): Promise<void> {
    let pendingReason = ''
    const isQuiet = async () => {
      for (const { name, host, cluster, mesh } of this.nodes) {
        pendingReason = `${host.outbox.length} transactions are in the outbox of ${name}`
        if (host.outbox.length > 0) return false
        for (const { source, state, error = '' } of cluster.subscriptions()) {
          const stream = await mesh.streamState(source, { timeout: 1_000 }).catch(() => undefined)
          // The same sequence in another epoch is another position.
          const { epoch = '', sequence = 0 } = (await host.loadCheckpoint(source)) ?? {}
          pendingReason = `${name} is at ${sequence} of ${stream?.lastSequence} of ${source.node}, ${state} ${error}`
          const current = stream && parseStreamMetadata(stream.description).epochs.at(-1)?.epoch
          if (sequence !== stream?.lastSequence || epoch !== current || state !== 'live') return false
        }
      }
      return true
    }
    await eventually(() => `all nodes are quiet: ${pendingReason}`, isQuiet, timeout)
  }

  /** Asserts that every node applied the writes of every other node once and in order, and that all databases are equal. */
  assertEqual(written: ReadonlyMap<MemoryNode, readonly string[]>): void {
    for (const node of this.nodes) {
      for (const other of this.nodes)
        if (other !== node) assert.deepEqual(node.from(other), written.get(other), `${node.name} of ${other.name}`)
      assert.equal(new Set(node.host.applied).size, node.host.applied.length, `${node.name} applied something twice`)
      assert.deepEqual(node.host.contents('dev', 'dog'), this.nodes[0]!.host.contents('dev', 'dog'))
      assert.deepEqual(node.events['replication:quarantined'], [])
    }
  }
}
