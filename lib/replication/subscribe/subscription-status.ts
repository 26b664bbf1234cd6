// What a subscription shows and reports.

import type { GapReason, SubscriptionState } from '../../events/events.ts'
import type { RemoteTable } from '../../host/host.ts'
import type { RetriedWork } from './apply-retry.ts'

export type SubscriberEvents = {
  state(source: RemoteTable, state: SubscriptionState, previous: SubscriptionState, error?: string): void
  applied(source: RemoteTable, transactions: number, sequence: number): void
  gap(source: RemoteTable, from: number, to: number, reason: GapReason): void
  stalled(source: RemoteTable, at: RetriedWork, error: string, attempts: number): void
  quarantined(source: RemoteTable, sequence: number, error: string): void
}

/** What `cluster.subscriptions()` shows of one remote table. */
export type SubscriptionStatus = {
  source: RemoteTable
  state: SubscriptionState
  /** The last applied sequence, and the last known sequence of the stream. */
  appliedSequence: number
  lastSequence: number
  /** Number of transactions between the two. */
  lag: number
  /** Seconds for which the oldest of them has been waiting; 0 when all are applied. */
  lagSeconds: number
  /** Number of gaps, and of transactions in them. */
  gaps: number
  lost: number
  /** Number of messages in quarantine. */
  quarantined: number
  /** Why the subscription makes no progress now. */
  error?: string
  /** The transaction that the database refuses now. `quarantine.add` sets it aside. */
  refused?: { sequence: number; id: string }
  /** The source has not agreed to this subscription: it was not reached yet, or cannot accept it. */
  disagreement?: { readonly state: 'pending' | 'refused'; readonly reason: string }
}
