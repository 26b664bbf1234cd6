// Values by table, found by its two names as they are: what happens with each transaction makes no key of them.

import type { TableName } from './mesh.ts'

export class TableMap<Value> {
  readonly #databases = new Map<string, Map<string, Value>>()

  /** What is there; otherwise what `make` gives, which is asked once, for a table object of the map's own. */
  get(name: TableName, make: (table: TableName) => Value): Value {
    const tables = this.#tablesOf(name.database)
    const known = tables.get(name.table)
    if (known !== undefined || tables.has(name.table)) return known as Value
    const made = make({ database: name.database, table: name.table })
    tables.set(name.table, made)
    return made
  }

  set(name: TableName, value: Value): void {
    this.#tablesOf(name.database).set(name.table, value)
  }

  /** Database by database. */
  *values(): Iterable<Value> {
    for (const tables of this.#databases.values()) yield* tables.values()
  }

  #tablesOf(database: string): Map<string, Value> {
    const known = this.#databases.get(database)
    if (known) return known
    const tables = new Map<string, Value>()
    this.#databases.set(database, tables)
    return tables
  }
}
