// The remote tables that a manifest subscribes to, and what their subscriptions do all together.

import type { RemoteTable } from '../../host/host.ts'
import type { Manifest } from '../../manifest/manifest.ts'
import type { Metrics } from '../../observe/metrics.ts'
import type { Backoff } from '../../util/backoff.ts'
import type { SubscriptionStatus } from './subscriber.ts'

/** A subscription that ends. */
export type Ending = {
  readonly source: RemoteTable
  /** ms, by `Timers.elapsed`. */
  readonly since: number
  /** Why it has not ended yet. */
  reason: string
  error?: unknown
  readonly backoff: Backoff
  cancelRetry: () => void
}

/** A change of the manifest that is not in effect yet, because the database does not answer or rejects it. */
export type PendingChange = { source: RemoteTable; reason: string }

export const keyOf = ({ node, database, table }: RemoteTable) => JSON.stringify([node, database, table])

/** The remote tables of these nodes to which the local node subscribes. */
export const sourcesOf = (nodes: Manifest['nodes']): RemoteTable[] =>
  nodes.flatMap(({ name, subscriptions }) =>
    subscriptions
      .filter(({ subscribe }) => subscribe)
      .map(({ database, table }) => Object.freeze({ node: name, database, table })),
  )

/** Numbers by state, the lag of all in transactions, and the longest in seconds. */
export function gaugesOf(
  statuses: readonly SubscriptionStatus[],
): Pick<Metrics['apply'], 'subscriptions' | 'lag' | 'lagSeconds'> {
  const subscriptions = { pending: 0, 'catching-up': 0, live: 0, stalled: 0 }
  let lag = 0
  let lagSeconds = 0
  for (const { state, lag: behind, lagSeconds: waiting } of statuses) {
    if (state !== 'ended') subscriptions[state]++
    lag += behind
    lagSeconds = Math.max(lagSeconds, waiting)
  }
  return { subscriptions, lag, lagSeconds }
}
