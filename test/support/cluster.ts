// Real nodes for integration tests: a manager each on free ports and in a temporary directory, removed afterwards.

import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import { inspect } from 'node:util'
import { connect, type NatsConnection, type StreamInfo } from 'nats'
import { stringify } from 'yaml'
import {
  ClusterError,
  ClusterManager,
  type ClusterOptions,
  type EventName,
  type Logger,
  type Payload,
} from '../../lib/index.ts'
import { eventually, freePorts } from '../../lib/testing.ts'
import { MemoryHost } from './memory-host.ts'
import { programArguments } from './program.ts'
import { clusterPassword, containsSecret, leaksIn } from './secrets.ts'

export { clusterPassword, eventually, freePorts }

/** A temporary directory. The returned function removes it, and rejects when a file in it leaked a secret. */
export async function temporaryDirectory(): Promise<[path: string, remove: () => Promise<void>]> {
  const path = await mkdtemp(join(tmpdir(), 'enmesh-'))
  const remove = async () => {
    const leaks = await leaksIn(path)
    await rm(path, { recursive: true, force: true, maxRetries: 5 })
    if (leaks.length > 0) throw new Error(`secrets were written to ${leaks.join(', ')}`)
  }
  return [path, remove]
}

export type NodePorts = { cluster: number; leafNodes: number; hub: number; leaf: number }
export type ServerKind = 'hub' | 'leaf'
export const clusterUser = 'cluster_user'
/** The clustering section of a node's file. */
export const clusteringOf = (name: string, ports: NodePorts, routes: number[] = [], more: { tls?: object } = {}) => ({
  enabled: true,
  nodeName: name,
  user: clusterUser,
  hubServer: {
    cluster: {
      name: 'harperdb',
      network: {
        // With certificates it would listen everywhere.
        ...(more.tls ? { host: '127.0.0.1' } : {}),
        port: ports.cluster,
        routes: routes.map((port) => ({ host: '127.0.0.1', port })),
      },
    },
    leafNodes: { network: { port: ports.leafNodes } },
    network: { port: ports.hub },
  },
  leafServer: { network: { port: ports.leaf, routes: null } },
  ...more,
})

/** Whether this process exists and is not a zombie. */
export async function isRunning(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return stat !== '' && !/^\d+ \(.*\) [ZX]/s.test(stat)
}

/** Resolves when the process is stopped: SIGSTOP takes effect asynchronously. */
export const stopped = (pid: number) =>
  eventually(`process ${pid} is stopped`, async () => / T /.test(await readFile(`/proc/${pid}/stat`, 'utf8')))

/** The files of a node. */
export type NodeFiles = { name: string; ports: NodePorts; directory: string; configFile: string }

/** Process id of a server of these files, as its pid file says; undefined when that does not run. */
export async function serverPid(
  { directory }: Pick<NodeFiles, 'directory'>,
  server: ServerKind,
): Promise<number | undefined> {
  const pid = Number(await readFile(join(directory, 'clustering', `${server}.pid`), 'utf8').catch(() => ''))
  if (!(pid > 0) || !(await isRunning(pid))) return undefined
  // A pid file outlives its server, and another process may have the pid.
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return command.includes(join(directory, 'clustering', `${server}.json`)) ? pid : undefined
}

/** Process ids of both servers of each node. Waits for servers that are starting. */
export const serversOf = (nodes: readonly NodeFiles[]): Promise<number[]> =>
  Promise.all(
    nodes.flatMap((node) =>
      (['hub', 'leaf'] as const).map((kind) =>
        eventually(`the ${kind} of ${node.name} runs`, () => serverPid(node, kind)),
      ),
    ),
  )

const eventNames = [
  'manifest:changed',
  'route:added',
  'route:removed',
  'node:added',
  'node:updated',
  'node:removed',
  'config:rejected',
  'config:missing',
  'config:warning',
  'peer:up',
  'peer:down',
  'connection:rejected',
  'certificates:replaced',
  'certificates:rejected',
  'node:superseded',
  'subscription:state',
  'replication:applied',
  'replication:gap',
  'replication:diverged',
  'replication:stalled',
  'replication:quarantined',
  'mesh:state',
  'progress',
  'listener:failed',
] as const satisfies readonly EventName[]

