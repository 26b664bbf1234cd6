// Last writer wins, as pure functions: the next state of a row when a write arrives, in any order of arrival. Hosts may use
// them; the module itself does not.

import { isDeepStrictEqual } from 'node:util'
import type { PrimaryKey, StoredRow, Timestamp, VoidedRange, Write } from './host.ts'
import { type MergeConflict, reportConflicts } from './merge-conflict.ts'

export type { StoredRow } from './host.ts'

export type Attributes = Record<string, unknown>

/** The effect of one write on one row. The record of an `update` includes the primary key, so that an update of an absent row upserts. */
export type RowChange =
  | { operation: 'put'; timestamp: Timestamp; record: Attributes }
  | { operation: 'update'; timestamp: Timestamp; record: Attributes }
  | { operation: 'delete'; timestamp: Timestamp }

export type MergeOptions = {
  /** From the transaction: stored timestamps in that range are lower than any other. */
  voids?: VoidedRange | undefined
  /** Of the table (`Host.horizon`), unless the batch has `acceptOld`: a write at or below it does not bring an absent row back. */
  horizon?: Timestamp | undefined
  /** Called for each attribute that `change` loses against a newer version of another node, before the result is returned. Again if a transaction is repeated. */
  onConflict?: ((conflict: MergeConflict) => void) | undefined
}

/**
 * The row after `change`. The result does not depend on the order of arrival: it is the record that the same writes
 * produce in the order of their timestamps, which is the newest put or delete, and every newer update on top of it, attribute by
 * attribute. A delete that arrives late removes older values and keeps those that newer updates set.
 *
 * Writes with equal timestamps belong to one transaction and arrive in order: the later call wins. This also makes it
 * harmless to apply a transaction twice. Returns `stored` itself if `change` has no effect; undefined only with a horizon.
 */
export function mergeRow(
  stored: StoredRow | undefined,
  change: RowChange,
  options?: MergeOptions & { horizon?: undefined },
): StoredRow
export function mergeRow(
  stored: StoredRow | undefined,
  change: RowChange,
  options?: MergeOptions,
): StoredRow | undefined
export function mergeRow(
  stored: StoredRow | undefined,
  change: RowChange,
  { voids, horizon, onConflict }: MergeOptions = {},
): StoredRow | undefined {
  if (!stored && horizon !== undefined && change.timestamp <= horizon) return undefined
  const row = stored && voids ? lowerRow(stored, (timestamp) => isVoided(voids, timestamp)) : stored
  if (row && onConflict) reportConflicts(row, change, onConflict)
  if (row && change.timestamp < row.timestamp) return row
  const merged =
    change.operation === 'update' ? applyUpdate(row ?? { timestamp: '' }, change) : applyWholeRow(row, change)
  // Only a change that was applied before has the timestamp of a stored one.
  return row && hasTimestamp(row, change.timestamp) && isDeepStrictEqual(merged, row) ? row : merged
}

/** The change with this timestamp, or the transaction that it belongs to, was applied to the row. */
export const hasTimestamp = ({ timestamp, updated }: StoredRow, expected: Timestamp): boolean =>
  timestamp === expected || (updated !== undefined && Object.values(updated).includes(expected))

/** The row with every voided timestamp as low as possible; `row` itself if it has none. */
export function lowerRow(row: StoredRow, isVoid: (timestamp: Timestamp) => boolean): StoredRow {
  const updated = Object.entries(row.updated ?? {})
  const kept = updated.filter(([, timestamp]) => !isVoid(timestamp))
  const isRowVoid = row.timestamp !== '' && isVoid(row.timestamp)
  if (!isRowVoid && kept.length === updated.length) return row
  return {
    timestamp: isRowVoid ? '' : row.timestamp,
    ...(row.record && { record: row.record }),
    ...(kept.length > 0 && { updated: Object.fromEntries(kept) }),
  }
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
    // hasOwn: an attribute may be named `constructor`.
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

/** Length of `019a1b2c3d4e-000000-`, which the node's name follows. */
const NODE_OFFSET = 20

/** True for a timestamp that this node issued. */
export const isIssuedBy = (node: string, timestamp: Timestamp): boolean => timestamp.slice(NODE_OFFSET) === node

/** True for a timestamp that `range.node` withdrew. */
export const isVoided = (range: VoidedRange, timestamp: Timestamp): boolean =>
  timestamp >= range.from && timestamp <= range.to && isIssuedBy(range.node, timestamp)
