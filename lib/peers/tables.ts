// The tables of subscriptions: which exist on the local node, and creating those that exist only on the remote node.

import { clusterError } from '../errors.ts'
import type { Host, HostCallOptions, RemoteTable, TableDescription } from '../host/host.ts'
import { tableKey } from '../manifest/manifest.ts'
import type { NameCheck, TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { forEachConcurrently } from '../util/for-each-concurrently.ts'
import type { Peers } from './peers.ts'
import type { WireSubscription } from './protocol.ts'

/** Creates the local stream of a table, if it is missing. */
export interface LocalStreams {
  ensure(table: TableName): Promise<unknown>
}

export type TablesOptions = {
  host: Host
  peers: Pick<Peers, 'describeTables'>
  streams: LocalStreams
  /** Why a node, database or table of that name cannot take part in the cluster. */
  nameFault: NameCheck
  logger: Logger
}

/** By `tableKey`. */
export type TablesByKey = Map<string, TableDescription>

/**
 * No table is created for a remote node beyond this number of tables, so that invented ones cannot fill the disk. Local requests
 * and the configuration file may exceed it.
 */
const MAX_TABLES = 20_000
/** Concurrent requests for streams; each is a round trip or two to a server. */
export const MAX_CONCURRENT_STREAMS = 32

export const byKey = (tables: readonly TableDescription[]): TablesByKey =>
  new Map(tables.map((table) => [tableKey(table), table]))

export class Tables {
  readonly #options: TablesOptions
  /** Tables created for remote nodes since start. */
  #created = 0

  constructor(options: TablesOptions) {
    this.#options = options
  }

  async local(options?: HostCallOptions): Promise<TablesByKey> {
    return byKey(await this.#options.host.describe({ signal: options?.signal }))
  }

  /** Creates a table that a remote node has. */
  async create(table: TableDescription, options?: HostCallOptions): Promise<void> {
    const { host, logger } = this.#options
    await host.createTable(table, { signal: options?.signal })
    logger.info({ database: table.database, table: table.table, primaryKey: table.primaryKey }, 'table created')
  }

  async ensureStreams(tables: readonly TableName[], report?: (done: number, total: number) => void): Promise<void> {
    const { streams } = this.#options
    await forEachConcurrently(tables, MAX_CONCURRENT_STREAMS, (table) => streams.ensure(table), report)
  }

  /** Creates the table of a subscription again, as the remote node describes it, if it was dropped here. */
  async restore({ node, ...table }: RemoteTable): Promise<void> {
    const { host, peers } = this.#options
    const isWanted = (each: TableName) => tableKey(each) === tableKey(table)
    if ((await host.describe()).some(isWanted)) return
    const remote = (await peers.describeTables(node, { operation: 'describe_all' })).find(isWanted)
    if (!remote) throw clusterError('table_not_found', table.table)
    await this.create(remote)
  }

  /** Creates the missing tables of a remote node's subscriptions and all of their streams. Adds created tables to `local`. */
  async prepare(subscriptions: readonly WireSubscription[], local: TablesByKey): Promise<void> {
    for (const subscription of subscriptions) await this.#prepareTable(subscription, local)
    await this.ensureStreams(subscriptions.map(({ schema: database, table }) => ({ database, table })))
  }

  async #prepareTable(
    { schema: database, table, hash_attribute: primaryKey, attributes = [] }: WireSubscription,
    local: TablesByKey,
  ): Promise<void> {
    const { nameFault } = this.#options
    const fault = nameFault(database) ?? nameFault(table)
    if (fault) throw clusterError('name_not_replicable', `${database}.${table}`, fault)
    const existing = local.get(tableKey({ database, table }))
    if (existing && primaryKey && existing.primaryKey !== primaryKey)
      throw new Error(`the primary key of '${database}.${table}' is '${existing.primaryKey}' here, not '${primaryKey}'`)
    if (existing) return
    if (!primaryKey) throw clusterError('table_not_found', table)
    // `local` alone is not enough: concurrent requests do not see each other's tables yet.
    if (local.size >= MAX_TABLES || this.#created >= MAX_TABLES) throw new Error('there are too many tables already')
    this.#created++
    const names = attributes.map((each) => (typeof each === 'string' ? each : each.attribute))
    const created = { database, table, primaryKey, attributes: names }
    await this.create(created)
    local.set(tableKey(created), created)
  }
}
