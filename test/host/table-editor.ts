// Changes rows of one table inside a write transaction: merges changes, and updates the table's count and attributes.

import {
  type Attributes,
  type MergeOptions,
  mergeRow,
  type RowChange,
  type StoredRow,
} from '../../lib/host/merge-row.ts'
import { rowKey } from './keys.ts'
import type { Storage } from './storage.ts'
import { checkAttribute, type Table, type Tables } from './tables.ts'

export class TableEditor {
  readonly table: Table
  readonly #storage: Storage
  readonly #tables: Tables
  readonly #attributes: Set<string>
  readonly #changed = new Set<string>()
  #count: number

  constructor(storage: Storage, tables: Tables, table: Table) {
    this.#storage = storage
    this.#tables = tables
    this.table = table
    this.#attributes = new Set(table.attributes)
    this.#count = table.count
  }

  /** Number of rows that are different now. */
  get changedRows(): number {
    return this.#changed.size
  }

  has(key: unknown): boolean {
    return this.#read(this.#key(key))?.record !== undefined
  }

  /** True if the row is different now; undefined if the write was ignored because of the horizon. */
  merge(key: unknown, change: RowChange, options: MergeOptions = {}): boolean | undefined {
    const storedKey = this.#key(key)
    if (change.operation !== 'delete') this.#addAttributes(change.record)
    const before = this.#read(storedKey)
    const after = mergeRow(before, change, options)
    if (!after) return undefined
    if (after === before) return false
    this.#storage.rows.put(storedKey, after)
    this.#changed.add(storedKey.toString('latin1'))
    this.#count += Number(after.record !== undefined) - Number(before?.record !== undefined)
    return true
  }

  finish(): void {
    if (this.#count === this.table.count && this.#attributes.size === this.table.attributes.length) return
    this.#tables.put({ ...this.table, attributes: [...this.#attributes], count: this.#count })
  }

  #key(key: unknown): Buffer {
    return rowKey(this.table.database, this.table.table, key)
  }

  #read(key: Buffer): StoredRow | undefined {
    return this.#storage.rows.get(key)
  }

  #addAttributes(record: Attributes): void {
    for (const name in record) {
      if (this.#attributes.has(name)) continue
      checkAttribute(name)
      this.#attributes.add(name)
    }
  }
}
