// A simulated node of HarperDB 4.3 and later: its requests and answers, the format of its messages, and what it is strict about. It has
// no database: it keeps what it was asked, and what it publishes is in its streams.

import { randomUUID } from 'node:crypto'
import {
  type HarperOrigin,
  type HarperWrite,
  harperAttributes,
  harperPack,
  harperTransaction,
  harperUnpack,
} from './harper-messages.ts'

/** How the node reaches other nodes, and its own streams. */
export type HarperTransport = {
  request(node: string, data: Uint8Array): Promise<Uint8Array>
  serve(handler: (data: Uint8Array) => Promise<Uint8Array>): void
  /** Appends to the stream of a table of the node. */
  append(database: string, table: string, data: Uint8Array, headers: [name: string, value: string][]): Promise<void>
}

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
type DescribedTable = { attributes: { attribute: string; is_primary_key?: boolean }[] }

/** `primaryKey` is absent for a table that was created without one. */
export type HarperTable = { database: string; table: string; primaryKey?: string; attributes: string[] }

const SYSTEM_INFO = { hdb_version: '4.3.0', node_version: '18.15.0', platform: 'linux' }

export class HarperNode {
  readonly name: string
  readonly tables: HarperTable[]
  /** What other nodes asked, oldest first. */
  readonly requests: HarperRequest[] = []
  /** The mirrored subscriptions that other nodes asked for, by node. */
  readonly nodes = new Map<string, HarperSubscription[]>()
  readonly #transport: HarperTransport
  /** ms since 1970. */
  #lastTime = 0

  constructor(name: string, tables: HarperTable[], transport: HarperTransport) {
    this.name = name
    this.tables = tables
    this.#transport = transport
    transport.serve(async (data) => harperPack(this.#answer(harperUnpack(data) as HarperRequest)))
  }

  /** Sends a request as HarperDB does. */
  async ask(node: string, request: HarperRequest): Promise<HarperAnswer> {
    const body = { ...request, node_name: this.name, system_info: SYSTEM_INFO }
    return harperUnpack(await this.#transport.request(node, harperPack(body))) as HarperAnswer
  }

  /** The tables of another node, as `add_node` reads them before it asks. Throws where HarperDB throws. */
  async describe(node: string): Promise<HarperTable[]> {
    const { status, message } = await this.ask(node, { operation: 'describe_all' })
    if (status !== 'success') throw new Error(String(message))
    return Object.entries(message as Record<string, Record<string, DescribedTable>>).flatMap(([database, tables]) =>
      Object.entries(tables).map(([table, { attributes }]) => {
        const key = attributes.find(({ is_primary_key }) => is_primary_key)
        if (!key) throw new Error(`no attribute of ${database}.${table} is its primary key`)
        const names = attributes.map(({ attribute }) => attribute)
        return { database, table, primaryKey: key.attribute, attributes: names }
      }),
    )
  }

  /** Commits one transaction: one message in the stream of its first table. */
  async write(database: string, ...writes: HarperWrite[]): Promise<void> {
    await this.#publish(database, writes[0]!.table, harperTransaction(database, this.#origin(), ...writes))
  }

  async defineAttributes(database: string, table: string, ...names: string[]): Promise<void> {
    await this.#publish(database, table, harperAttributes(database, table, this.#origin(), names))
  }

  #publish(database: string, table: string, body: object): Promise<void> {
    const headers: [string, string][] = [
      ['Nats-Msg-Id', randomUUID()],
      ['origin', this.name],
      ['transacted_nodes', this.name],
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
        return this.#describeAll()
      case 'cluster_status':
        return { uptime: '1h 2m 3s', ports: { clustering: 9932, operations_api: 9925 }, system_info: SYSTEM_INFO }
      case 'add_node':
      case 'update_node':
        for (const each of subscriptions) this.#ensureTable(each)
        this.nodes.set(node_name!, subscriptions)
        return operation === 'add_node'
          ? `Successfully added '${node_name}' to manifest`
          : `Successfully updated '${node_name}'`
      case 'remove_node':
        this.nodes.delete(node_name!)
        return `Successfully removed '${node_name}' from manifest`
      default:
        throw new Error(`Operation '${operation}' not found`)
    }
  }

  #describeAll(): object {
    const databases: Record<string, Record<string, object>> = {}
    for (const { database, table, primaryKey, attributes } of this.tables) {
      databases[database] ??= {}
      databases[database][table] = {
        schema: database,
        name: table,
        ...(primaryKey && { hash_attribute: primaryKey }),
        audit: true,
        attributes: attributes.map((attribute) => ({
          attribute,
          ...(attribute === primaryKey && { is_primary_key: true }),
          indexed: true,
        })),
      }
    }
    return databases
  }

  #ensureTable({ schema: database, table, attributes = [] }: HarperSubscription): void {
    if (this.tables.some((each) => each.database === database && each.table === table)) return
    const names = attributes.map(({ name }) => name)
    if (names.some((name) => typeof name !== 'string')) throw new Error("Cannot read properties of undefined ('name')")
    const primaryKey = attributes.find(({ isPrimaryKey }) => isPrimaryKey)?.name
    if (!primaryKey) throw new Error(`no attribute of ${database}.${table} is its primary key`)
    this.tables.push({ database, table, primaryKey, attributes: names })
  }
}
