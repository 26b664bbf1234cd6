// A simulated node of HarperDB 4.3 and later: its requests and answers, the format of its messages, and what it is strict about.

import { randomUUID } from 'node:crypto'
import { HarperDatabase, readHarperMessage } from './harper-database.ts'
import {
  type HarperOrigin,
  type HarperWrite,
  harperAttributes,
  harperPack,
  harperTransaction,
  harperUnpack,
} from './harper-messages.ts'
import type { HarperTableAnswer, HarperTableOptions, HarperTableRows } from './harper-rows.ts'

/** How the node reaches other nodes, and its own streams. */
export type HarperTransport = {
  request(node: string, data: Uint8Array): Promise<Uint8Array>
  serve(handler: (data: Uint8Array) => Promise<Uint8Array>): void
  /** Appends to the stream of a table of the node. */
  append(database: string, table: string, data: Uint8Array, headers: HarperHeaders): Promise<void>
  /** Reads the stream of a table of another node, from the time on when the node has no consumer there. */
  read(
    source: { node: string; database: string; table: string },
    from: Date,
    ingest: (data: Uint8Array, headers: HarperHeaders) => Promise<void>,
  ): Promise<StopReading>
}
/** `remove`: the consumer too. */
export type StopReading = (remove: boolean) => Promise<void>
export type HarperHeaders = [name: string, value: string][]

export type HarperSubscription = {
  schema: string
  table: string
  publish: boolean
  subscribe: boolean
  hash_attribute?: string
  start_time?: string
  attributes?: { name: string; isPrimaryKey?: boolean }[]
}
export type HarperRequest = { operation: string; node_name?: string; subscriptions?: HarperSubscription[] }
export type HarperAnswer = { status: 'success' | 'error'; message: unknown; system_info?: object }
/** As another node describes it. */
type RemoteTable = { database: string; table: string; primaryKey: string; attributes: string[] }

const SYSTEM_INFO = { hdb_version: '4.3.0', node_version: '18.15.0', platform: 'linux' }

const nodesHeader = 'transacted_nodes'
const keyOf = (...name: unknown[]) => JSON.stringify(name)

export class HarperNode {
  readonly name: string
  /** Sends what it has applied to its own subscribers. */
  republish = false
  readonly #database: HarperDatabase
  /** By node and table. */
  readonly #readers = new Map<string, StopReading>()
  /** What other nodes asked, oldest first. */
  readonly requests: HarperRequest[] = []
  /** The mirrored subscriptions that other nodes asked for, by node. */
  readonly nodes = new Map<string, HarperSubscription[]>()
  /** Why it could not read from a node. */
  readonly failures: Error[] = []
  readonly #transport: HarperTransport
  /** ms since 1970. */
  #lastTime = 0

