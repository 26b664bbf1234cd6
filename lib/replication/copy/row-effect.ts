// What a copied row changes here. Rows that change nothing are neither applied nor announced.

import { isDeepStrictEqual } from 'node:util'
import { writesOfRow } from '../../host/copied-row.ts'
import type { Host, KeyedRow, StoredRow, TableName, Timestamp } from '../../host/host.ts'
import { mergeRow, rowChanges } from '../../host/merge-row.ts'
import { keyIdentity } from './key-identity.ts'

/** `changes`: at least one of the rows is different after they are applied; the others are refused because of the horizon. */
export type EffectiveRows = { rows: readonly KeyedRow[]; changes: boolean }

export type EffectOptions = {
  host: Pick<Host, 'readRows' | 'horizon'>
  table: TableName
  /** Of the local table. */
  primaryKey: string
  /** Rows at or below the horizon are applied. */
  acceptOld: boolean
}

/** Those of the rows that have an effect here. All of them if the host cannot read its rows. Rejects as the host does. */
export async function effectiveRows(rows: readonly KeyedRow[], options: EffectOptions): Promise<EffectiveRows> {
  const { host, primaryKey, acceptOld } = options
  const { database, table } = options.table
  if (!host.readRows || rows.length === 0) return { rows, changes: rows.length > 0 }
  const stored = await host.readRows({ database, table }, { keys: rows.map(({ key }) => key) })
  const here = new Map(stored.map(({ key, row }) => [keyIdentity(key), row]))
  const horizon = acceptOld ? undefined : await host.horizon?.({ database, table })
  let changes = false
  const effective = rows.filter((row) => {
    const effect = effectOf(here.get(keyIdentity(row.key)), row, { database, table, primaryKey, horizon })
    changes ||= effect === 'changed'
    return effect !== 'none'
  })
  return { rows: effective, changes }
}

function effectOf(
  stored: StoredRow | undefined,
  row: KeyedRow,
  { horizon, ...table }: TableName & { primaryKey: string; horizon: Timestamp | undefined },
): 'none' | 'refused' | 'changed' {
  let current = stored
  let isRefused = false
  for (const { timestamp, write } of writesOfRow(table, row))
    for (const { change } of rowChanges(write, timestamp, table.primaryKey)) {
      const merged = mergeRow(current, change, { horizon })
      if (merged) current = merged
      // A delete of an absent row needs no report.
      else isRefused ||= change.operation !== 'delete'
    }
  if (!isDeepStrictEqual(current, stored)) return 'changed'
  return isRefused ? 'refused' : 'none'
}
