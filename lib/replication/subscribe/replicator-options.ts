// What the replicator needs of the other parts; each subscriber gets it too.

import type { Host, RemoteTable, Transaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { StartRequest } from '../../manifest/start-request.ts'
import type { Mesh } from '../../mesh/mesh.ts'
import type { ReadBudget } from '../../mesh/read-budget.ts'
import type { Logger } from '../../observe/logger.ts'
import type { PeerHashes } from '../copy/peer-hashes.ts'
import type { RowRequests } from '../copy/row-requests.ts'
import type { TableStatuses } from '../copy/table-replacement.ts'
import type { ApplierOptions } from './applier-options.ts'
import type { BegunSubscriptions } from './cursor.ts'
import type { SourceTables } from './local-tables.ts'
import type { Quarantine } from './quarantine.ts'
import type { SubscriberContext } from './subscriber-options.ts'
import type { SubscriberEvents } from './subscription-status.ts'

export type ReplicatorOptions = {
  mesh: Mesh
  host: Host
  node: string
  /** Names that this node had before. */
  earlierNames?: readonly string[]
  clock: HybridClock
  quarantine: Quarantine
  events: SubscriberEvents
  logger: Logger
  relayEnabled: boolean
  /** See ApplierOptions. */
  onApplied?: NonNullable<ApplierOptions['onApplied']>
  /** Publishes transactions of other nodes, which the host's outbox contains now. */
  relay(transactions: Transaction[]): void
  begun: BegunSubscriptions
  sourceTables: SourceTables
  /** The rows of remote nodes. Without it nothing is copied. */
  rows?: RowRequests
  /** What both nodes have of a table. */
  statuses?: TableStatuses
  /** Compares tables with those of remote nodes. Without it a copy transfers all rows. */
  hashes?: PeerHashes
  /** Gaps and lost checkpoints are repaired by a copy of all rows. Default: true. */
  repair?: boolean
  /** ms: see `ClusterOptions`. Without it, no subscription is stale. */
  tombstoneAge?: number
  /** When a subscription was made, in ms since 1970; undefined if that is not known. */
  subscribedSince?(source: RemoteTable): number | undefined
  /** What was asked for, unless the subscription has begun it. */
  requestedStart?(source: RemoteTable): StartRequest | undefined
  /** The operator has paused this subscription. */
  isPaused?(source: RemoteTable): boolean
  /** The checkpoint of this source was read, stored or dropped. */
  onCheckpoint?(source: RemoteTable): void
  /** See SubscriberContext. */
  sessionOf?: NonNullable<SubscriberContext['sessionOf']>
  isSilent?: NonNullable<SubscriberContext['isSilent']>
  onCompared?: NonNullable<SubscriberContext['onCompared']>
  /** Starts a progress report of catching up; the returned function updates it. */
  progress(): (done: number, total: number) => void
  requestTimeout: number
  maxBatch: number
  maxBatchBytes: number
  maxApplyAttempts: number
  /** The memory for messages of all subscriptions; see ReadOptions. */
  budget?: ReadBudget
}
