// The tables of subscriptions: which exist on the local node, and creating those that exist only on the remote node.

import { clusterError } from '../errors.ts'
import type { Host, HostCallOptions, RemoteTable, TableDescription } from '../host/host.ts'
import { tableKey } from '../manifest/manifest.ts'
import type { NameCheck, TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { attributeNames } from '../util/attribute-names.ts'
import { forEachConcurrently } from '../util/for-each-concurrently.ts'
import { SharedCall } from '../util/shared-call.ts'
import type { Timers } from '../util/timers.ts'
import { AddedAttributes, type AddedAttributesOptions } from './added-attributes.ts'
import type { Peers } from './peers.ts'
import type { WireSubscription } from './protocol.ts'
import type { Registers } from './registers.ts'

/** Creates the local stream of a table, if it is missing. */
export interface LocalStreams {
  ensure(table: TableName): Promise<unknown>
}

export type TablesOptions = {
  /** Name of the local node. */
  node: string
  host: Host
  peers: Pick<Peers, 'describeTables'>
  streams: LocalStreams
  /** Why a node, database or table of that name cannot take part in the cluster. */
  nameFault: NameCheck
  registers: Pick<Registers, 'forNode' | 'get' | 'begun'>
  timers: Timers
  /** A local table was created as `node` describes it. */
  tableCreated(table: TableName, node: string): void
  /** The primary keys of a node's tables are known. */
  sourceKeysKnown(node: string): void
  attributesAdded: AddedAttributesOptions['attributesAdded']
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

/** ms for which the tables of a remote node are used again when subscriptions wait for a change of them. */
const MAX_REMOTE_AGE_MS = 5_000

export const byKey = (tables: readonly TableDescription[]): TablesByKey =>
  new Map(tables.map((table) => [tableKey(table), table]))

export class Tables {
  readonly #options: TablesOptions
  /** Tables created for remote nodes since start. */
  #created = 0
  readonly #creating = new Map<string, Promise<void>>()
  /** The primary keys of remote tables with a subscription: by node, then by `tableKey`. */
  readonly #sourceKeys = new Map<string, Map<string, string>>()
  readonly #remotes = new Map<string, SharedCall<TablesByKey>>()
  /** By node, as it was last described: a node serves the rows of all its tables, or of none. */
  readonly #servesRows = new Map<string, boolean>()
  readonly #attributes: AddedAttributes

  constructor(options: TablesOptions) {
    this.#options = options
    this.#attributes = new AddedAttributes(options)
  }

  async local(options?: HostCallOptions): Promise<TablesByKey> {
    return byKey(await this.#options.host.describe({ signal: options?.signal }))
  }

  /** Creates a table as `node` describes it. Concurrent calls for one table create it once. */
  create(table: TableDescription, node: string, options?: HostCallOptions): Promise<void> {
    const key = tableKey(table)
    const creating = this.#creating.get(key)
    if (creating) return creating
    const created = this.#create(table, node, options).finally(() => this.#creating.delete(key))
    this.#creating.set(key, created)
    return created
  }

  async #create(
    { database, table, primaryKey, attributes }: TableDescription,
    node: string,
    options?: HostCallOptions,
  ): Promise<void> {
    const { host, logger, tableCreated } = this.#options
    await host.createTable({ database, table, primaryKey, attributes }, { signal: options?.signal })
    logger.info({ peer: node, database, table, primaryKey }, 'table created')
    tableCreated({ database, table }, node)
  }

  /** Adds to the subscribed tables the attributes that only the remote node has. Nothing waits for it. */
  addAttributes(node: string, remote: TablesByKey, local: TablesByKey): void {
    for (const { subscribe, removed, ...name } of this.#options.registers.forNode(node)) {
      const key = tableKey(name)
      const [there, here] = [remote.get(key), local.get(key)]
      if (!subscribe || removed || !there || there.primaryKey !== here?.primaryKey) continue
      const known = new Set(here.attributes)
      const { database, table } = name
      void this.attributesFound(
        { node, database, table },
        there.attributes.filter((each) => !known.has(each)),
      )
    }
  }

  /** See AddedAttributes.add. */
  attributesFound(source: RemoteTable, attributes: readonly string[]): Promise<void> {
    return this.#attributes.add(source, attributes)
  }

  /** After `close`. */
  reopen(): void {
    this.#attributes.reopen()
  }

  close(): void {
    this.#attributes.close()
  }

  /** The tables of a remote node. Rejects as requests do. */
  async remote(node: string, options: { operation: string; signal?: AbortSignal | undefined }): Promise<TablesByKey> {
    const described = await this.#options.peers.describeTables(node, options)
    if (described.length > 0) this.#servesRows.set(node, described[0]!.servesRows)
    const tables = byKey(described)
    const keys = this.#options.registers.forNode(node).flatMap((register): [string, string][] => {
      const table = tables.get(tableKey(register))
      return table ? [[tableKey(register), table.primaryKey]] : []
    })
    this.#sourceKeys.set(node, new Map(keys))
    this.#options.sourceKeysKnown(node)
    return tables
  }

  /** See SourceTables. */
  primaryKeyOf({ node, ...table }: RemoteTable): string | undefined {
    return this.#sourceKeys.get(node)?.get(tableKey(table))
  }

  /** Whether the node answers requests for its rows; undefined while that is unknown. */
  servesRows(node: string): boolean | undefined {
    return this.#servesRows.get(node)
  }

  /**
   * Throws rows_not_served and replace_unsupported for a copy that cannot be made: the remote node serves rows, or not, and so does the
   * local one. When both nodes subscribe, the direction that is possible is enough.
   */
  checkCopy(
    node: string,
    { subscribe, copy, replace }: { subscribe: boolean; copy?: boolean | undefined; replace?: boolean | undefined },
    servesRows: boolean | undefined,
  ): void {
    const { host, node: localNode } = this.#options
    if (!copy) return
    if (replace && !host.emptyTable) throw clusterError('replace_unsupported')
    if (subscribe && servesRows === false) throw clusterError('rows_not_served', node)
    if (!subscribe && !host.readRows) throw clusterError('rows_not_served', localNode)
  }

  /** See SourceTables. */
  async refresh(node: string): Promise<void> {
    await this.#sharedRemote(node)
      .get()
      .catch(() => {})
  }

  #sharedRemote(node: string): SharedCall<TablesByKey> {
    const shared =
      this.#remotes.get(node) ??
      new SharedCall(() => this.remote(node, { operation: 'describe_all' }), {
        timers: this.#options.timers,
        maxAge: MAX_REMOTE_AGE_MS,
      })
    this.#remotes.set(node, shared)
    return shared
  }

  /** A node described tables in a request or an answer. */
  observe(node: string, subscriptions: readonly WireSubscription[]): void {
    const { registers, sourceKeysKnown } = this.#options
    const known = this.#sourceKeys.get(node) ?? new Map<string, string>()
    for (const { schema: database, table, hash_attribute: primaryKey } of subscriptions)
      if (primaryKey && registers.get(node, { database, table })) known.set(tableKey({ database, table }), primaryKey)
    if (known.size === 0) return
    this.#sourceKeys.set(node, known)
    sourceKeysKnown(node)
  }

  async ensureStreams(tables: readonly TableName[], report?: (done: number, total: number) => void): Promise<void> {
    const { streams } = this.#options
    await forEachConcurrently(tables, MAX_CONCURRENT_STREAMS, (table) => streams.ensure(table), report)
  }

  /** Creates the missing local table of a new subscription as the remote node describes it. */
  async createFor({ node, ...table }: RemoteTable): Promise<void> {
    const remote = (await this.#sharedRemote(node).get()).get(tableKey(table))
    if (!remote) throw clusterError('table_not_found', table.table)
    await this.create(remote, node)
  }

  /** Creates the missing tables of a remote node's subscriptions and all of their streams. Adds created tables to `local`. */
  async prepare(node: string, subscriptions: readonly WireSubscription[], local: TablesByKey): Promise<void> {
    for (const subscription of subscriptions) await this.#prepareTable(node, subscription, local)
    await this.ensureStreams(subscriptions.map(({ schema: database, table }) => ({ database, table })))
  }

  async #prepareTable(
    node: string,
    { schema: database, table, hash_attribute: primaryKey, attributes }: WireSubscription,
    local: TablesByKey,
  ): Promise<void> {
    const { nameFault } = this.#options
    const fault = nameFault(database) ?? nameFault(table)
    if (fault) throw clusterError('name_not_replicable', `${database}.${table}`, fault)
    const existing = local.get(tableKey({ database, table }))
    if (existing && primaryKey && existing.primaryKey !== primaryKey)
      throw new Error(`the primary key of '${database}.${table}' is '${existing.primaryKey}' here, not '${primaryKey}'`)
    // A table of a begun subscription was dropped here: it stays so.
    if (existing || this.#options.registers.begun.has({ node, database, table })) return
    if (!primaryKey) throw clusterError('table_not_found', table)
    // `local` alone is not enough: concurrent requests do not see each other's tables yet.
    if (local.size >= MAX_TABLES || this.#created >= MAX_TABLES) throw new Error('there are too many tables already')
    this.#created++
    const created = { database, table, primaryKey, attributes: attributeNames(attributes) }
    await this.create(created, node)
    local.set(tableKey(created), created)
  }
}
