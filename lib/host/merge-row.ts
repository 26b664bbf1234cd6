// Last writer wins, as pure functions: what a row becomes when one more write of it arrives, in whatever order writes arrive. For hosts
// that store rows as they are here; nothing else of the module needs them.

import type { PrimaryKey, Timestamp, Write } from './host.ts'

export type Attributes = Record<string, unknown>

/** What one write does to one row. `update` holds its primary key too: that is what makes an update of an absent row upsert. */
export type RowChange =
  | { operation: 'put'; timestamp: Timestamp; record: Attributes }
  | { operation: 'update'; timestamp: Timestamp; record: Attributes }
  | { operation: 'delete'; timestamp: Timestamp }

/** A row as it is stored. Without `record` it is a tombstone, or nothing but writes that were overtaken. */
export type StoredRow = {
  /** Of the newest write of the row as a whole (put or delete); '' while only updates have arrived. */
  timestamp: Timestamp
  /** What a reader sees. */
  record?: Attributes
  /** Attributes that an update newer than `timestamp` set, each with the stamp of that update. */
  updated?: Record<string, Timestamp>
}

/**
 * The row after `change`. Whatever the order of arrival, the record is the one that the same writes give when they are
 * applied naively in the order of their stamps: the newest put or delete, and over it every newer update, attribute by
 * attribute. So a delete that arrives late removes all that is older and leaves what newer updates set.
 *
 * Equal stamps are writes of one transaction, whose order is always kept: the later call wins. That also makes it harmless
 * to apply a transaction again. Returns `row` itself when the change comes too late to matter.
 */
export function mergeRow(row: StoredRow | undefined, change: RowChange): StoredRow {
  if (row && change.timestamp < row.timestamp) return row
  return change.operation === 'update' ? applyUpdate(row ?? { timestamp: '' }, change) : applyWholeRow(row, change)
}

function applyWholeRow(row: StoredRow | undefined, change: Exclude<RowChange, { operation: 'update' }>): StoredRow {
  const newer = Object.entries(row?.updated ?? {}).filter(([, timestamp]) => timestamp > change.timestamp)
  if (newer.length === 0) {
    return change.operation === 'put'
      ? { timestamp: change.timestamp, record: change.record }
      : { timestamp: change.timestamp }
  }
  const record = change.operation === 'put' ? { ...change.record } : {}
  for (const [name] of newer) record[name] = row?.record?.[name]
  return { timestamp: change.timestamp, record, updated: Object.fromEntries(newer) }
}

function applyUpdate(row: StoredRow, change: RowChange & { operation: 'update' }): StoredRow {
  const record = { ...row.record }
  const updated = { ...row.updated }
  for (const [name, value] of Object.entries(change.record)) {
    // hasOwn: an attribute may be called `constructor`.
    if (Object.hasOwn(updated, name) && change.timestamp < updated[name]!) continue
    record[name] = value
    if (change.timestamp > row.timestamp) updated[name] = change.timestamp
  }
  return { timestamp: row.timestamp, record, ...(Object.keys(updated).length > 0 && { updated }) }
}

/** The change of each row that a write affects, in order. `primaryKey` is the name of the table's primary key. */
export function rowChanges(
  write: Write,
  timestamp: Timestamp,
  primaryKey: string,
): { key: PrimaryKey; change: RowChange }[] {
  if (write.operation === 'delete') return write.ids.map((key) => ({ key, change: { operation: 'delete', timestamp } }))
  const operation = write.operation === 'update' ? 'update' : 'put'
  return write.records.map((record) => ({
    key: record[primaryKey] as PrimaryKey,
    change: { operation, timestamp, record },
  }))
}
