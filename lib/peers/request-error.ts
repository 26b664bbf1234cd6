// Errors of requests to remote nodes, as the callers of operations get them.

import { type ClusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import { MeshError } from '../mesh/mesh.ts'

/** Converts an error of a request to `node`. */
export function toClusterError(error: unknown, operation: string, node: string): ClusterError {
  const code = error instanceof MeshError ? error.code : undefined
  if (code === 'no_responders') return clusterErrorFrom(error, 'node_not_listening', operation, node)
  if (code === 'timeout') return clusterErrorFrom(error, 'node_timeout', operation, node)
  if (code === 'aborted') return clusterErrorFrom(error, 'aborted', operation)
  return clusterErrorFrom(error, 'mesh_unavailable', reasonOf(error))
}
