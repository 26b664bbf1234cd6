// A simulated HarperDB node of a cluster: its servers, its rows, its operations API, its configuration file, and what it reads from the
// streams of other nodes, as HarperDB does it.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AckPolicy, type ConsumerMessages, DeliverPolicy, headers as newHeaders } from 'nats'
import { stringify } from 'yaml'
import { streamName } from '../../lib/mesh/nats/jetstream.ts'
import { clusterUser, eventually, freePorts, type NodePorts } from './cluster.ts'
import { readHarperMessage } from './harper-database.ts'
import { HarperHttp } from './harper-http.ts'
import { type HarperWrite, harperPack, harperTransaction } from './harper-messages.ts'
import type { HarperTableRows } from './harper-rows.ts'
import { type NatsHarperNode, startNatsHarperNode } from './nats-harper-node.ts'

type Test = { after(work: () => unknown): void }
const dog = { database: 'dev', table: 'dog', primaryKey: 'id' }
const both = { schema: 'dev', table: 'dog', publish: true, subscribe: true }

/** HarperDB has 30 s, after which it notices that its request is gone. */
const EXPIRES_MS = 2_000

export class HarperClusterNode {
  readonly name: string
  readonly directory: string
  readonly ports: NodePorts
  readonly http: HarperHttp
  #nats: NatsHarperNode | undefined
  #lastTime = 0
  /** By node. */
  readonly #reading = new Map<string, ConsumerMessages>()

  private constructor(name: string, directory: string, ports: NodePorts, http: HarperHttp) {
    this.name = name
    this.directory = directory
    this.ports = ports
    this.http = http
  }

  /** `parent`: a directory that the caller removes. */
  static async create(test: Test, parent: string, name: string): Promise<HarperClusterNode> {
    const directory = join(parent, name, 'hdb')
    await mkdir(join(directory, 'servers'), { recursive: true })
    const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
    const http = await HarperHttp.start(test, { name, tables: [dog] })
    return new HarperClusterNode(name, directory, { cluster, leafNodes, hub, leaf }, http)
  }

  get rows(): HarperTableRows {
    return this.http.tables[0]!
  }
  get configFile(): string {
    return join(this.directory, 'harperdb-config.yaml')
  }

  /** With routes to these nodes; the table is replicated both ways with all `others`. */
  async start(test: Test, routes: readonly HarperClusterNode[], others: readonly HarperClusterNode[]): Promise<void> {
    const { ports, directory, http } = this
    const store = join(directory, 'clustering', 'leaf')
    await writeFile(this.configFile, stringify(this.#configuration(routes)))
    http.connections = others.map(({ name, http, ports }) => ({
      node_name: name,
      status: 'open',
      ports: { clustering: ports.cluster, operations_api: http.port },
      subscriptions: [both],
      system_info: { hdb_version: '4.3.0' },
    }))
    const routesOf = (node: HarperClusterNode) => (node === this ? routes.map(routeTo) : [])
    http.members = [this, ...others].map((node) => ({ name: node.name, routes: routesOf(node) }))
    this.#nats = await startNatsHarperNode(test, this.name, {
      tables: [{ ...dog, attributes: ['id'] }],
      routes: routes.map(({ ports }) => ports.cluster),
      at: { directory: join(directory, 'servers'), store, ports },
    })
  }

  #configuration(routes: readonly HarperClusterNode[]): object {
    const { cluster, leafNodes, hub, leaf } = this.ports
    const network = (port: number) => ({ network: { port } })
    return {
      rootPath: this.directory,
      operationsApi: network(this.http.port),
      clustering: {
        enabled: true,
        nodeName: this.name,
        user: clusterUser,
        databaseLevel: false,
        hubServer: {
          cluster: { name: 'harperdb', network: { port: cluster, routes: routes.map(routeTo) } },
          leafNodes: network(leafNodes),
          ...network(hub),
        },
        leafServer: { ...network(leaf), streams: { maxAge: null, path: null } },
      },
    }
  }

  /** Reads the table of another node from now on, with a durable consumer there; again after a restart of HarperDB. */
  async subscribe(other: string): Promise<void> {
    const { connection } = this.#nats!
    void this.#reading.get(other)?.close()
    const [domain, stream, consumer] = [`${other}-leaf`, streamName(dog), `${this.name}-leaf`]
    await eventually(`${this.name} has a consumer at ${other}`, async () => {
      const options = { domain, timeout: 1_000, checkAPI: false }
      const config = { durable_name: consumer, ack_policy: AckPolicy.Explicit, deliver_policy: DeliverPolicy.All }
      const manager = await connection.jetstreamManager(options)
      return manager.consumers.add(stream, config).catch(({ message }) => message === 'consumer already exists')
    })
    const messages = await (await connection.jetstream({ domain }).consumers.get(stream, consumer)).consume({
      expires: EXPIRES_MS,
    })
    this.#reading.set(other, messages)
    void (async () => {
      for await (const message of messages) {
        this.http.database.ingest(readHarperMessage(message.data))
        message.ack()
      }
    })().catch(() => {})
  }

  /** One transaction: one message in the own stream. */
  async write(...writes: HarperWrite[]): Promise<void> {
    const now = Date.now()
    this.#lastTime = now > this.#lastTime ? now : this.#lastTime + 0.000_488_28125
    const time = this.#lastTime
    const body = harperTransaction(
      'dev',
      { node: this.name, timestamp: time },
      ...writes.map((write) => this.#apply(write, time)),
    )
    const headers = newHeaders()
    headers.append('Nats-Msg-Id', `${this.name}-${time}`)
    headers.append('origin', this.name)
    headers.append('transacted_nodes', this.name)
    const { connection } = this.#nats!
    const subject = `txn.dev.dog.${this.name}-leaf`
    await connection.jetstream({ domain: `${this.name}-leaf` }).publish(subject, harperPack(body), { headers })
  }

  /** The write with what HarperDB puts into the record. */
  #apply({ operation, id, record = {}, table }: HarperWrite, time: number): HarperWrite {
    if (operation === 'delete') this.rows.delete(id, time)
    else this.rows.put(id, { ...record }, time, operation === 'patch')
    const stored = operation === 'upsert' ? this.rows.get(id) : record
    return { operation, table, id, ...(operation !== 'delete' && { record: stored }) }
  }

  /** HarperDB ends: the API and both servers. */
  async stop(): Promise<void> {
    // Its promise may never settle after a failure.
    for (const messages of this.#reading.values()) void messages.close()
    await this.http.stop()
    await this.#nats?.stop()
  }
}

const routeTo = ({ ports }: HarperClusterNode) => ({ host: '127.0.0.1', port: ports.cluster })
