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

type FoundRow = { readonly key: unknown; readonly storedKey: Buffer; row: StoredRow | undefined }

export class TableEditor {
  readonly table: Table
  readonly #storage: Storage
  readonly #tables: Tables
  readonly #attributes: Set<string>
  readonly #changed = new Set<string>()
  #count: number
  /** The row that was used last, as it is in this transaction: most are looked for before they are written. */
  #last: FoundRow | undefined

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
    return this.#find(key).row?.record !== undefined
  }

  /** True if the row is different now; undefined if the write was ignored because of the horizon. */
  merge(key: unknown, change: RowChange, options: MergeOptions = {}): boolean | undefined {
    const found = this.#find(key)
    if (change.operation !== 'delete') this.#addAttributes(change.record)
    const { storedKey, row: before } = found
    const after = mergeRow(before, change, options)
    if (!after) return undefined
    if (after === before) return false
    this.#storage.rows.put(storedKey, after)
    found.row = after
    this.#changed.add(storedKey.toString('latin1'))
    this.#count += Number(after.record !== undefined) - Number(before?.record !== undefined)
    return true
  }

  finish(): void {
    if (this.#count === this.table.count && this.#attributes.size === this.table.attributes.length) return
    this.#tables.put({ ...this.table, attributes: [...this.#attributes], count: this.#count })
  }

  #find(key: unknown): FoundRow {
    if (this.#last && this.#last.key === key) return this.#last
    const storedKey = rowKey(this.table.database, this.table.table, key)
    const found = { key, storedKey, row: this.#storage.rows.get(storedKey) }
    this.#last = found
    return found
  }

  #addAttributes(record: Attributes): void {
    for (const name in record) {
      if (this.#attributes.has(name)) continue
      checkAttribute(name)
      this.#attributes.add(name)
    }
  }
}
