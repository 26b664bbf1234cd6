// Read access to the rows of all tables.

import type { Attributes } from '../../lib/host/merge-row.ts'
import { rowKey, tableRange } from './keys.ts'
import type { Storage } from './storage.ts'
import { TableEditor } from './table-editor.ts'
import type { Tables } from './tables.ts'

export class Rows {
  readonly #storage: Storage
  readonly #tables: Tables

  constructor(storage: Storage, tables: Tables) {
    this.#storage = storage
    this.#tables = tables
  }

  get(database: string, table: string, key: unknown): Attributes | undefined {
    return this.#storage.rows.get(rowKey(database, table, key))?.record
  }

  /** In the order of the primary keys: numbers first, then strings. */
  *scan(database: string, table: string): Generator<Attributes> {
    for (const { value } of this.#storage.rows.getRange(tableRange(database, table)))
      if (value.record) yield value.record
  }

  /** To change rows of one table inside a storage transaction. `finish` stores the table's new count and attributes. */
  editor(database: string, table: string): TableEditor {
    return new TableEditor(this.#storage, this.#tables, this.#tables.get(database, table))
  }
}
