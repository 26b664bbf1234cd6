// Assesses the health of a node from what its parts know: pure, without a state of its own.

import type { RemoteTable } from '../host/host.ts'
import type { ClusterMeshState, MeshProblem } from '../mesh/mesh.ts'
import { type Health, type HealthCode, type HealthCondition, healthOf } from '../observe/health.ts'
import type { Refusal } from '../peers/agreements.ts'
import type { PendingTable } from '../replication/subscribe/subscribers.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscription-status.ts'
import { STALE_HINT } from './subscription-problem.ts'

export type HealthFacts = {
  /** Why the node takes no part, because another process uses its name. */
  superseded: string | undefined
  /** `isSettled`: other nodes had the time to be heard. */
  mesh: { state: ClusterMeshState; reason: string | undefined; isSettled: boolean; problems: readonly MeshProblem[] }
  peers: readonly { node: string; up: boolean }[]
  /** See PendingTables.update. */
  pending: readonly PendingTable[]
  /** At least those that `Subscriber.isTroubled` names. */
  subscriptions: readonly SubscriptionStatus[]
  refusals: readonly Refusal[]
  /** Why peers quarantine what this node commits. */
  clockAhead: string | undefined
}

export function assessHealth(facts: HealthFacts): Health {
  if (facts.superseded !== undefined) return healthOf([{ code: 'superseded', message: facts.superseded }])
  return healthOf([
    ...meshConditions(facts.mesh),
    ...peerConditions(facts),
    ...facts.refusals.map(({ reason, ...source }) => on(source, 'subscription_refused', reason)),
    ...facts.pending.map(({ source, reason }) => on(source, 'subscription_pending', reason)),
    ...facts.subscriptions.flatMap(subscriptionConditions),
    ...(facts.clockAhead === undefined ? [] : [{ code: 'clock_ahead', message: facts.clockAhead } as const]),
  ])
}

function meshConditions({ state, reason, isSettled, problems }: HealthFacts['mesh']): HealthCondition[] {
  // A link takes a moment after the start.
  const known = problems.filter(({ code }) => isSettled || code !== 'no_route_linked')
  if (state === 'isolated') return [{ code: 'isolated', message: `no other node is reached: ${reason}` }, ...known]
  if (state === 'connected') return known
  const why = reason === undefined ? '' : `: ${reason}`
  return [{ code: 'mesh_disconnected', message: `the local streams are not writable${why}` }, ...known]
}

function peerConditions({ mesh, peers }: HealthFacts): HealthCondition[] {
  if (!mesh.isSettled) return []
  const down = peers.filter(({ up }) => !up)
  return down.map(({ node }) => ({ code: 'peer_down', node, message: `no heartbeat of ${node}` }))
}

function subscriptionConditions(status: SubscriptionStatus): HealthCondition[] {
  const { source, state, error = 'it makes no progress', staleSince, unrepairedGaps = 0, quarantined } = status
  const conditions: HealthCondition[] = []
  if (state === 'stalled') conditions.push(on(source, 'subscription_stalled', error))
  if (unrepairedGaps > 0) conditions.push(on(source, 'gap_not_repaired', gapText(unrepairedGaps, status)))
  if (staleSince !== undefined) {
    const since = new Date(staleSince).toISOString()
    conditions.push(on(source, 'subscription_stale', `not caught up since ${since}; ${STALE_HINT}`))
  }
  if (quarantined > 0)
    conditions.push(on(source, 'quarantined', `${quarantined} messages are in quarantine: replay or discard them`))
  return conditions
}

function gapText(count: number, { copy }: SubscriptionStatus): string {
  const lost = `transactions were lost in ${count} ${count === 1 ? 'gap' : 'gaps'}`
  return copy ? `${lost}; rows are being copied` : `${lost}, and no copy of the rows has ended since then`
}

const on = ({ node, database, table }: RemoteTable, code: HealthCode, message: string): HealthCondition => ({
  code,
  node,
  database,
  table,
  message,
})
