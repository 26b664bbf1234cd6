// The local tables that subscriptions write: whether they exist, with the primary key of the source, and whether a transaction fits.
// All subscriptions share one description of the database.

import type { Host, RemoteTable, TableDescription, Transaction, Write } from '../../host/host.ts'
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

  /** Of the local table, in the latest description; undefined when it is not in there. */
  knownPrimaryKey(table: TableName): string | undefined {
    return this.#describe.latest?.get(tableKey(table))?.primaryKey
  }

  /** Describes the database again. Rejects as the host does. */
  async refresh(): Promise<void> {
    await this.#describe.fresh()
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
   * Rejects when a transaction does not fit the local tables, as far as the latest description has them. The tables get attributes that
   * they lack, if the host can add them.
   */
  async validate(source: RemoteTable, transactions: readonly Pick<Transaction, 'writes'>[]): Promise<void> {
    for (const [table, writes] of writesByTable(source, transactions)) {
      const described = this.#describe.latest?.get(tableKey(table))
      if (!described) continue
      const fault = recordFault(writes, described.primaryKey)
      if (fault) throw new Error(fault)
      await this.#addAttributes(table, described, (known) => unknownAttributes(writes, known))
    }
  }

  /** The source defined these attributes of the table. Never rejects. */
  async onAttributesDefined(table: RemoteTable, names: readonly string[]): Promise<void> {
    const described = this.#describe.latest?.get(tableKey(table))
    if (described) await this.#addAttributes(table, described, (known) => names.filter((name) => !known.has(name)))
  }

  async #addAttributes(
    table: RemoteTable,
    described: TableDescription,
    findUnknown: (known: ReadonlySet<string>) => string[],
  ): Promise<void> {
    const key = tableKey(table)
    const known = this.#attributes.get(key) ?? new Set(described.attributes)
    this.#attributes.set(key, known)
    const unknown = findUnknown(known)
    for (const name of unknown) known.add(name)
    if (unknown.length > 0) await this.#options.sources.attributesFound(table, unknown)
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

/** The writes of each table, which belongs to the source: nearly always those of the source's own table alone. */
function writesByTable(
  source: RemoteTable,
  transactions: readonly Pick<Transaction, 'writes'>[],
): [RemoteTable, Write[]][] {
  const own: Write[] = []
  const others = new Map<string, [RemoteTable, Write[]]>()
  for (const { writes } of transactions)
    for (const write of writes) {
      if (write.table === source.table) own.push(write)
      else {
        const entry = others.get(write.table) ?? [{ ...source, table: write.table }, []]
        others.set(write.table, entry)
        entry[1].push(write)
      }
    }
  return [[source, own], ...others.values()]
}
