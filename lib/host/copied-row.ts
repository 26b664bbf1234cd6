// A stored row as the writes that produce it, so that a host receives copied rows through `apply` and needs nothing else.

import type { KeyedRow, TableDescription, TableName, Timestamp, Write } from './host.ts'

type NamedTable = Pick<TableDescription, 'database' | 'table' | 'primaryKey'>

export type DatedWrite = { timestamp: Timestamp; write: Write }

/**
 * A put (or a delete, without a record) at the timestamp of the row, without the attributes that updates have set since; then one
 * update for each timestamp of such attributes. `mergeRow` of these writes into any row gives the merge of both rows. No put for a row
 * without a timestamp: only updates of it are known.
 */
export function writesOfRow({ database, table, primaryKey }: NamedTable, { key, row }: KeyedRow): DatedWrite[] {
  const { timestamp, record, updated } = row
  // Most rows: the general case below gives the same, and takes several times as long.
  if (record && !updated && timestamp !== '')
    return [{ timestamp, write: upsert({ database, table }, { ...record, [primaryKey]: key }) }]
  return mixedWrites({ database, table, primaryKey }, { key, row })
}

const upsert = ({ database, table }: TableName, record: Record<string, unknown>): Write => ({
  operation: 'upsert',
  database,
  table,
  records: [record],
})

function mixedWrites({ database, table, primaryKey }: NamedTable, { key, row }: KeyedRow): DatedWrite[] {
  const { timestamp, record, updated = {} } = row
  const writes: DatedWrite[] = []
  const names = Object.keys(updated)
  if (timestamp !== '') {
    const kept = record && Object.entries(record).filter(([name]) => !Object.hasOwn(updated, name))
    // A tombstone under newer updates has a record that consists of them alone.
    const isTombstone = !kept || kept.every(([name]) => name === primaryKey)
    // The rest of this function assigns no property by name: an attribute may be called `__proto__`.
    const write: Write =
      isTombstone && !(kept && names.length === 0)
        ? { operation: 'delete', database, table, ids: [key] }
        : upsert({ database, table }, Object.fromEntries([...kept!, [primaryKey, key]]))
    writes.push({ timestamp, write })
  }
  for (const each of [...new Set(Object.values(updated))].sort()) {
    const set = names.filter((name) => updated[name] === each).map((name) => [name, record?.[name]])
    const records = [Object.fromEntries([...set, [primaryKey, key]])]
    writes.push({ timestamp: each, write: { operation: 'update', database, table, records } })
  }
  return writes
}
