// What a copied row changes here. Rows that change nothing are neither applied nor announced to the subscribers of the table.

import { isDeepStrictEqual } from 'node:util'
import { writesOfRow } from '../../host/copied-row.ts'
import type { Host, KeyedRow, StoredRow, TableName, Timestamp } from '../../host/host.ts'
import { nodeOfTimestamp } from '../../host/hybrid-clock.ts'
import { hasTimestamp, mergeRow, rowChanges } from '../../host/merge-row.ts'
import { keyIdentity } from './key-identity.ts'

/**
 * Whether a write that a copy brings is announced to the subscribers of the local table, because the local stream is where they expect it.
 * A relaying node announces all writes. Every node announces its own, also those that it wrote under an earlier name: only a database that was restored lacks them, and no stream may
 * have them any more.
 */
export type IsAnnounced = (timestamp: Timestamp) => boolean

export const announcedWrites =
  (node: string, relayEnabled: boolean, earlierNames: readonly string[] = []): IsAnnounced =>
  (timestamp) => {
    const issuer = nodeOfTimestamp(timestamp)
    return relayEnabled || issuer === node || earlierNames.includes(issuer)
  }

/** Rows that are different after they are applied, or are refused because of the horizon. `announce`: such writes are among them. */
export type EffectiveRows = { rows: readonly KeyedRow[]; announce: boolean }

export type EffectOptions = {
  host: Pick<Host, 'readRows' | 'horizon'>
  table: TableName
  /** Of the local table. */
  primaryKey: string
  /** Rows at or below the horizon are applied. */
  acceptOld: boolean
  isAnnounced: IsAnnounced
}

/** Those of the rows that have an effect here. All of them if the host cannot read its rows. Rejects as the host does. */
export async function effectiveRows(rows: readonly KeyedRow[], options: EffectOptions): Promise<EffectiveRows> {
  const { host, primaryKey, acceptOld, isAnnounced } = options
  const { database, table } = options.table
  if (!host.readRows || rows.length === 0) return { rows, announce: rows.some((row) => hasWrite(row, isAnnounced)) }
  const stored = await host.readRows({ database, table }, { keys: rows.map(({ key }) => key) })
  const here = new Map(stored.map(({ key, row }) => [keyIdentity(key), row]))
  const horizon = acceptOld ? undefined : await host.horizon?.({ database, table })
  let announce = false
  const effective = rows.filter((row) => {
    const effect = effectOf(here.get(keyIdentity(row.key)), row, { database, table, primaryKey, horizon, isAnnounced })
    announce ||= effect === 'announced'
    return effect !== 'none'
  })
  return { rows: effective, announce }
}

/** The row consists of writes of which at least one is announced. */
export const hasWrite = ({ row }: KeyedRow, isAnnounced: IsAnnounced): boolean =>
  (row.timestamp !== '' && isAnnounced(row.timestamp)) || Object.values(row.updated ?? {}).some(isAnnounced)

function effectOf(
  stored: StoredRow | undefined,
  row: KeyedRow,
  {
    horizon,
    isAnnounced,
    ...table
  }: TableName & Pick<EffectOptions, 'primaryKey' | 'isAnnounced'> & { horizon: Timestamp | undefined },
): 'none' | 'refused' | 'changed' | 'announced' {
  let current = stored
  let isRefused = false
  let announce = false
  for (const { timestamp, write } of writesOfRow(table, row))
    for (const { change } of rowChanges(write, timestamp, table.primaryKey)) {
      const merged = mergeRow(current, change, { horizon })
      // A row with the timestamp has the write. Its value may still differ, because hosts store and return values in their own forms.
      const isNew = !current || !hasTimestamp(current, timestamp)
      announce ||= merged !== undefined && isNew && isAnnounced(timestamp) && !isDeepStrictEqual(merged, current)
      if (merged) current = merged
      // A delete of an absent row needs no report.
      else isRefused ||= change.operation !== 'delete'
    }
  if (announce) return 'announced'
  if (!isDeepStrictEqual(current, stored)) return 'changed'
  return isRefused ? 'refused' : 'none'
}