export type TestNode = NodeFiles & {
  host: MemoryHost
  cluster: ClusterManager
  /** Process id of a server, from its pid file. Waits for a server that is starting. */
  pid(server: ServerKind): Promise<number>
  /** Sends SIGKILL, or another signal, to a server. Resolves with its pid. */
  kill(server: ServerKind, signal?: NodeJS.Signals): Promise<number>
  /** Resolves with the pid of the server that replaces `previous`. */
  replaced(server: ServerKind, previous: number, timeout?: number): Promise<number>
  /** The payloads of this event so far, in order, including those before a reopen. */
  seen<Name extends EventName>(name: Name): Payload<Name>[]
  /** The last log lines without those of the level debug, for errors of tests. */
  recentLog(): string
  /** Closes the manager and opens a new one on the same files and database. */
  reopen(): Promise<void>
}

/** A node in a separate process, which tests can kill or stop. */
export type SpawnedNode = NodeFiles & { child: ChildProcess }

export type NodeOptions = {
  routes?: number[]
  tables?: [string, string][]
  clustering?: object
  options?: Partial<ClusterOptions>
  /** false: a host without the methods of an outbox. */
  outbox?: boolean
}

const RECENT_LINES = 30

/** A scope of nodes: `close` ends everything that was started in it, also after a failure. */
export class TestCluster {
  readonly nodes: TestNode[] = []
  readonly processes: SpawnedNode[] = []
  readonly #directories: string[] = []
  readonly #removals: (() => Promise<void>)[] = []
  readonly #clients: NatsConnection[] = []
  /** Log lines and events with a secret. */
  readonly #leaks: string[] = []
  /** False: events are not searched for secrets, which costs more than what a benchmark measures. */
  protected readonly checksEvents: boolean = true

  /** A scope that ends with the test. */
  static for(t: Pick<TestContext, 'after'>): TestCluster {
    const cluster = new TestCluster()
    t.after(() => cluster.close())
    return cluster
  }

  /** Creates the directory and the file of a node without starting it. */
  async prepare(name: string, { routes = [], clustering = {} }: NodeOptions = {}): Promise<NodeFiles> {
    const [directory, remove] = await temporaryDirectory()
    this.#directories.push(directory)
    this.#removals.push(remove)
    const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
    const ports = { cluster, leafNodes, hub, leaf }
    const configFile = join(directory, 'config.yaml')
    await writeFile(configFile, stringify({ clustering: clusteringOf(name, ports, routes, clustering) }))
    return { name, ports, directory, configFile }
  }

  async start(name: string, nodeOptions: NodeOptions = {}): Promise<TestNode> {
    return this.open(await this.prepare(name, nodeOptions), nodeOptions)
  }

