// Read access to the rows of all tables.

import type { KeyedRow, PrimaryKey, RowSelection, TableRow, Timestamp } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { keyFromRow, rowKey, tableRange } from './keys.ts'
import type { Storage } from './storage.ts'
import { TableEditor } from './table-editor.ts'
import type { Table, Tables } from './tables.ts'

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

  /** All rows with their timestamps, tombstones included. */
  *stored({ database, table, primaryKey }: Table): Generator<TableRow> {
    const range = tableRange(database, table)
    for (const { key: stored, value: row } of this.#storage.rows.getRange(range))
      yield { database, table, primaryKey, key: keyFromRow(stored, range.start.length), row }
  }

  /** As `Host.readRows`, in the order of the primary keys. */
  read(database: string, table: string, selection: RowSelection): KeyedRow[] {
    if (selection.keys) return selection.keys.flatMap((key) => this.#keyed(database, table, key))
    const { after, limit } = selection
    const range = tableRange(database, table)
    // The key itself and one byte more: the lowest key that is higher.
    const start = after === undefined ? range.start : Buffer.concat([rowKey(database, table, after), Buffer.of(0)])
    const rows = [...this.#storage.rows.getRange({ ...range, start, limit })]
    return rows.map(({ key, value: row }) => ({ key: keyFromRow(key, range.start.length), row }))
  }

  #keyed(database: string, table: string, key: PrimaryKey): KeyedRow[] {
    const row = this.#storage.rows.get(rowKey(database, table, key))
    return row ? [{ key, row }] : []
  }

  /** Removes tombstones with lower timestamps. Returns the highest of theirs. Must run inside a storage transaction. */
  dropTombstones(database: string, table: string, limit: Timestamp): Timestamp | undefined {
    let highest: Timestamp | undefined
    for (const { key, value } of this.#storage.rows.getRange(tableRange(database, table))) {
      if (value.record || value.timestamp >= limit) continue
      this.#storage.rows.remove(key)
      if (value.timestamp > (highest ?? '')) highest = value.timestamp
    }
    return highest
  }

  /** Replaces a stored row by one with the same record. Must run inside a storage transaction. */
  replace({ database, table, key, row }: TableRow): void {
    this.#storage.rows.put(rowKey(database, table, key), row)
  }

  /** To change rows of one table inside a storage transaction. `finish` stores the table's new count and attributes. */
  editor(database: string, table: string): TableEditor {
    return new TableEditor(this.#storage, this.#tables, this.#tables.get(database, table))
  }
}
