// Databases and tables: their names, primary keys, attributes and record counts.

import type { TableDescription } from '../../lib/host/host.ts'
import { badRequest, HostError } from './errors.ts'
import { tableRange } from './keys.ts'
import type { Storage, StoredTable } from './storage.ts'

export type Table = StoredTable & { database: string; table: string }

/** Methods that write must run inside a storage transaction. */
export class Tables {
  readonly #storage: Storage
  /** As stored, by database and table: only this process writes them. */
  readonly #cache = new Map<string, Table>()

  constructor(storage: Storage) {
    this.#storage = storage
    storage.onRollback(() => this.#cache.clear())
  }

  databases(): string[] {
    return [...this.#storage.schema.getRange()].filter(({ value }) => value === null).map(({ key }) => String(key))
  }

  /** Tables of all databases, or of one. */
  list(database?: string): Table[] {
    const tables: Table[] = []
    for (const { key, value } of this.#storage.schema.getRange()) {
      const [name, table] = key
      if (value && (database === undefined || database === name))
        tables.push({ database: name!, table: table!, ...value })
    }
    return tables
  }

  find(database: string, table: string): Table | undefined {
    const key = cacheKey(database, table)
    const cached = this.#cache.get(key)
    if (cached) return cached
    const stored = this.#storage.schema.get([database, table])
    if (!stored) return undefined
    const found = { database, table, ...stored }
    this.#cache.set(key, found)
    return found
  }

  /** Throws HostError 404 if the table or its database does not exist. */
  get(database: string, table: string): Table {
    const found = this.find(database, table)
    if (!found) this.#requireDatabase(database)
    if (!found) throw new HostError(404, `Table '${database}.${table}' does not exist`)
    return found
  }

  put(changed: Table): void {
    const { database, table, primaryKey, attributes, count } = changed
    this.#cache.set(cacheKey(database, table), changed)
    this.#storage.schema.put([database, table], { primaryKey, attributes, count })
  }

  createDatabase(database: string): void {
    checkName('database', database)
    if (!this.hasDatabase(database)) this.#storage.schema.put([database], null)
  }

  /** Creates the table and its database. If the table exists, adds missing attributes. */
  create({ database, table, primaryKey, attributes }: TableDescription): void {
    checkName('table', table)
    checkAttribute(primaryKey)
    for (const attribute of attributes) checkAttribute(attribute)
    this.createDatabase(database)
    const found = this.find(database, table)
    if (found && found.primaryKey !== primaryKey) {
      throw new HostError(
        409,
        `Table '${database}.${table}' exists with the primary key '${found.primaryKey}', not '${primaryKey}'`,
      )
    }
    const all = new Set([primaryKey, ...(found?.attributes ?? []), ...attributes])
    this.put({ database, table, primaryKey, attributes: [...all], count: found?.count ?? 0 })
  }

  /** Deletes all rows and tombstones of the table. */
  empty(database: string, table: string): void {
    const found = this.get(database, table)
    for (const key of this.#storage.rows.getKeys(tableRange(database, table))) this.#storage.rows.remove(key)
    this.put({ ...found, count: 0 })
  }

  /** Deletes the table with all rows and tombstones. */
  drop(database: string, table: string): void {
    this.empty(database, table)
    this.#cache.delete(cacheKey(database, table))
    this.#storage.schema.remove([database, table])
  }

  dropDatabase(database: string): void {
    this.#requireDatabase(database)
    for (const { table } of this.list(database)) this.drop(database, table)
    this.#storage.schema.remove([database])
  }

  hasDatabase(database: string): boolean {
    return this.#storage.schema.doesExist([database])
  }

  #requireDatabase(database: string): void {
    if (!this.hasDatabase(database)) throw new HostError(404, `database '${database}' does not exist`)
  }
}

/** Names contain no NUL. */
const cacheKey = (database: string, table: string) => `${database}\0${table}`

/** HarperDB's rule: printable ASCII without slashes and backticks, at most 250 characters. */
function checkName(kind: 'database' | 'table', name: string): void {
  if (name === '') throw badRequest(`'${kind}' is not allowed to be empty`)
  if (name.length > 250) throw badRequest(`'${kind}' cannot exceed 250 characters`)
  if (!/^[\x20-\x7e]+$/.test(name) || /[/`]/.test(name)) {
    throw badRequest(`'${kind}' names cannot include backticks, forward slashes or anything but printable ASCII`)
  }
}

/** `__proto__` is excluded: decoders confuse it with the prototype of an object. */
export function checkAttribute(name: string): void {
  if (name === '' || name.length > 250 || name === '__proto__') {
    throw badRequest(
      `An attribute name must have 1 to 250 characters and not be __proto__, received '${name.slice(0, 260)}'`,
    )
  }
}
