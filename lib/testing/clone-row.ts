// Copies of rows for their readers.

import type { StoredRow } from '../host/host.ts'

const isShared = (value: unknown): boolean => typeof value !== 'object' || value === null

/** As `structuredClone`, which takes ten times as long for a flat record. */
export function cloneRow(row: StoredRow): StoredRow {
  const { timestamp, record, updated } = row
  if (record) for (const name in record) if (!isShared(record[name])) return structuredClone(row)
  return {
    timestamp,
    ...(record && { record: { ...record } }),
    ...(updated && { updated: { ...updated } }),
  }
}
