// Why a subscription is not in step with its source, as `cluster_status` shows it: something is wrong, or rows are copied.

import type { Disagreement } from '../peers/agreements.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscription-status.ts'

export const STALE_HINT =
  "deletes may be missing here: replace the table by a copy, with 'copy: true' and 'replace: true' in update_node"

/** `stale` has the lowest precedence: it stays until the table is replaced. */
export function problemOf(
  status: SubscriptionStatus | undefined,
  disagreement: Disagreement | undefined,
): { state: string; reason: string } | undefined {
  if (disagreement) return { ...disagreement }
  const { state = 'live', error, staleSince, copy } = status ?? {}
  if (state === 'paused') return { state, reason: 'paused by an operator of this node' }
  if (error !== undefined && (state === 'stalled' || state === 'pending' || state === 'copying'))
    return { state, reason: error }
  if (state === 'copying' && copy) return { state, reason: `${copy.rows} rows copied so far (${copy.reason})` }
  if (staleSince === undefined) return undefined
  return { state: 'stale', reason: `not caught up since ${new Date(staleSince).toISOString()}; ${STALE_HINT}` }
}
