// The state of every connection of the manifest, all asked at once.

import { type Static, Type } from 'typebox'
import type { Node } from '../manifest/manifest.ts'
import type { Operation, PeerStatus } from './context.ts'
import { type SubscriptionResponse, toResponse } from './fields.ts'

const clusterStatusSchema = Type.Object({})

export type ClusterStatusRequest = Static<typeof clusterStatusSchema>
export type ConnectionStatus = {
  node_name: string
  status: PeerStatus['status']
  /** `{}` if unknown. */
  ports: { clustering?: number; operations_api?: number }
  /** Whole milliseconds. */
  latency_ms?: number
  /** Of the other process, `30d 1h 18m 8s`. */
  uptime?: string
  subscriptions: SubscriptionResponse[]
  system_info?: { hdb_version?: string; node_version?: string; platform?: string }
}
export type ClusterStatusResponse = { node_name: string; is_enabled: boolean; connections: ConnectionStatus[] }

function connectionStatus(node: Node, peer: PeerStatus): ConnectionStatus {
  const { status, ports, latency, uptime, systemInfo } = peer
  return {
    node_name: node.name,
    status,
    ports: { ...ports },
    ...(latency === undefined ? {} : { latency_ms: Math.round(latency) }),
    ...(uptime === undefined ? {} : { uptime }),
    subscriptions: node.subscriptions.map(toResponse),
    ...(systemInfo === undefined ? {} : { system_info: { ...systemInfo } }),
  }
}

export const clusterStatus: Operation<ClusterStatusRequest, ClusterStatusResponse> = {
  method: 'status',
  schema: clusterStatusSchema,
  enabledOnly: false,
  async handler({ store, peers }, _request, options) {
    const { nodeName, enabled, nodes } = store.manifest
    if (!enabled) return { node_name: nodeName, is_enabled: false, connections: [] }
    const connections = await Promise.all(
      nodes.map(async (node) => connectionStatus(node, await peers.status(node.name, options))),
    )
    return { node_name: nodeName, is_enabled: true, connections }
  },
}
