// Encodes rows for one page until its limits are reached.

import type { KeyedRow, PrimaryKey } from '../../host/host.ts'
import { illFormedString, mayBeIllFormed } from '../../util/well-formed.ts'
import { encodeRow } from './row-page.ts'

/** A row that does not fit into any page. */
export type LargeRow = { row: KeyedRow; encoded: Uint8Array }

export class PageBuilder {
  /** In order. */
  readonly encoded: Uint8Array[] = []
  /** Of the last row. */
  lastKey: PrimaryKey | undefined
  /** The page consists of this row alone. */
  large: LargeRow | undefined
  /** Average bytes of the rows so far; undefined before the first one. */
  rowBytes: number | undefined
  readonly #limits: { rows: number; bytes: number; rowBytes: number }
  #bytes = 0

  /** `bytes`: exceeded by a lone row only. `rowBytes`: a larger row does not fit into any page. */
  constructor(limits: { rows: number; bytes: number; rowBytes: number }) {
    this.#limits = limits
  }

  get rowsLeft(): number {
    return this.#limits.rows - this.encoded.length
  }

  get bytesLeft(): number {
    return Math.max(this.#limits.bytes - this.#bytes, 0)
  }

  /** False when the row does not fit: the page is complete. */
  add(row: KeyedRow): boolean {
    const isFirst = this.encoded.length === 0
    if (this.large || this.rowsLeft === 0) return false
    const encoded = encodeRow(row)
    // A transaction with such a string is not replicated either: see encodePart.
    if (mayBeIllFormed(encoded) && illFormedString([row.key, row.row.record]) !== undefined) return true
    const bytes = encoded.byteLength
    this.rowBytes ??= bytes
    if (isFirst && bytes > this.#limits.rowBytes) {
      this.large = { row, encoded }
      return true
    }
    if (!isFirst && bytes > this.bytesLeft) return false
    this.encoded.push(encoded)
    this.lastKey = row.key
    this.#bytes += bytes
    this.rowBytes = this.#bytes / this.encoded.length
    return true
  }

  /** Whether another row may fit. */
  get isOpen(): boolean {
    return !this.large && this.rowsLeft > 0 && this.bytesLeft > 0
  }
}