  /** Opens a manager on existing files. */
  async open(files: NodeFiles, { tables = [], options = {}, outbox = true }: NodeOptions = {}): Promise<TestNode> {
    const { configFile } = files
    const host = new MemoryHost(tables, { outbox })
    const events = new Map<EventName, unknown[]>(eventNames.map((each) => [each, []]))
    const lines: string[] = []
    const logger = this.#checkedLogger(options.logger, (line) => {
      if (lines.push(line) > RECENT_LINES) lines.shift()
    })
    const open = async () => {
      node.cluster = await ClusterManager.open({ configFile, host, password: clusterPassword, ...options, logger })
      for (const each of eventNames)
        node.cluster.on(each, (payload: unknown) => {
          if (this.checksEvents) this.#checkSecrets(each, payload)
          events.get(each)!.push(payload)
        })
      host.timestamp = () => node.cluster.timestamp()
      host.publish = (transaction) => node.cluster.publish(transaction)
    }
    const pid = (server: ServerKind) =>
      eventually(`the ${server} of ${files.name} runs`, () => serverPid(files, server))
    const node: TestNode = {
      ...files,
      host,
      cluster: undefined as unknown as ClusterManager,
      pid,
      kill: async (server, signal = 'SIGKILL') => {
        const running = await pid(server)
        process.kill(running, signal)
        if (signal === 'SIGSTOP') await stopped(running)
        return running
      },
      replaced: (server, previous, timeout) =>
        eventually(
          `the ${server} of ${files.name} is replaced`,
          async () => {
            const running = await serverPid(files, server)
            return running !== previous && running
          },
          timeout,
        ),
      seen: (each) => events.get(each) as never,
      recentLog: () => lines.join('\n'),
      reopen: async () => {
        await node.cluster.close()
        await open()
      },
    }
    await open()
    this.nodes.push(node)
    return node
  }

  #checkSecrets(...said: unknown[]): void {
    const text = inspect(said, { depth: 8, maxStringLength: null })
    if (containsSecret(text)) this.#leaks.push(text)
  }

  #checkedLogger(logger: Logger | undefined, record: (line: string) => void): Logger {
    const hear =
      (level: keyof Logger) =>
      (details: object, text: string): void => {
        this.#checkSecrets(details, text)
        if (level !== 'debug')
          record(`${new Date().toISOString()} ${level} ${text} ${inspect(details, { breakLength: Infinity })}`)
        logger?.[level](details, text)
      }
    return { debug: hear('debug'), info: hear('info'), warn: hear('warn'), error: hear('error') }
  }

  /** Starts nodes with these names, each with a route to the first. */
  async startAll(names: string[], options: NodeOptions = {}): Promise<TestNode[]> {
    const first = await this.start(names[0]!, options)
    const others = await Promise.all(
      names.slice(1).map((name) => this.start(name, { ...options, routes: [first.ports.cluster] })),
    )
    return [first, ...others]
  }

  /** Starts a node in a separate process. Resolves when it is open. */
  async spawn(name: string, nodeOptions: NodeOptions = {}): Promise<SpawnedNode> {
    const files = await this.prepare(name, nodeOptions)
    const { tables = [] } = nodeOptions
    const argument = JSON.stringify({ configFile: files.configFile, tables })
    const child = spawn(process.execPath, [...programArguments('support/memory-node.ts'), argument], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.processes.push({ ...files, child })
    await new Promise<void>((resolve, reject) => {
      child.once('exit', (code, signal) => reject(new Error(`the process of ${name} exited: ${signal ?? code}`)))
      createInterface({ input: child.stdout! }).once('line', () => resolve())
    })
    return { ...files, child }
  }

  /**
   * A NATS client of the cluster's user, or of another user: on a node's leaf, which has its streams, or on its hub, which is connected to
   * the other nodes.
   */
  async client(
    { ports }: Pick<TestNode, 'ports'>,
    server: ServerKind = 'leaf',
    user: string = clusterUser,
  ): Promise<NatsConnection> {
    const client = await clientOf(ports[server], user)
    this.#clients.push(client)
    return client
  }

  async close(): Promise<void> {
    for (const client of this.#clients) await client.close().catch(() => {})
    const closed = await Promise.allSettled(this.nodes.map(({ cluster }) => cluster.close()))
    for (const { child } of this.processes)
      if (child.exitCode === null && child.signalCode === null) await killed(child)
    // Servers of killed processes and failed tests.
    for (const directory of this.#directories)
      for (const server of ['hub', 'leaf'] as const) {
        const pid = await serverPid({ directory }, server)
        if (pid) process.kill(pid, 'SIGKILL')
      }
    for (const remove of this.#removals) await remove()
    const failure = closed.find((result) => result.status === 'rejected')
    if (failure) throw failure.reason
    if (this.#leaks.length > 0) throw new Error(`secrets in logs or events: ${this.#leaks[0]}`)
  }
}

/** Sends SIGKILL. Resolves when the process has ended. */
export async function killed(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
}

/** Resolves when each node sees all nodes in the network and gets answers from them. */
export async function allMet(nodes: readonly TestNode[]): Promise<void> {
  for (const node of nodes) {
    const client = await clientOf(node.ports.hub)
    try {
      for (const { name } of nodes) {
        await eventually(`${node.name} sees ${name}`, async () => {
          const { nodes: members } = await node.cluster.network({ timeout: 500 })
          return members.some((member) => member.name === name)
        })
        // An invalid request is answered too, and has no effect.
        await eventually(`${node.name} reaches ${name}`, () =>
          client.request(`${name}.__request__`, 'nothing', { timeout: 500 }).catch(() => undefined),
        )
      }
    } finally {
      await client.close()
    }
  }
}

export type Direction = 'publish' | 'subscribe' | 'both'

/** Tables of the database `dev` with their directions, in the form of operations. */
export const subscriptionsOf = (tables: Record<string, Direction>, more: object = {}) =>
  Object.entries(tables).map(([table, direction]) => ({
    database: 'dev',
    table,
    publish: direction !== 'subscribe',
    subscribe: direction !== 'publish',
    ...more,
  }))

/** Runs `update_node` with tables of the database `dev`, again while `to` is not visible. Resolves when all subscriptions of both nodes are live. */
export async function subscribe(
  from: TestNode,
  to: TestNode,
  tables: Record<string, Direction>,
  more: object = {},
): Promise<void> {
  const request = { node_name: to.name, subscriptions: subscriptionsOf(tables, more) }
  await eventually(`${from.name} agrees with ${to.name}`, async () => {
    try {
      return await from.cluster.updateNode(request)
    } catch (error) {
      if (error instanceof ClusterError && /^node_(not_listening|timeout)$/.test(error.code)) return undefined
      throw error
    }
  })
  for (const [table, direction] of Object.entries(tables)) {
    if (direction !== 'publish') await reading(from, to, table)
    if (direction !== 'subscribe') await reading(to, from, table)
  }
}

/** Resolves when the subscription of `node` to the table of `other` is live. Otherwise the error says what it is instead, with the last log lines. */
export const reading = (node: TestNode, other: TestNode, table: string, timeout?: number) => {
  const found = () =>
    node.cluster.subscriptions().find(({ source }) => source.node === other.name && source.table === table)
  return eventually(
    () => {
      const { state = 'missing', error = '' } = found() ?? {}
      return `${node.name} reads ${table} of ${other.name}, which is ${state} ${error}\n${node.recentLog()}`
    },
    () => {
      const subscription = found()
      return subscription?.state === 'live' && subscription
    },
    timeout,
  )
}

const clientOf = (port: number, user: string = clusterUser): Promise<NatsConnection> =>
  connect({ servers: `127.0.0.1:${port}`, user, pass: clusterPassword, waitOnFirstConnect: true })

/** The stream of a table on the client's node; undefined when it does not exist. */
export async function streamInfo(
  client: NatsConnection,
  database: string,
  table: string,
): Promise<StreamInfo | undefined> {
  const name = createHash('md5').update(`${database}.${table}`).digest('hex')
  const answer = (await client.request(`$JS.API.STREAM.INFO.${name}`)).json<StreamInfo & { error?: object }>()
  return answer.error ? undefined : answer
}

/**
 * Resolves when no transaction is in flight between these nodes: every outbox is empty, every subscriber is at the end of its stream,
 * and no stream has grown meanwhile.
 */
export async function quiet(nodes: readonly TestNode[], timeout = 20_000): Promise<void> {
  const clients = new Map<string, NatsConnection>()
  for (const { name, ports } of nodes) clients.set(name, await clientOf(ports.leaf))
  const ends = async () => {
    const found = new Map<string, number>()
    for (const node of nodes)
      for (const { source } of node.cluster.subscriptions()) {
        const client = clients.get(source.node)
        const info = client && (await streamInfo(client, source.database, source.table))
        if (info) found.set(`${source.node}.${source.database}.${source.table}`, info.state.last_seq)
      }
    return found
  }
  let pendingReason = ''
  const isQuiet = async () => {
    const before = await ends()
    for (const { name, cluster, host } of nodes) {
      for (const { source, appliedSequence, state, error = '' } of cluster.subscriptions()) {
        const stream = `${source.node}.${source.database}.${source.table}`
        const last = before.get(stream)
        pendingReason = `${name} is at ${appliedSequence} of ${last} of ${stream}, ${state} ${error}`
        if (appliedSequence !== last) return false
      }
      pendingReason = `${host.outbox.length} transactions are in the outbox of ${name}`
      if (host.outbox.length > 0) return false
    }
    pendingReason = 'streams are growing'
    return [...(await ends())].every(([stream, last]) => before.get(stream) === last)
  }
  try {
    await eventually(() => `all transactions are applied: ${pendingReason}`, isQuiet, timeout)
  } finally {
    for (const client of clients.values()) await client.close()
  }
}
