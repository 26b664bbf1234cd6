// The rows of all tables, to be read.

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

  /** In the order of the primary keys, numbers first. */
  *scan(database: string, table: string): Generator<Attributes> {
    for (const { value } of this.#storage.rows.getRange(tableRange(database, table)))
      if (value.record) yield value.record
  }

  /** For changing many rows of one table inside a transaction of the storage. `finish` stores what changed of the table. */
  editor(database: string, table: string): TableEditor {
    return new TableEditor(this.#storage, this.#tables, this.#tables.get(database, table))
  }
}
