// What a copier works with.

import type { Host } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { LocalTables, SourceTables } from '../subscribe/local-tables.ts'
import type { CopyEvents } from '../subscribe/subscription-status.ts'
import type { Copies } from './copies.ts'
import type { TableReplacementContext, TableReplacementOptions } from './table-replacement.ts'

export type CopierContext = TableReplacementContext & {
  host: Pick<Host, 'readRows' | 'horizon' | 'describe'>
  /** The local stream has the transactions of other nodes, but not the rows that are copied. */
  relayEnabled: boolean
  /** Names that this node had before. */
  earlierNames?: readonly string[]
  clock: HybridClock
  copies: Copies
  tables: Pick<LocalTables, 'check' | 'primaryKeyOf'>
  sourceTables: SourceTables
  events: CopyEvents
  /** Maximum number of transactions in one transaction of the database; a row is never divided. */
  maxBatch: number
}

export type CopierOptions = TableReplacementOptions & {
  /** The stream of the source is being read: the source is reachable. */
  isReading(): boolean
  /** A copy began or ended, or its reason for waiting changed. */
  onChange(): void
}
