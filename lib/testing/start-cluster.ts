// Clusters for tests: managers on real servers or on a network in memory, each with a database in memory.

import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClusterOptions } from '../cluster/options.ts'
import { ClusterManager } from '../cluster-manager.ts'
import type { ClusterError } from '../errors.ts'
import type { EventName, Payload } from '../events/events.ts'
import type { Checkpoint, Host, PublishedPosition } from '../host/host.ts'
import type { MemoryNetwork } from '../mesh/memory/memory-network.ts'
import { clearTimeout, setTimeout } from '../util/timers.ts'
import { eventually } from './eventually.ts'
import { freePorts } from './free-ports.ts'
import { type ClusterDirectory, createClusterDirectory } from './leftovers.ts'
import { MemoryHost, type MemoryHostOptions } from './memory-host.ts'

type ManagerOptions = Partial<Omit<ClusterOptions, 'configFile' | 'host' | 'mesh'>>

export type StartOptions<H extends Host = MemoryHost> = {
  /** Connects all nodes in memory. Default: two nats-servers for each node, on free ports of 127.0.0.1. */
  network?: MemoryNetwork
  /** Tables of every node. Every pair of nodes subscribes to them in both directions, unless `subscribe` is false. */
  tables?: MemoryHostOptions['tables']
  subscribe?: boolean
  /** More keys for the section `clustering` of a node's file, such as `republishMessages` or `leafServer.streams`. */
  clustering?: (name: string) => Record<string, unknown>
  /** The database of a node. Its method `attach`, if it has one, is called with the manager at each start. Default: a `MemoryHost` with `tables`. */
  host?: (name: string) => H | Promise<H>
  /** Options of each manager: limits, time-outs, `natsServer`, `logger`. */
  options?: ManagerOptions | ((name: string) => ManagerOptions)
  /** ms within which the cluster must be complete. Default: 30,000. */
  timeout?: number
}

const USER = 'cluster_user'
const PASSWORD = 'of-a-cluster-for-tests'

/** One node. Its files and its database outlive `stop`. */
export class ClusterNode<H extends Host = MemoryHost> {
  readonly name: string
  readonly host: H
  readonly directory: string
  readonly configFile: string
  /** The hub's port for other hubs, which a route to this node contains. Undefined on a network in memory. */
  readonly port: number | undefined
  readonly #open: () => Promise<ClusterManager>
  #cluster: ClusterManager | undefined

  constructor(
    files: Pick<ClusterNode<H>, 'name' | 'host' | 'directory' | 'configFile' | 'port'>,
    open: () => Promise<ClusterManager>,
  ) {
    this.name = files.name
    this.host = files.host
    this.directory = files.directory
    this.configFile = files.configFile
    this.port = files.port
    this.#open = open
  }

