// Read access to the rows of all tables.

import type { KeyedRow, PrimaryKey, RowSelection, StoredRow, TableRow, Timestamp } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { keyFromRow, rowKey, tableRange } from './keys.ts'
import type { Storage } from './storage.ts'
import { TableEditor } from './table-editor.ts'
import type { Table, Tables } from './tables.ts'

/** Rows that are read at once to find tombstones. */
const MAX_SCANNED_ROWS = 1_000

const isOldTombstone = ({ record, timestamp }: StoredRow, limit: Timestamp): boolean => !record && timestamp < limit

/** The lowest key that is higher: one byte more. */
const keyAfter = (key: Buffer): Buffer => Buffer.concat([key, Buffer.of(0)])

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
    const start = after === undefined ? range.start : keyAfter(rowKey(database, table, after))
    const rows = [...this.#storage.rows.getRange({ ...range, start, limit })]
    return rows.map(({ key, value: row }) => ({ key: keyFromRow(key, range.start.length), row }))
  }

  #keyed(database: string, table: string, key: PrimaryKey): KeyedRow[] {
    const row = this.#storage.rows.get(rowKey(database, table, key))
    return row ? [{ key, row }] : []
  }

  /** The stored keys of tombstones with lower timestamps, of some rows at a time: an empty list if these rows have none. */
  *tombstones(database: string, table: string, limit: Timestamp): Generator<Buffer[]> {
    const range = tableRange(database, table)
    for (let start = range.start; ; ) {
      const rows = [...this.#storage.rows.getRange({ ...range, start, limit: MAX_SCANNED_ROWS })]
      if (rows.length === 0) return
      yield rows.filter(({ value }) => isOldTombstone(value, limit)).map(({ key }) => key)
      start = keyAfter(rows.at(-1)!.key)
    }
  }

  /** Removes the row if it is still such a tombstone, and returns its timestamp. Must run inside a storage transaction. */
  dropTombstone(key: Buffer, limit: Timestamp): Timestamp[] {
    const row = this.#storage.rows.get(key)
    if (!row || !isOldTombstone(row, limit)) return []
    this.#storage.rows.remove(key)
    return [row.timestamp]
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
