// Real nodes for integration tests: a manager each on free ports and a folder of its own, everything gone afterwards.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { stringify } from 'yaml'
import { ClusterManager, type ClusterOptions } from '../../lib/index.ts'
import { MemoryHost } from './memory-host.ts'

/** Ports that nobody listens on, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const server = createServer()
      return new Promise<typeof server>((resolve, reject) => {
        server.once('error', reject)
        server.listen(0, '127.0.0.1', () => resolve(server))
      })
    }),
  )
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** A folder of its own, removed by the returned function. */
export async function temporaryFolder(): Promise<[path: string, remove: () => Promise<void>]> {
  const path = await mkdtemp(join(tmpdir(), 'enmesh-'))
  return [path, () => rm(path, { recursive: true, force: true, maxRetries: 5 })]
}

/** Resolves with what `probe` gives as soon as that is neither undefined nor false; rejects after `timeout` ms with what was awaited. */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeout = 15_000,
): Promise<T> {
  const end = Date.now() + timeout
  for (;;) {
    const value = await probe()
    if (value !== undefined && value !== false) return value
    if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${what}`)
    await delay(10)
  }
}

export type NodePorts = { cluster: number; leafNodes: number; hub: number; leaf: number }
export const clusterPassword = 'cluster pass:word/1'

/** The clustering section of a node's file. */
export const clusteringOf = (name: string, ports: NodePorts, routes: number[] = [], more: object = {}) => ({
  enabled: true,
  nodeName: name,
  user: 'cluster_user',
  hubServer: {
    cluster: {
      name: 'harperdb',
      network: { port: ports.cluster, routes: routes.map((port) => ({ host: '127.0.0.1', port })) },
    },
    leafNodes: { network: { port: ports.leafNodes } },
    network: { port: ports.hub },
  },
  leafServer: { network: { port: ports.leaf, routes: null } },
  ...more,
})

export type TestNode = {
  name: string
  ports: NodePorts
  configFile: string
  host: MemoryHost
  cluster: ClusterManager
  /** Process ids of the two servers, as their pid files say. */
  pid(server: 'hub' | 'leaf'): Promise<number>
  /** Closes the manager and opens another on the same files and the same database. */
  reopen(): Promise<void>
}

export type NodeOptions = {
  routes?: number[]
  tables?: [string, string][]
  clustering?: object
  options?: Partial<ClusterOptions>
}

/** A scope of nodes: whatever was started in it ends with `close`, also after a failure. */
export class TestCluster {
  readonly nodes: TestNode[] = []
  readonly #removals: (() => Promise<void>)[] = []

  async start(name: string, { routes = [], tables = [], clustering = {}, options = {} }: NodeOptions = {}): Promise<TestNode> {
    const [folder, remove] = await temporaryFolder()
    this.#removals.push(remove)
    const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
    const ports = { cluster, leafNodes, hub, leaf }
    const configFile = join(folder, 'config.yaml')
    await writeFile(configFile, stringify({ clustering: clusteringOf(name, ports, routes, clustering) }))
    const host = new MemoryHost(tables)
    const open = async () => {
      node.cluster = await ClusterManager.open({ configFile, host, password: clusterPassword, ...options })
      host.stamp = () => node.cluster.stamp()
      host.publish = (transaction) => node.cluster.publish(transaction)
    }
    const node: TestNode = {
      name,
      ports,
      configFile,
      host,
      cluster: undefined as unknown as ClusterManager,
      pid: async (server) => Number(await readFile(join(folder, 'clustering', `${server}.pid`), 'utf8')),
      reopen: async () => {
        await node.cluster.close()
        await open()
      },
    }
    await open()
    this.nodes.push(node)
    return node
  }

  /** Nodes with these names, each routed to the first. */
  async startAll(names: string[], options: NodeOptions = {}): Promise<TestNode[]> {
    const first = await this.start(names[0]!, options)
    const others = await Promise.all(
      names.slice(1).map((name) => this.start(name, { ...options, routes: [first.ports.cluster] })),
    )
    return [first, ...others]
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map(({ cluster }) => cluster.close()))
    for (const remove of this.#removals) await remove()
  }
}

/** Resolves when each of these nodes hears each other. */
export async function allMet(nodes: readonly TestNode[]): Promise<void> {
  for (const node of nodes)
    for (const other of nodes)
      if (other !== node)
        await eventually(`${node.name} reaches ${other.name}`, async () => {
          const { nodes: members } = await node.cluster.network({ timeout: 500 })
          return members.some(({ name }) => name === other.name)
        })
}
