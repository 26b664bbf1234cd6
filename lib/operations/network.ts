// cluster_network: the nodes that the mesh reaches, as their hubs report them.

import { type Static, Type } from 'typebox'
import { clusterErrorFrom } from '../errors.ts'
import type { Member, Route } from '../mesh/mesh.ts'
import { MeshError } from '../mesh/mesh.ts'
import type { Operation } from './context.ts'

const clusterNetworkSchema = Type.Object({
  timeout: Type.Optional(Type.Number({ minimum: 1 })),
  connected_nodes: Type.Optional(Type.Boolean()),
  routes: Type.Optional(Type.Boolean()),
})

export type ClusterNetworkRequest = Static<typeof clusterNetworkSchema>
export type NetworkNode = {
  name: string
  /** Whole milliseconds. */
  response_time: number
  connected_nodes?: string[]
  routes?: Route[]
}
export type ClusterNetworkResponse = { nodes: NetworkNode[] }

const DEFAULT_TIMEOUT_MS = 2000
/** The longest delay of a timer in Node.js. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1

export const clusterNetwork: Operation<ClusterNetworkRequest, ClusterNetworkResponse> = {
  method: 'network',
  schema: clusterNetworkSchema,
  requiresEnabled: true,
  async handler({ mesh }, request, { signal }) {
    const timeout = Math.min(request.timeout ?? DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS)
    let members: Member[]
    try {
      members = await mesh.members({ timeout, signal })
    } catch (error) {
      if (!(error instanceof MeshError)) throw error
      if (error.code === 'aborted') throw clusterErrorFrom(error, 'aborted', 'cluster_network')
      // No hub answered, not even the local one.
      members = []
    }
    return {
      nodes: members.map(({ node, responseTime, connectedNodes, routes }) => ({
        name: node,
        response_time: Math.round(responseTime),
        // HarperDB's reference: true omits the field.
        ...(request.connected_nodes ? {} : { connected_nodes: connectedNodes }),
        ...(request.routes ? {} : { routes: routes.map(({ host, port }) => ({ host, port })) }),
      })),
    }
  },
}
