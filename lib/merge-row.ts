// Last writer wins, as pure functions: what a row becomes when one more write of it arrives, in whatever order writes arrive. For hosts
// that store rows as they are here; nothing else of the module needs them.

import type { Key, Stamp, Write } from './host.ts'

export type Attributes = Record<string, unknown>

/** What one write does to one row. `update` holds its primary key too: that is what makes an update of an absent row upsert. */
export type RowChange =
  | { operation: 'put'; stamp: Stamp; record: Attributes }
  | { operation: 'update'; stamp: Stamp; record: Attributes }
  | { operation: 'delete'; stamp: Stamp }

/** A row as it is stored. Without `record` it is a tombstone, or nothing but writes that were overtaken. */
export type Row = {
  /** Of the newest write of the row as a whole (put or delete); '' while only updates have arrived. */
  stamp: Stamp
  /** What a reader sees. */
  record?: Attributes
  /** Attributes that an update newer than `stamp` set, each with the stamp of that update. */
  updated?: Record<string, Stamp>
}

/**
 * The row after `change`. Whatever the order of arrival, the record is the one that the same writes give when they are
 * applied naively in the order of their stamps: the newest put or delete, and over it every newer update, attribute by
 * attribute. So a delete that arrives late removes all that is older and leaves what newer updates set.
 *
 * Equal stamps are writes of one transaction, whose order is always kept: the later call wins. That also makes it harmless
 * to apply a transaction again. Returns `row` itself when the change comes too late to matter.
 */
export function mergeRow(row: Row | undefined, change: RowChange): Row {
  if (row && change.stamp < row.stamp) return row
  return change.operation === 'update' ? withUpdate(row ?? { stamp: '' }, change) : withWhole(row, change)
}

function withWhole(row: Row | undefined, change: Exclude<RowChange, { operation: 'update' }>): Row {
  const newer = Object.entries(row?.updated ?? {}).filter(([, stamp]) => stamp > change.stamp)
  if (newer.length === 0) {
    return change.operation === 'put' ? { stamp: change.stamp, record: change.record } : { stamp: change.stamp }
  }
  const record = change.operation === 'put' ? { ...change.record } : {}
  for (const [name] of newer) record[name] = row?.record?.[name]
  return { stamp: change.stamp, record, updated: Object.fromEntries(newer) }
}

function withUpdate(row: Row, change: RowChange & { operation: 'update' }): Row {
  const record = { ...row.record }
  const updated = { ...row.updated }
  for (const [name, value] of Object.entries(change.record)) {
    // hasOwn: an attribute may be called `constructor`.
    if (Object.hasOwn(updated, name) && change.stamp < updated[name]!) continue
    record[name] = value
    if (change.stamp > row.stamp) updated[name] = change.stamp
  }
  return { stamp: row.stamp, record, ...(Object.keys(updated).length > 0 && { updated }) }
}

/** What a write does to each of its rows, in order; `primaryKey` is the table's. */
export function rowChanges(
  { operation, records = [], ids = [] }: Write,
  stamp: Stamp,
  primaryKey: string,
): { key: Key; change: RowChange }[] {
  if (operation === 'delete') return ids.map((key) => ({ key, change: { operation, stamp } }))
  const kind = operation === 'update' ? 'update' : 'put'
  return records.map((record) => ({
    key: record[primaryKey] as Key,
    change: { operation: kind, stamp, record },
  }))
}