  constructor(name: string, tables: readonly HarperTableOptions[], transport: HarperTransport) {
    this.name = name
    this.#transport = transport
    this.#database = new HarperDatabase(tables.map((each) => ({ ...each, hasTimes: false })))
    transport.serve(async (data) => harperPack(this.#answer(harperUnpack(data) as HarperRequest)))
  }

  get tables(): readonly HarperTableRows[] {
    return this.#database.tables
  }

  /** Sends a request as HarperDB does. */
  async ask(node: string, request: HarperRequest): Promise<HarperAnswer> {
    const body = { ...request, node_name: this.name, system_info: SYSTEM_INFO }
    return harperUnpack(await this.#transport.request(node, harperPack(body))) as HarperAnswer
  }

  /** The tables of another node, as `add_node` reads them before it asks. Throws where HarperDB throws. */
  async describe(node: string): Promise<RemoteTable[]> {
    const { status, message } = await this.ask(node, { operation: 'describe_all' })
    if (status !== 'success') throw new Error(String(message))
    return Object.entries(message as Record<string, Record<string, HarperTableAnswer>>).flatMap(([database, tables]) =>
      Object.entries(tables).map(([table, { attributes }]) => {
        const key = attributes.find(({ is_primary_key }) => is_primary_key)
        if (!key) throw new Error(`no attribute of ${database}.${table} is its primary key`)
        const names = attributes.map(({ attribute }) => attribute)
        return { database, table, primaryKey: key.attribute, attributes: names }
      }),
    )
  }

  /** Adds the other node, as `add_node` does: asks it, and begins to read. */
  async addNode(
    node: string,
    subscriptions: Omit<HarperSubscription, 'hash_attribute' | 'attributes'>[],
  ): Promise<void> {
    const remote = await this.describe(node)
    for (const { schema, table } of subscriptions) {
      const described = remote.find((each) => each.database === schema && each.table === table)
      if (described) this.#database.ensure({ ...described, hasTimes: false })
    }
    const operation = this.nodes.has(node) ? 'update_node' : 'add_node'
    const asked = subscriptions.map((each) => ({
      ...each,
      ...this.#describedFor(each),
      publish: each.subscribe,
      subscribe: each.publish,
    }))
    const { status, message } = await this.ask(node, { operation, subscriptions: asked })
    if (status !== 'success') throw new Error(String(message))
    this.nodes.set(node, subscriptions)
    await this.#readFrom(node, subscriptions)
  }

  async removeNode(node: string): Promise<void> {
    await this.ask(node, { operation: 'remove_node' })
    await this.#forget(node)
  }

  /** Begins to read from a node again, as after a restart. */
  async restart(): Promise<void> {
    for (const [node, subscriptions] of this.nodes) await this.#readFrom(node, subscriptions)
  }

  async close(): Promise<void> {
    for (const stop of this.#readers.values()) await stop(false)
    this.#readers.clear()
  }

  contents(database: string, table: string): Record<string, unknown>[] {
    return this.#database.find(database, table)?.contents() ?? []
  }

  /** Commits one transaction: one message in the stream of its first table. */
  async write(database: string, ...writes: HarperWrite[]): Promise<void> {
    const origin = this.#origin()
    this.#database.apply(database, writes, origin.timestamp)
    await this.#publish(database, writes[0]!.table, harperTransaction(database, origin, ...writes))
  }

  /** What HarperDB does with a message of another node. Throws where HarperDB throws. */
  async ingest(data: Uint8Array, headers: HarperHeaders): Promise<void> {
    // Its own transaction, which another node relays.
    if (headers.some(([name, value]) => name === 'origin' && value === this.name)) return
    const message = readHarperMessage(data)
    const { database, table } = message
    this.#database.ingest(message)
    if (this.republish) await this.#transport.append(database, table, data, [...headers, [nodesHeader, this.name]])
  }

  async #readFrom(node: string, subscriptions: readonly HarperSubscription[]): Promise<void> {
    for (const { schema: database, table, subscribe, start_time } of subscriptions) {
      const key = keyOf(node, database, table)
      await this.#readers.get(key)?.(!subscribe)
      this.#readers.delete(key)
      if (!subscribe) continue
      const from = start_time === undefined ? new Date() : new Date(start_time)
      const stop = await this.#transport.read({ node, database, table }, from, (...message) => this.ingest(...message))
      this.#readers.set(key, stop)
    }
  }

  async #forget(node: string): Promise<void> {
    this.nodes.delete(node)
    for (const [key, stop] of this.#readers)
      if (JSON.parse(key)[0] === node) {
        this.#readers.delete(key)
        await stop(true)
      }
  }

  #describedFor({ schema, table }: { schema: string; table: string }) {
    const { primaryKey, attributes } = this.#database.find(schema, table)!
    const described = attributes.map((name) => ({ name, ...(name === primaryKey && { isPrimaryKey: true }) }))
    return { hash_attribute: primaryKey!, attributes: described }
  }

  async defineAttributes(database: string, table: string, ...names: string[]): Promise<void> {
    await this.#publish(database, table, harperAttributes(database, table, this.#origin(), names))
  }

  #publish(database: string, table: string, body: object): Promise<void> {
    const headers: HarperHeaders = [
      ['Nats-Msg-Id', randomUUID()],
      ['origin', this.name],
      [nodesHeader, this.name],
    ]
    return this.#transport.append(database, table, harperPack(body), headers)
  }

  #origin(): HarperOrigin {
    const now = Date.now()
    this.#lastTime = now > this.#lastTime ? now : this.#lastTime + 0.000_488
    return { node: this.name, timestamp: this.#lastTime }
  }

  #answer(request: HarperRequest): HarperAnswer {
    try {
      this.requests.push(request)
      return { status: 'success', message: this.#respond(request), system_info: SYSTEM_INFO }
    } catch (error) {
      return { status: 'error', message: (error as Error).message }
    }
  }

  #respond({ operation, node_name, subscriptions = [] }: HarperRequest): unknown {
    switch (operation) {
      case 'describe_all':
        return this.#database.describe()
      case 'cluster_status':
        return { uptime: '1h 2m 3s', ports: { clustering: 9932, operations_api: 9925 }, system_info: SYSTEM_INFO }
      case 'add_node':
      case 'update_node':
        for (const each of subscriptions) this.#ensureRequested(each)
        this.nodes.set(node_name!, subscriptions)
        // After the answer.
        setImmediate(() => void this.#readFrom(node_name!, subscriptions).catch((error) => this.failures.push(error)))
        return operation === 'add_node'
          ? `Successfully added '${node_name}' to manifest`
          : `Successfully updated '${node_name}'`
      case 'remove_node':
        void this.#forget(node_name!)
        return `Successfully removed '${node_name}' from manifest`
      default:
        throw new Error(`Operation '${operation}' not found`)
    }
  }

  #ensureRequested({ schema: database, table, attributes = [] }: HarperSubscription): void {
    if (this.#database.find(database, table)) return
    const names = attributes.map(({ name }) => name)
    if (names.some((name) => typeof name !== 'string')) throw new Error("Cannot read properties of undefined ('name')")
    const primaryKey = attributes.find(({ isPrimaryKey }) => isPrimaryKey)?.name
    if (!primaryKey) throw new Error(`no attribute of ${database}.${table} is its primary key`)
    this.#database.ensure({ database, table, primaryKey, attributes: names, hasTimes: false })
  }
}
