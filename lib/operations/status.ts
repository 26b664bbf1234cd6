// cluster_status: the state of every connection in the manifest. All nodes are requested in parallel.

import { type Static, Type } from 'typebox'
import type { TableName } from '../host/host.ts'
import type { ManifestNode } from '../manifest/manifest.ts'
import type { Operation, OperationContext, PeerStatus, ReplicaStatus } from './context.ts'
import { type SubscriptionResponse, toResponse } from './fields.ts'

const clusterStatusSchema = Type.Object({})

export type ClusterStatusRequest = Static<typeof clusterStatusSchema>
export type TableReplica = {
  schema: string
  table: string
  /** The running number of the last transaction applied there, and the number of transactions behind it. Absent before the first report. */
  applied?: number
  lag?: number
  /** Seconds for which the oldest of them has been waiting. */
  lag_seconds?: number
  /** Transactions up to `applied` that the node has not: in quarantine, discarded, or lost. Absent if it has all. */
  missing?: number
  /** Rows are being copied. */
  copying?: true
  /** The operator of the node has paused the subscription. */
  paused?: true
  /** When the last report arrived, ISO 8601. */
  reported_at?: string
}
export type ConnectionStatus = {
  node_name: string
  status: PeerStatus['status']
  /** `{}` if the node did not answer. */
  ports: { clustering?: number; operations_api?: number }
  /** Round trip in whole milliseconds. */
  latency_ms?: number
  /** Of the peer's process, for example `30d 1h 18m 8s`. */
  uptime?: string
  /**
   * `gaps`: gaps so far. `lost`: transactions lost in them. Both only for tables that had a gap. `state` and `reason` only while
   * something is wrong: `pending` or `refused` by the remote node, or `pending` or `stalled` here.
   */
  subscriptions: (SubscriptionResponse & { gaps?: number; lost?: number; state?: string; reason?: string })[]
  /** One entry for each table that is published to the node, if there are any: how far the node is, by its last report. */
  replicas?: TableReplica[]
  system_info?: { hdb_version?: string; node_version?: string; platform?: string }
}
export type ClusterStatusResponse = { node_name: string; is_enabled: boolean; connections: ConnectionStatus[] }

function tableReplica({ database, table }: TableName, replica: ReplicaStatus): TableReplica {
  const { appliedIndex, lag, lagSeconds, missing, copying, paused, reportedAt } = replica
  return {
    schema: database,
    table,
    ...(appliedIndex !== undefined && { applied: appliedIndex }),
    ...(lag !== undefined && { lag }),
    ...(lagSeconds !== undefined && { lag_seconds: Math.round(lagSeconds * 1_000) / 1_000 }),
    ...(missing && { missing }),
    ...(copying && { copying }),
    ...(paused && { paused }),
    ...(reportedAt !== undefined && { reported_at: new Date(reportedAt).toISOString() }),
  }
}

function connectionStatus(
  node: ManifestNode,
  peer: PeerStatus,
  streams: OperationContext['streams'],
): ConnectionStatus {
  const { status, ports, latency, uptime, systemInfo } = peer
  const replicas = node.subscriptions.flatMap(({ database, table }) => {
    const replica = streams.replica({ node: node.name, database, table })
    return replica ? [tableReplica({ database, table }, replica)] : []
  })
  return {
    node_name: node.name,
    status,
    ports: { ...ports },
    ...(latency === undefined ? {} : { latency_ms: Math.round(latency) }),
    ...(uptime === undefined ? {} : { uptime }),
    subscriptions: node.subscriptions.map((each) => {
      const source = { node: node.name, database: each.database, table: each.table }
      const losses = streams.losses(source)
      return { ...toResponse(each), ...(losses.gaps > 0 ? losses : {}), ...streams.problem(source) }
    }),
    ...(replicas.length > 0 && { replicas }),
    ...(systemInfo === undefined ? {} : { system_info: { ...systemInfo } }),
  }
}

export const clusterStatus: Operation<ClusterStatusRequest, ClusterStatusResponse> = {
  method: 'status',
  schema: clusterStatusSchema,
  requiresEnabled: false,
  async handler({ store, peers, streams }, _request, options) {
    const { nodeName, enabled, nodes } = store.manifest
    if (!enabled) return { node_name: nodeName, is_enabled: false, connections: [] }
    const connections = await Promise.all(
      nodes.map(async (node) => connectionStatus(node, await peers.status(node.name, options), streams)),
    )
    return { node_name: nodeName, is_enabled: true, connections }
  },
}
