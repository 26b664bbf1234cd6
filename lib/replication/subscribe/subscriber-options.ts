// What a subscriber needs of the other parts.

import type { Host, RemoteTable } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { StartRequest } from '../../manifest/start-request.ts'
import type { ReadBudget } from '../../mesh/read-budget.ts'
import type { Logger } from '../../observe/logger.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import type { Timers } from '../../util/timers.ts'
import type { Copies } from '../copy/copies.ts'
import type { TableStatuses } from '../copy/table-replacement.ts'
import type { Applier } from './applier.ts'
import type { BegunSubscriptions } from './cursor.ts'
import type { LocalTables, SourceTables } from './local-tables.ts'
import type { RemoteStreams } from './node-gates.ts'
import type { Quarantine } from './quarantine.ts'
import type { SubscriberEvents } from './subscription-status.ts'

/** One object for all subscribers of a node: a copy of it in each of their parts would be most of the memory of an idle subscription. */
export type SubscriberContext = {
  /** Name of the local node. */
  node: string
  host: Pick<Host, 'readRows' | 'horizon' | 'describe'>
  relayEnabled: boolean
  mesh: RemoteStreams
  timers: Timers
  clock: HybridClock
  quarantine: Quarantine
  counters: ReplicationCounters
  events: SubscriberEvents
  logger: Logger
  /** ms for each request to the source. */
  requestTimeout: number
  /** Maximum number of transactions, and of bytes of their messages, in one transaction of the database. */
  maxBatch: number
  maxBatchBytes: number
  /** Attempts after which a refused transaction is quarantined automatically; 0: never. */
  maxApplyAttempts: number
  budget?: ReadBudget
  begun: BegunSubscriptions
  tables: LocalTables
  sourceTables: SourceTables
  copies: Copies
  statuses?: TableStatuses
  /** ms: see `ClusterOptions`. Without it, no subscription is stale. */
  tombstoneAge?: number
  /** When the subscription was made, in ms since 1970; undefined if that is not known. */
  subscribedSince?(source: RemoteTable): number | undefined
  /** What was asked for, unless the subscription has begun it. */
  requestedStart?(source: RemoteTable): StartRequest | undefined
  /** The session of the node's servers, as its heartbeats say. */
  sessionOf?(node: string): string | undefined
  /** The node reports no positions of its streams, as far as that is known: HarperDB does not. */
  isSilent?(node: string): boolean
  /** The position was compared with the stream, as far as there is something to compare, in this session of the source's servers if it is known. */
  onCompared?(source: RemoteTable, session: string | undefined): void
  /** Whether the local node subscribes to this table of a remote node. */
  isSubscribed(table: RemoteTable): boolean
  /** The local table was dropped: the checkpoints of all its sources are void. */
  onTableDropped(table: RemoteTable): void
}

export type SubscriberOptions = {
  source: RemoteTable
  applier: Applier
}
