// A simulated HarperDB node with its two nats-servers: their configuration, and its requests and streams through plain nats.js.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AckPolicy, connect, DeliverPolicy, type NatsConnection, headers as newHeaders } from 'nats'
import { streamName } from '../../lib/mesh/nats/jetstream.ts'
import { clusterPassword, clusterUser, eventually, freePorts, type NodePorts, temporaryDirectory } from './cluster.ts'
import { harperPack } from './harper-messages.ts'
import { HarperNode, type HarperTransport, type StopReading } from './harper-node.ts'
import type { HarperTableOptions } from './harper-rows.ts'

type Login = { user: string; password: string }
const user: Login = { user: clusterUser, password: clusterPassword }
const admin: Login = { user: `${clusterUser}-admin`, password: clusterPassword }
const url = (scheme: string, { user, password }: Login, port: number) =>
  `${scheme}://${user}:${encodeURIComponent(password)}@127.0.0.1:${port}`

export type NatsHarperNode = {
  node: HarperNode
  /** Of the hub, for routes of other nodes. */
  clusterPort: number
  /** At the leaf, in the account of the streams. */
  connection: NatsConnection
  /** Ends the servers. Idempotent. */
  stop(): Promise<void>
}

/** Where the servers of a node run; `store`: directory of its streams. */
export type HarperServers = { directory: string; store: string; ports: NodePorts }

async function newServers(): Promise<HarperServers & { remove(): Promise<void> }> {
  const [directory, remove] = await temporaryDirectory()
  const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
  return { directory, store: join(directory, 'store'), ports: { cluster, leafNodes, hub, leaf }, remove }
}

/** `routes`: ports of other hubs; HarperDB logs in there as the administrator. */
export async function startNatsHarperNode(
  test: { after(work: () => unknown): void },
  name: string,
  { tables, routes = [], at }: { tables: readonly HarperTableOptions[]; routes?: number[]; at?: HarperServers },
): Promise<NatsHarperNode> {
  const created = at ? undefined : await newServers()
  const { directory, store, ports } = at ?? created!
  const { cluster: clusterPort, leafNodes, hub, leaf } = ports
  const servers: ChildProcess[] = []
  const clients: NatsConnection[] = []
  let harper: HarperNode | undefined
  const stop = async () => {
    await harper?.close()
    for (const client of clients) await client.close()
    for (const server of servers) {
      server.kill('SIGKILL')
      if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    }
  }
  test.after(async () => {
    await stop()
    await created?.remove()
  })
  const start = async (kind: string, configuration: object) => {
    const file = join(directory, `${kind}.json`)
    await writeFile(file, JSON.stringify(configuration), { mode: 0o600 })
    servers.push(spawn(process.env.NATS_SERVER || 'nats-server', ['-c', file], { stdio: 'ignore' }))
  }
  const accounts = { SYS: { users: [admin] }, HDB: { users: [user] } }
  await start('hub', {
    server_name: `${name}-hub`,
    listen: `127.0.0.1:${hub}`,
    accounts,
    system_account: 'SYS',
    leafnodes: { listen: `127.0.0.1:${leafNodes}` },
    cluster: {
      name: 'harperdb',
      listen: `127.0.0.1:${clusterPort}`,
      routes: routes.map((port) => url('nats-route', admin, port)),
    },
  })
  await start('leaf', {
    server_name: `${name}-leaf`,
    listen: `127.0.0.1:${leaf}`,
    accounts: { ...accounts, HDB: { ...accounts.HDB, jetstream: 'enabled' } },
    system_account: 'SYS',
    jetstream: { store_dir: store, domain: `${name}-leaf` },
    leafnodes: {
      remotes: [
        { account: 'SYS', urls: [url('nats-leaf', admin, leafNodes)] },
        { account: 'HDB', urls: [url('nats-leaf', user, leafNodes)] },
      ],
    },
  })
  const connectTo = async (kind: string, port: number) => {
    const options = { servers: `127.0.0.1:${port}`, user: user.user, pass: user.password, reconnect: false }
    const connection = await eventually(`the ${kind} of ${name} runs`, () => connect(options).catch(() => undefined))
    clients.push(connection)
    return connection
  }
  const connection = await connectTo('leaf', leaf)
  const node = await harperNode(connection, name, tables)
  harper = node
  const atHub = await connectTo('hub', hub)
  await eventually(`the leaf of ${name} is linked to its hub`, () =>
    atHub.request(`${name}.__request__`, harperPack({ operation: 'cluster_status' })).catch(() => undefined),
  )
  node.requests.length = 0
  return { node, clusterPort, connection, stop }
}

async function harperNode(
  connection: NatsConnection,
  name: string,
  tables: readonly HarperTableOptions[],
): Promise<HarperNode> {
  const domain = `${name}-leaf`
  const manager = await eventually('JetStream answers', () =>
    connection.jetstreamManager({ domain }).catch(() => undefined),
  )
  const jetStream = connection.jetstream({ domain })
  const subjectOf = (database: string, table: string) => `txn.${database}.${table}.${domain}`
  const streams = new Set<string>()
  const ensureStream = async (database: string, table: string) => {
    const name = streamName({ database, table })
    if (streams.has(name)) return
    await manager.streams.add({ name, subjects: [subjectOf(database, table)] })
    streams.add(name)
  }
  for (const { database, table } of tables) await ensureStream(database, table)
  return new HarperNode(name, tables, {
    request: async (node, data) => (await connection.request(`${node}.__request__`, data, { timeout: 5_000 })).data,
    serve: (handler) => {
      connection.subscribe(`${name}.__request__`, {
        callback: async (_, message) => void message.respond(await handler(message.data)),
      })
    },
    append: async (database, table, data, lines) => {
      await ensureStream(database, table)
      const headers = newHeaders()
      for (const [key, value] of lines) headers.append(key, value)
      await jetStream.publish(subjectOf(database, table), data, { headers })
    },
    read: (source, from, ingest) => readDurably(connection, domain, source, from, ingest),
  })
}

/** HarperDB has 30 s, after which it notices that its request is gone. */
const EXPIRES_MS = 2_000

/** As HarperDB reads the stream of another node: it makes a durable consumer there, unless it has one. */
async function readDurably(
  connection: NatsConnection,
  ownDomain: string,
  { node, database, table }: Parameters<HarperTransport['read']>[0],
  from: Date,
  ingest: Parameters<HarperTransport['read']>[2],
): Promise<StopReading> {
  const options = { domain: `${node}-leaf`, timeout: 5_000 }
  const stream = streamName({ database, table })
  const manager = await connection.jetstreamManager({ ...options, checkAPI: false })
  const create = {
    ack_policy: AckPolicy.Explicit,
    durable_name: ownDomain,
    deliver_policy: DeliverPolicy.StartTime,
    opt_start_time: from.toISOString(),
  }
  await manager.consumers.add(stream, create).catch((error: Error) => {
    if (error.message !== 'consumer already exists') throw error
  })
  const consumer = await connection.jetstream(options).consumers.get(stream, ownDomain)
  const messages = await consumer.consume({ max_messages: 100, expires: EXPIRES_MS })
  const reading = (async () => {
    for await (const message of messages) {
      const lines = [...(message.headers ?? [])].flatMap(([name, values]) =>
        values.map((value): [string, string] => [name, value]),
      )
      await ingest(message.data, lines)
      message.ack()
    }
  })()
  // Not awaited: a consumer that fails rejects it.
  reading.catch(() => {})
  return async (remove) => {
    // Its promise may never settle after a failure.
    void messages.close()
    if (remove) await manager.consumers.delete(stream, ownDomain).catch(() => {})
  }
}
