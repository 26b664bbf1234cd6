// Whole cluster managers on a network in memory, each with a database in memory.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { stringify } from 'yaml'
import { ClusterManager, type ClusterOptions, type EventName, type Payload } from '../../lib/index.ts'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { eventually, temporaryDirectory } from './cluster.ts'
import { insert, MemoryHost } from './memory-host.ts'

const watched = [
  'replication:gap',
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

export type MemoryNodeOptions = {
  /** Options of the manager. */
  options?: Partial<ClusterOptions>
  /** Keys of the configuration section `clustering`. */
  clustering?: object
}

export class MemoryNode {
  host = new MemoryHost([['dev', 'dog']])
  readonly events: { [Name in EventName]?: Payload<Name>[] } = {}
  readonly name: string
  readonly configFile: string
  readonly #network: MemoryNetwork
  mesh!: Mesh
  cluster!: ClusterManager

  constructor(name: string, network: MemoryNetwork, configFile: string) {
    this.name = name
    this.#network = network
    this.configFile = configFile
    for (const event of watched) this.events[event] = []
  }

  async open(options: Partial<ClusterOptions> = {}): Promise<void> {
    this.mesh = this.#network.mesh(this.name)
    const { host, mesh } = this
    this.cluster = await ClusterManager.open({ configFile: this.configFile, host, mesh, ...options })
    host.timestamp = () => this.cluster.timestamp()
    host.publish = (transaction) => this.cluster.publish(transaction)
    for (const name of watched)
      this.cluster.on(name, (payload: unknown) => void (this.events[name] as unknown[]).push(payload))
  }

  async reopen(options: Partial<ClusterOptions> = {}): Promise<void> {
    await this.cluster.close()
    await this.open(options)
  }

  /** Writes one row for each id, each in a separate transaction. Resolves when the local stream has stored them. */
  async write(ids: readonly string[], table = 'dog'): Promise<void> {
    await Promise.all(ids.map((id) => this.host.write(id, insert(table, { id }))))
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
  readonly network: MemoryNetwork
  readonly nodes: MemoryNode[] = []
  readonly #test: TestContext

  constructor(test: TestContext, seed?: number) {
    this.#test = test
    this.network = new MemoryNetwork(seed === undefined ? {} : { seed })
    test.after(async () => {
      await Promise.all(this.nodes.map(({ cluster }) => cluster?.close()))
      await this.network.close()
    })
  }

  async start(name: string, { options, clustering }: MemoryNodeOptions = {}): Promise<MemoryNode> {
    const [directory, remove] = await temporaryDirectory()
    const configFile = join(directory, 'config.yaml')
    const section = { enabled: true, nodeName: name, user: 'cluster_user', ...clustering }
    await writeFile(configFile, stringify({ clustering: section }))
    const node = new MemoryNode(name, this.network, configFile)
    this.#test.after(remove)
    await node.open(options)
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
