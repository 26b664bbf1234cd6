// Copied rows as transactions: each write of a row at its own timestamp.

import { hash } from 'node:crypto'
import { writesOfRow } from '../../host/copied-row.ts'
import type { KeyedRow, PrimaryKey, RemoteTable, RemoteTransaction } from '../../host/host.ts'
import { type HybridClock, wallTimeOf } from '../../host/hybrid-clock.ts'
import { keyText } from './key-text.ts'

export type RowTransactionsOptions = {
  source: RemoteTable
  /** Of the local table. */
  primaryKey: string
  clock: Pick<HybridClock, 'merge' | 'maxDrift'>
  /** The position of the subscription in the stream. */
  sequence: number
}

/** `retryAt`: ms since 1970 when the local clock accepts a timestamp of the row, which is too far in the future now. */
export type RowTransactions = { transactions: RemoteTransaction[]; retryAt?: number }

/** The clock observes each timestamp. A row with one that it does not accept is left out. Throws an Error for an invalid timestamp. */
export function transactionsOfRow(
  { source, primaryKey, clock, sequence }: RowTransactionsOptions,
  row: KeyedRow,
): RowTransactions {
  const { node, database, table } = source
  const writes = writesOfRow({ database, table, primaryKey }, row)
  const times = writes.map(({ timestamp }) => wallTimeOf(timestamp))
  if (times.some(Number.isNaN)) throw new Error(`row ${keyText(row.key).slice(1)} has an invalid timestamp`)
  const rejected = times.filter((_, index) => !clock.merge(writes[index]!.timestamp))
  if (rejected.length > 0) return { transactions: [], retryAt: Math.max(...rejected) - clock.maxDrift }
  const name = rowName(row.key)
  const transactions = writes.map(({ timestamp, write }) => ({
    id: `copy:${table}:${name}:${timestamp}`,
    timestamp,
    writes: [write],
    origin: { node, relayedBy: [] },
    sequence,
    index: 0,
  }))
  return { transactions }
}

/** In ids: the text of the key, or the beginning of its hash if an id cannot contain it. A hash of each key takes a tenth of a copy. */
function rowName(key: PrimaryKey): string {
  const text = keyText(key)
  return /^[\x21-\x7e]{1,64}$/.test(text) ? text : `h${hash('sha256', text, 'hex').slice(0, 16)}`
}
