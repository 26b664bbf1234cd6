// What a subscription shows and reports.

import type { SubscriptionState } from '../../events/events.ts'
import type { CopyReason, RemoteTable } from '../../host/host.ts'
import type { RetriedWork } from './apply-retry.ts'
import type { Gap } from './cursor.ts'
import type { QuarantinedMessage } from './quarantine.ts'

export type CopyEvents = {
  /** From the first row on. */
  copyBegan(source: RemoteTable, reason: CopyReason): void
  /** `ms`: since it began, or was resumed by this process. */
  copied(source: RemoteTable, copy: { reason: CopyReason; rows: number; ms: number }): void
  /** Starts a report of the rows copied; `total` only at the end. */
  copyProgress(source: RemoteTable): (done: number, total?: number) => void
}

export type SubscriberEvents = CopyEvents & {
  state(source: RemoteTable, state: SubscriptionState, previous: SubscriptionState, error?: string): void
  applied(source: RemoteTable, transactions: number, sequence: number): void
  gap(source: RemoteTable, gap: Gap): void
  /** Writes to absent rows that are older than the table's horizon were ignored. */
  refusedOld(source: RemoteTable, writes: number): void
  /** The subscription is stale: it was caught up last at that time, in ms since 1970. */
  stale(source: RemoteTable, since: number): void
  stalled(source: RemoteTable, at: RetriedWork, error: string, attempts: number): void
  quarantined(message: QuarantinedMessage): void
}

/** A copy of the source's rows that is under way. */
export type CopyStatus = {
  reason: CopyReason
  /** Rows copied so far; per second, since this process began or resumed the copy. */
  rows: number
  rate?: number
}

/** What `cluster.subscriptions()` shows of one remote table. */
export type SubscriptionStatus = {
  source: RemoteTable
  state: SubscriptionState
  /** The last message that is applied as a whole, and the last known one of the stream. */
  appliedSequence: number
  lastSequence: number
  /** Number of transactions that are not applied. While the last index of the stream is not known: of messages. */
  lag: number
  /** Seconds for which the oldest of them has been waiting; 0 when all are applied. */
  lagSeconds: number
  /** Number of gaps, and of transactions in them as far as it is known. */
  gaps: number
  lost: number
  /** Number of them since the last complete copy of the source's rows; absent: none. */
  unrepairedGaps?: number
  /** Number of quarantined transactions, and of messages that are unreadable as a whole. */
  quarantined: number
  /** Rows copied since the subscription was started by this process. */
  copied: number
  /** While rows are copied. */
  copy?: CopyStatus
  /**
   * ms since 1970: it was not caught up since then, for longer than `tombstoneAge`. Deletes that it missed may be lost; stays until the
   * table is replaced by a copy, unless the stream still has everything.
   */
  staleSince?: number
  /** Why the subscription makes no progress now. */
  error?: string
  /** The transaction that the database refuses now. `quarantine.add` sets it aside. */
  refused?: { sequence: number; index: number; id: string }
  /** The source has not agreed to this subscription: it was not reached yet, or cannot accept it. */
  disagreement?: { readonly state: 'pending' | 'refused'; readonly reason: string }
}
