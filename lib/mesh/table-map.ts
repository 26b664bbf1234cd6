// Values by table, in nested maps: a lookup for each transaction builds no combined key.

import type { TableName } from './mesh.ts'

export class TableMap<Value> {
  readonly #databases = new Map<string, Map<string, Value>>()

  /** The value of the table. When missing, stores the result of `make`, which gets a table object that the map owns. */
  get(name: TableName, make: (table: TableName) => Value): Value {
    const tables = this.#tablesOf(name.database)
    const known = tables.get(name.table)
    if (known !== undefined || tables.has(name.table)) return known as Value
    const made = make({ database: name.database, table: name.table })
    tables.set(name.table, made)
    return made
  }

  /** Undefined when missing. */
  find({ database, table }: TableName): Value | undefined {
    return this.#databases.get(database)?.get(table)
  }

  set(name: TableName, value: Value): void {
    this.#tablesOf(name.database).set(name.table, value)
  }

  /** Grouped by database. */
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
