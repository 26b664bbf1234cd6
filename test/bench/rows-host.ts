// Databases with a table of equal rows, to copy and to compare.

import type { Batch, Host, KeyedRow, Timestamp } from '../../lib/index.ts'
import { encodePage, encodeRow } from '../../lib/replication/copy/row-page.ts'
import { MemoryHost } from '../../lib/testing.ts'
import { NullHost } from './null-host.ts'

export const dog = { database: 'dev', table: 'dog' } as const
/** Rows of a page, as enmesh asks for them if they are small. */
export const PAGE_ROWS = 1_000
/** When the first row was written, in ms since 1970. Rows follow each other every ms. */
const FIRST_WRITE = Date.UTC(2026, 0, 1)

const timestampOf = (index: number): Timestamp => `${(FIRST_WRITE + index).toString(16).padStart(12, '0')}-000000-node1`

/** A host of the benchmarks: it reports what it has applied. */
export type RowsHost = Host & {
  onApplied: ((batch: Batch) => void) | undefined
  readRows: NonNullable<Host['readRows']>
  /** Removes the copied table. */
  clear(): void
}

/** MemoryHost with rows that were written one by one. */
export class FilledHost extends MemoryHost implements RowsHost {
  onApplied: ((batch: Batch) => void) | undefined

  constructor(rows: number, text: string) {
    super({ tables: rows > 0 ? [dog] : [], outbox: false })
    for (let id = 0; id < rows; id++)
      this.commitAs({
        id: String(id),
        timestamp: timestampOf(id),
        writes: [{ operation: 'upsert', ...dog, records: [{ id, text }] }],
      })
  }

  override async apply(batch: Batch) {
    const outcome = await super.apply(batch)
    this.onApplied?.(batch)
    return outcome
  }

  clear(): void {
    this.dropTable(dog.database, dog.table)
  }
}

/** Rows that are created when they are read; what is applied is not stored. */
export class GeneratedHost extends NullHost implements RowsHost {
  onApplied: ((batch: Batch) => void) | undefined
  readonly #rows: number
  readonly #text: string

  constructor(rows: number, text: string) {
    super([dog.table])
    this.#rows = rows
    this.#text = text
  }

  async readRows(_: unknown, selection: Parameters<RowsHost['readRows']>[1]): Promise<KeyedRow[]> {
    if (selection.keys) return selection.keys.map((key) => this.#row(Number(key)))
    const first = selection.after === undefined ? 0 : Number(selection.after) + 1
    const end = Math.min(first + selection.limit, this.#rows)
    return Array.from({ length: Math.max(end - first, 0) }, (_, index) => this.#row(first + index))
  }

  override async apply(batch: Batch): Promise<void> {
    await super.apply(batch)
    this.onApplied?.(batch)
  }

  clear(): void {}

  #row(id: number): KeyedRow {
    return { key: id, row: { timestamp: timestampOf(id), record: { id, text: this.#text } } }
  }
}

/** The page after this key, encoded as enmesh does; undefined at the end. */
export async function pageAfter(host: RowsHost, after: number | undefined): Promise<Uint8Array | undefined> {
  const rows = await host.readRows(dog, { after, limit: PAGE_ROWS })
  return rows.length === 0 ? undefined : encodePage(rows.map(encodeRow), undefined)
}
