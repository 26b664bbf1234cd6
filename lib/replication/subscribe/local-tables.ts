// The local tables that subscriptions write: whether they exist, with the primary key of the source, and whether a transaction fits.
// All subscriptions share one description of the database.

import type { Host, RemoteTable, TableDescription, Transaction } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import type { TableName } from '../../mesh/mesh.ts'
import { SharedCall } from '../../util/shared-call.ts'
import type { Timers } from '../../util/timers.ts'
import type { BegunSubscriptions } from './cursor.ts'
import { recordFault, unknownAttributes } from './record-check.ts'

/** The tables of remote nodes. */
export interface SourceTables {
  /** The primary key of the table at its source, as it was last described; undefined while that is unknown. */
  primaryKeyOf(source: RemoteTable): string | undefined
  /** Asks the source for its tables, at most once in a few seconds for each node. Never rejects. */
  refresh(node: string): Promise<void>
  /** Creates the local table as the source describes it. Rejects as requests and the host do. */
  create(source: RemoteTable): Promise<void>
  /** The source sent attributes that the local table lacks: adds them if the host can do that. Never rejects. */
  attributesFound(source: RemoteTable, attributes: readonly string[]): Promise<void>
}

/**
 * Why a subscription cannot apply anything. `missing`: the table was never created here. `dropped`: it existed when the subscription
 * began. `primary-key`: it has another primary key than at the source.
 */
export type TableFault = { kind: 'missing' | 'dropped' | 'primary-key'; reason: string }

export type LocalTablesOptions = {
  host: Pick<Host, 'describe'>
  timers: Timers
  sources: SourceTables
  begun: BegunSubscriptions
}

/** ms for which a description of the database is used again. */
const MAX_AGE_MS = 1_000

export class LocalTables {
  readonly #options: LocalTablesOptions
  readonly #describe: SharedCall<Map<string, TableDescription>>
  /** By `tableKey`: attributes that the local table has, or that were found in transactions since it was described. */
  readonly #attributes = new Map<string, Set<string>>()

  constructor(options: LocalTablesOptions) {
    this.#options = options
    const { host, timers } = options
    const describe = async () => new Map((await host.describe()).map((table) => [tableKey(table), table]))
    this.#describe = new SharedCall(describe, { timers, maxAge: MAX_AGE_MS })
  }

  /**
   * The fault of the source's local table, if there is one. A description up to `MAX_AGE_MS` old may be used, except for a table that
   * is missing in it. `fresh`: never. Rejects as the host does.
   */
  async check(source: RemoteTable, { fresh = false } = {}): Promise<TableFault | undefined> {
    if (fresh) this.#attributes.delete(tableKey(source))
    const fault = this.#faultIn(await (fresh ? this.#describe.fresh() : this.#describe.get()), source)
    return fault && !fresh ? this.#faultIn(await this.#describe.fresh(), source) : fault
  }

  /** As `check`, for a table that had a fault before. Asks the source again if its primary key differs. */
  async checkAgain(source: RemoteTable, { kind }: TableFault): Promise<TableFault | undefined> {
    if (kind === 'primary-key') await this.#options.sources.refresh(source.node)
    return this.#faultIn(await this.#describe.get(), source)
  }

  /** Of the local table; undefined when it does not exist. Rejects as the host does. */
  async primaryKeyOf(table: TableName): Promise<string | undefined> {
    return (await this.#describe.get()).get(tableKey(table))?.primaryKey
  }

  /** A table was dropped: the database is described again before the next check. */
  invalidate(): void {
    this.#describe.invalidate()
    this.#attributes.clear()
  }

  /** True when the primary keys differ in the latest descriptions. */
  hasOtherKey(source: RemoteTable): boolean {
    const table = this.#describe.latest?.get(tableKey(source))
    return table !== undefined && this.#keyFault(source, table) !== undefined
  }

  /**
   * Throws when a transaction does not fit the local table, as far as the latest description has it. The table gets attributes that
   * it lacks, if the host can add them: the result is there when that takes time.
   */
  validate(source: RemoteTable, transactions: readonly Pick<Transaction, 'writes'>[]): Promise<unknown> | undefined {
    const key = tableKey(source)
    const described = this.#describe.latest?.get(key)
    if (!described) return undefined
    for (const transaction of transactions) {
      const fault = recordFault(transaction, described.primaryKey)
      if (fault) throw new Error(fault)
    }
    const known = this.#attributes.get(key) ?? new Set(described.attributes)
    this.#attributes.set(key, known)
    const unknown = unknownAttributes(transactions, known)
    for (const name of unknown) known.add(name)
    return unknown.length > 0 ? this.#options.sources.attributesFound(source, unknown) : undefined
  }

  #faultIn(tables: ReadonlyMap<string, TableDescription>, source: RemoteTable): TableFault | undefined {
    const table = tables.get(tableKey(source))
    if (table) return this.#keyFault(source, table)
    return this.#options.begun.has(source)
      ? { kind: 'dropped', reason: 'the table was dropped here: create it, or end the subscription' }
      : { kind: 'missing', reason: 'the table does not exist here' }
  }

  #keyFault(source: RemoteTable, { primaryKey: here }: TableDescription): TableFault | undefined {
    const there = this.#options.sources.primaryKeyOf(source)
    if (there === undefined || there === here) return undefined
    const reason = `the primary key of the table is '${here}' here and '${there}' on ${source.node}: create it again on one of the nodes`
    return { kind: 'primary-key', reason }
  }
}
