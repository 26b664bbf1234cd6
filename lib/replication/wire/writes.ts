// The writes of a transaction before they are encoded: split by table, and adjacent ones of the same operation joined.

import type { DeleteWrite, RecordWrite, Transaction, Write } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import type { TableName } from '../../mesh/mesh.ts'

/** The writes of each table, in the order in which the tables first occur. */
export function splitByTable({ writes }: Transaction): { table: TableName; writes: Write[] }[] {
  const first = writes[0]
  if (!first) return []
  if (
    writes.length === 1 ||
    writes.every(({ database, table }) => database === first.database && table === first.table)
  )
    return [{ table: first, writes }]
  const parts = new Map<string, { table: TableName; writes: Write[] }>()
  for (const each of writes) {
    const key = tableKey(each)
    const part = parts.get(key) ?? { table: { database: each.database, table: each.table }, writes: [] }
    part.writes.push(each)
    parts.set(key, part)
  }
  return [...parts.values()]
}

/** Joins adjacent writes of the same operation: equivalent, and much smaller than a list of single rows. */
export function joinRuns(writes: readonly Write[]): readonly Write[] {
  if (writes.length === 1) return writes
  const runs: Write[] = []
  for (const each of writes) {
    const last = runs.at(-1)
    if (last?.operation !== each.operation) runs.push(copyWrite(each))
    else if (last.operation === 'delete') append(last.ids, (each as DeleteWrite).ids)
    else append(last.records, (each as RecordWrite).records)
  }
  return runs
}

// Untyped hosts may omit a list.
const copyWrite = (write: Write): Write =>
  write.operation === 'delete'
    ? { ...write, ids: [...(write.ids ?? [])] }
    : { ...write, records: [...(write.records ?? [])] }

/** One at a time: as arguments of `push`, a long list would exceed the stack. */
function append<T>(list: T[], more: readonly T[] = []): void {
  for (const each of more) list.push(each)
}