  /** The manager. Throws while the node is stopped. */
  get cluster(): ClusterManager {
    if (!this.#cluster) throw new Error(`${this.name} is stopped`)
    return this.#cluster
  }

  get isRunning(): boolean {
    return this.#cluster !== undefined
  }

  /** Opens the manager on the existing files and database. Does nothing while it is open. */
  async start(): Promise<void> {
    if (this.#cluster) return
    this.#cluster = await this.#open()
    const { attach } = this.host as { attach?: (cluster: ClusterManager) => unknown }
    if (typeof attach === 'function') attach.call(this.host, this.#cluster)
  }

  /**
   * The next event of this node; with `where`, the next one that fits. Rejects after `timeout` ms of the system's time (default 15,000) with an
   * Error that names the event and the node, and closed when the node is stopped.
   */
  async once<Name extends EventName>(
    event: Name,
    { where, timeout = 15_000 }: { where?: (payload: Payload<Name>) => boolean; timeout?: number } = {},
  ): Promise<Payload<Name>> {
    const expiry = new AbortController()
    const timer = setTimeout(
      () => expiry.abort(new Error(`not within ${timeout} ms: ${event} of ${this.name}`)),
      timeout,
    )
    try {
      return await this.cluster.events.once(event, { signal: expiry.signal, ...(where && { where }) })
    } finally {
      clearTimeout(timer)
    }
  }

  /** Closes the manager, which stops its servers. */
  async stop(): Promise<void> {
    const cluster = this.#cluster
    this.#cluster = undefined
    await cluster?.close()
  }
}

/** A running cluster. `await using`, or `close`, ends all nodes and removes their directories. */
export class TestingCluster<H extends Host = MemoryHost> {
  readonly nodes: readonly ClusterNode<H>[]
  readonly #directory: ClusterDirectory
  readonly #seed: number | undefined

  constructor(nodes: readonly ClusterNode<H>[], directory: ClusterDirectory, seed?: number) {
    this.nodes = nodes
    this.#directory = directory
    this.#seed = seed
  }

  /** Throws for an unknown name. */
  node(name: string): ClusterNode<H> {
    const found = this.nodes.find((each) => each.name === name)
    if (!found) throw new Error(`no node '${name}' among ${this.nodes.map((each) => each.name).join(', ')}`)
    return found
  }

  /**
   * Resolves when every outbox is empty and every running node has applied everything that the other running nodes published. What is in
   * quarantine, was lost or was discarded is not waited for. Rejects after `timeout` ms (default 15,000) with what is missing,
   * by node, table and transaction. For hosts with an outbox.
   */
  async converged(timeout = 15_000): Promise<void> {
    let pendingReason = ''
    const running = this.nodes.filter((node) => node.isRunning)
    const hasConverged = async () => {
      for (const { name, host } of running)
        for await (const { id } of host.readOutbox?.() ?? []) {
          pendingReason = `transaction ${id} is in the outbox of ${name}`
          return false
        }
      for (const { name, cluster, host } of running)
        for (const { source, state, error } of cluster.subscriptions()) {
          const owner = running.find((each) => each.name === source.node)
          if (!owner) continue
          const end = await owner.host.publishedPosition?.(source.database, source.table)
          const checkpoint = await host.loadCheckpoint(source)
          const lacking = end && lackingOf(end, checkpoint)
          const reason = [lacking, ...(state === 'live' ? [] : [`it is ${state}`, error])].filter(Boolean).join(', ')
          pendingReason = `${name}, table ${source.database}.${source.table} of ${source.node}: ${reason}`
          if (reason !== '') return false
        }
      return true
    }
    await eventually(
      () => `the cluster has converged: ${pendingReason}${seedText(this.#seed)}`,
      async () => (await hasConverged()) && hasConverged(),
      timeout,
    )
  }

  /** Idempotent. */
  async close(): Promise<void> {
    const closed = await Promise.allSettled(this.nodes.map((node) => node.stop()))
    await this.#directory.remove()
    const failure = closed.find((result) => result.status === 'rejected')
    if (failure) throw failure.reason
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/**
 * Starts nodes `node1`, `node2` and so on, or with the given names, and links them. Resolves when all nodes see each other and, with
 * `tables`, every subscription is live. Rejects as `ClusterManager.open` does, and with an Error after `timeout`; everything that
 * was started is closed then.
 */
export async function startCluster<H extends Host = MemoryHost>(
  nodes: number | readonly string[],
  options: StartOptions<H> = {},
): Promise<TestingCluster<H>> {
  const names = typeof nodes === 'number' ? Array.from({ length: nodes }, (_, index) => `node${index + 1}`) : nodes
  if (names.length === 0 || !names.every((name) => typeof name === 'string' && name !== ''))
    throw new TypeError(`'nodes' must be a number of at least 1, or an array of names; received ${String(nodes)}`)
  const { network, tables = [], subscribe = true, timeout = 30_000 } = options
  network?.declare(...names)
  const directory = await createClusterDirectory()
  const host = options.host ?? (() => new MemoryHost({ tables }) as Host as H)
  const managerOptions = (name: string) =>
    typeof options.options === 'function' ? options.options(name) : options.options
  const open = (name: string, configFile: string, host: H) => () =>
    ClusterManager.open({
      password: PASSWORD,
      ...managerOptions(name),
      configFile,
      host,
      ...(network ? { mesh: network.mesh(name) } : {}),
    })
  const started: ClusterNode<H>[] = []
  const cluster = new TestingCluster(started, directory, network?.seed)
  try {
    for (const name of names) {
      const ports = network ? undefined : await freePorts(4)
      const nodeDirectory = await mkdtemp(join(directory.path, `${name.slice(0, 50)}-`))
      const configFile = join(nodeDirectory, 'config.yaml')
      await writeFile(configFile, configText(name, ports, started[0]?.port, options.clustering?.(name)), {
        mode: 0o600,
      })
      const database = await host(name)
      started.push(
        new ClusterNode(
          { name, host: database, directory: nodeDirectory, configFile, port: ports?.[0] },
          open(name, configFile, database),
        ),
      )
    }
    const [first, ...others] = started
    await first!.start()
    await Promise.all(others.map((node) => node.start()))
    await waitUntilLinked(started, timeout)
    if (subscribe && tables.length > 0) await subscribeAll(started, tables, timeout)
    return cluster
  } catch (error) {
    await cluster.close().catch(() => {})
    if (error instanceof Error) error.message += seedText(network?.seed)
    throw error
  }
}

/** What a node has not reached of a stream that ends there; undefined at the end. */
function lackingOf(end: PublishedPosition, checkpoint: Checkpoint | undefined): string | undefined {
  const { epoch, sequence, index: last, partial } = end
  if (last === 0 && (sequence === 0 || checkpoint?.epoch === epoch)) return undefined
  // The same number in another epoch is another transaction.
  if (checkpoint?.epoch !== epoch) return `nothing of the ${last} transactions since the stream began again is applied`
  const { index = 0 } = checkpoint
  // A subscription that began at the end of the stream may not know the number of the last transaction there.
  if (index >= last || (!partial && checkpoint.sequence >= sequence)) return undefined
  return `transactions ${index + 1} to ${last} are not applied`
}

/** For errors: with the seed, the run can be repeated. */
const seedText = (seed: number | undefined) => (seed === undefined ? '' : ` (seed ${seed})`)

/** The file of a node. All nodes but the first have a route to the first. */
function configText(
  name: string,
  ports: readonly number[] | undefined,
  first: number | undefined,
  { leafServer = {}, ...more }: { leafServer?: object; [key: string]: unknown } = {},
): string {
  const lines = [
    'clustering:',
    '  enabled: true',
    `  nodeName: ${JSON.stringify(name)}`,
    `  user: ${USER}`,
    ...Object.entries(more).map(([key, value]) => `  ${key}: ${JSON.stringify(value)}`),
  ]
  if (!ports) return [...lines, `  leafServer: ${JSON.stringify(leafServer)}`, ''].join('\n')
  const [cluster, leafNodes, hub, leaf] = ports
  return [
    ...lines,
    '  hubServer:',
    '    cluster:',
    '      network:',
    `        port: ${cluster}`,
    ...(first === undefined ? [] : ['        routes:', `          - { host: 127.0.0.1, port: ${first} }`]),
    `    leafNodes: { network: { port: ${leafNodes} } }`,
    `    network: { port: ${hub} }`,
    `  leafServer: ${JSON.stringify({ network: { port: leaf }, ...leafServer })}`,
    '',
  ].join('\n')
}

/** Resolves when each node sees all nodes in the network. */
async function waitUntilLinked(nodes: readonly ClusterNode<Host>[], timeout: number): Promise<void> {
  for (const { name, cluster } of nodes) {
    let seen: string[] = []
    await eventually(
      () => `${name} sees all ${nodes.length} nodes, it sees ${seen.join(', ')}`,
      async () => {
        const network = await cluster.network({ timeout: 500 })
        seen = network.nodes.map((each) => each.name)
        return seen.length >= nodes.length
      },
      timeout,
    )
  }
}

async function subscribeAll(
  nodes: readonly ClusterNode<Host>[],
  tables: NonNullable<MemoryHostOptions['tables']>,
  timeout: number,
): Promise<void> {
  const subscriptions = tables.map(({ database, table }) => ({ database, table, publish: true, subscribe: true }))
  for (const [index, { name, cluster }] of nodes.entries())
    for (const other of nodes.slice(0, index))
      await eventually(
        `${name} agrees with ${other.name}`,
        async () => {
          // A visible node may not answer requests yet.
          const answer = await cluster.updateNode({ node_name: other.name, subscriptions }).catch((error) => {
            if ((error as ClusterError).code !== 'node_not_listening') throw error
            return undefined
          })
          const { skipped } = answer ?? {}
          if (!skipped) return false
          if (skipped.length === 0) return true
          throw new Error(
            `no table ${skipped.map(({ table }) => table).join(', ')} on ${name} or ${other.name}: it does not exist in their hosts`,
          )
        },
        timeout,
      )
  for (const { name, cluster } of nodes)
    await eventually(
      `${name} sees all peers up, and all its subscriptions are live`,
      () => cluster.peers().every(({ up }) => up) && cluster.subscriptions().every(({ state }) => state === 'live'),
      timeout,
    )
}
