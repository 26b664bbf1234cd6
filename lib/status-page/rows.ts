// What the parts of a cluster show, as one row for each remote table and one for each peer.

import { type LinkState, stateOfSubscription, worstOf } from '../cluster/peer-links.ts'
import type { ClusterView } from '../cluster/view.ts'
import type { ManifestNode } from '../manifest/manifest.ts'
import type { Replica } from '../replication/positions/replica-positions.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscription-status.ts'

/** From the remote node to here. `rate`: transactions applied per second, lately. */
export type ReceivedState = Omit<SubscriptionStatus, 'source' | 'appliedSequence' | 'lastSequence'> & { rate: number }

/** From here to the remote node, by its last report. `rate`: transactions that it applied per second, lately. */
export type SentState = Pick<Replica, 'lag' | 'lagSeconds' | 'missing' | 'copying' | 'paused' | 'reportedAt'> & {
  rate: number
}

/** A table that is replicated with a remote node, in one direction or both. */
export type TableRow = {
  node: string
  database: string
  table: string
  /** Absent while the local node does not subscribe. */
  received?: ReceivedState
  /** Absent while the local node does not publish. */
  sent?: SentState
}

/** A node of the manifest. Rates and lags are sums over its tables; `lagSeconds` is the highest. */
export type PeerRow = {
  node: string
  up: boolean
  tables: number
  received?: { tables: number; rate: number; lag: number; lagSeconds: number }
  sent?: { tables: number; rate: number; lag: number; lagSeconds: number }
  /** Its worst subscription here: an ended or unknown one counts as pending. */
  state: LinkState
}

export const rowKey = (row: { node: string; database: string; table: string }): string =>
  JSON.stringify([row.node, row.database, row.table])

/** A row as it is collected: what rates are computed from, not yet the rates. */
export type CollectedRow = {
  key: string
  node: string
  database: string
  table: string
  status?: SubscriptionStatus
  replica?: Replica | 'unknown'
}

/** One row for each table of the manifest and each subscription, in the order of the manifest. */
export function collectRows(view: Pick<ClusterView, 'manifest' | 'subscriptions' | 'replicas'>): CollectedRow[] {
  const rows = new Map<string, CollectedRow>()
  const replicas = new Map<string, Map<string, Replica>>()
  const replicaOf = (node: string, database: string, table: string) => {
    const key = JSON.stringify([database, table])
    const known = replicas.get(key) ?? new Map(view.replicas({ database, table }).map((each) => [each.node, each]))
    replicas.set(key, known)
    return known.get(node)
  }
  const addNode = ({ name: node, subscriptions }: ManifestNode) => {
    for (const { database, table, publish } of subscriptions) {
      const key = rowKey({ node, database, table })
      const row: CollectedRow = { key, node, database, table }
      if (publish) row.replica = replicaOf(node, database, table) ?? 'unknown'
      rows.set(key, row)
    }
  }
  view.manifest.nodes.forEach(addNode)
  for (const status of view.subscriptions()) {
    const { node, database, table } = status.source
    const key = rowKey(status.source)
    const row = rows.get(key) ?? { key, node, database, table }
    row.status = status
    rows.set(key, row)
  }
  return [...rows.values()]
}

/** Digits beyond are noise that every snapshot would carry. */
const rounded = (value: number) => Math.round(value * 100) / 100

export type RowRates = { received: number; sent: number }

export function toTableRow({ node, database, table, status, replica }: CollectedRow, rates: RowRates): TableRow {
  const row: TableRow = { node, database, table }
  if (status) {
    const { source: _source, appliedSequence: _applied, lastSequence: _last, ...rest } = status
    row.received = { ...rest, lagSeconds: rounded(rest.lagSeconds), rate: rounded(rates.received) }
  }
  if (replica === 'unknown') row.sent = { rate: 0 }
  else if (replica) {
    const {
      node: _node,
      epoch: _epoch,
      appliedIndex: _index,
      appliedSequence: _sequence,
      lagSeconds,
      ...rest
    } = replica
    row.sent = {
      ...rest,
      ...(lagSeconds !== undefined && { lagSeconds: rounded(lagSeconds) }),
      rate: rounded(rates.sent),
    }
  }
  return row
}

export function peerRows(peers: readonly { node: string; up: boolean }[], tables: readonly TableRow[]): PeerRow[] {
  const byNode = groupByNode(tables)
  return peers.map(({ node, up }) => peerRow(node, up, byNode.get(node) ?? []))
}

/** Node 20 has no `Map.groupBy`. */
function groupByNode(tables: readonly TableRow[]): Map<string, TableRow[]> {
  const groups = new Map<string, TableRow[]>()
  for (const row of tables) {
    const group = groups.get(row.node)
    if (group) group.push(row)
    else groups.set(row.node, [row])
  }
  return groups
}

function peerRow(node: string, up: boolean, tables: readonly TableRow[]): PeerRow {
  const received = tables.flatMap((row) => (row.received ? [row.received] : []))
  const sent = tables.flatMap((row) => (row.sent ? [row.sent] : []))
  const states = received.map(({ state }) => stateOfSubscription(state))
  return {
    node,
    up,
    tables: tables.length,
    ...(received.length > 0 && { received: sumOf(received) }),
    ...(sent.length > 0 && { sent: sumOf(sent) }),
    state: worstOf<LinkState>(states, up ? 'live' : 'down'),
  }
}

const sumOf = (states: readonly { rate: number; lag?: number; lagSeconds?: number }[]) => ({
  tables: states.length,
  rate: rounded(states.reduce((sum, { rate }) => sum + rate, 0)),
  lag: states.reduce((sum, { lag = 0 }) => sum + lag, 0),
  lagSeconds: states.reduce((highest, { lagSeconds = 0 }) => Math.max(highest, lagSeconds), 0),
})
