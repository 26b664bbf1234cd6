// What a transaction does to each row that it writes: one write a row, because HarperDB drops a second one with the same time.

import type { PrimaryKey, Write } from '../../host/host.ts'

/** The last state of a row in a transaction. `update`: only these attributes, with the primary key. */
export type RowWrite =
  | { operation: 'insert' | 'upsert' | 'update'; key: PrimaryKey; record: Record<string, unknown> }
  | { operation: 'delete'; key: PrimaryKey }

/** In the order in which the rows first occur. */
export function netWrites(writes: readonly Write[], primaryKey: string): RowWrite[] {
  const rows = new Map<string, RowWrite>()
  const add = (next: RowWrite) => {
    // 1 and '1' are two keys, and 1 and 1n are one.
    const id = typeof next.key === 'string' ? `"${next.key}` : `${next.key}`
    rows.set(id, merged(rows.get(id), next))
  }
  for (const write of writes)
    if (write.operation === 'delete') for (const key of write.ids) add({ operation: 'delete', key })
    else for (const record of write.records) add({ operation: write.operation, key: keyOf(record[primaryKey]), record })
  return [...rows.values()]
}

const KEY_TYPES: ReadonlySet<string> = new Set(['string', 'number', 'bigint'])
/** A record without a valid key makes no message unreadable. */
const keyOf = (value: unknown): PrimaryKey => (KEY_TYPES.has(typeof value) ? (value as PrimaryKey) : '')

function merged(before: RowWrite | undefined, next: RowWrite): RowWrite {
  if (!before || next.operation !== 'update') return next
  // The attributes that an update sets in a row that was deleted are the whole row.
  if (before.operation === 'delete') return { ...next, operation: 'upsert' }
  return { ...before, record: { ...before.record, ...next.record } }
}
