// The registry of the operations, and their dispatch. Order of checks: caller, operation, enabled, body, names, handler.

import { inspect } from 'node:util'
import { clusterError, clusterErrorFrom } from '../errors.ts'
import type { ManifestStore } from '../manifest/store.ts'
import { isAbortReason } from '../util/abort.ts'
import { KeyedMutex } from '../util/keyed-mutex.ts'
import { compileBody, readBody } from './body.ts'
import { configureCluster } from './configure-cluster.ts'
import type { HandlerOptions, Operation, OperationContext, OperationOptions } from './context.ts'
import { clusterNetwork } from './network.ts'
import { addNode, removeNode, setNodeReplication, updateNode } from './nodes.ts'
import { pauseReplication, resumeReplication } from './pause.ts'
import { purgeStream } from './purge.ts'
import { deleteRoutes, getRoutes, setRoutes } from './routes.ts'
import { clusterStatus } from './status.ts'
import { verifyTable } from './verify.ts'

export type { ConfigureClusterRequest, ConfigureClusterResponse, ConfiguredConnection } from './configure-cluster.ts'
export type { Operation, OperationContext, OperationOptions, PeerStatus } from './context.ts'
export type { SkippedResponse, SubscriptionBody, SubscriptionResponse } from './fields.ts'
export type { ClusterNetworkRequest, ClusterNetworkResponse, NetworkNode } from './network.ts'
export type {
  AddNodeRequest,
  AddNodeResponse,
  PendingSubscription,
  RemoveNodeRequest,
  RemoveNodeResponse,
  UpdateNodeRequest,
  UpdateNodeResponse,
} from './nodes.ts'
export type { PauseReplicationRequest, PauseReplicationResponse } from './pause.ts'
export type { PlanEntry } from './plan.ts'
export type { PurgeStreamRequest, PurgeStreamResponse } from './purge.ts'
export type {
  DeleteRoutesRequest,
  DeleteRoutesResponse,
  GetRoutesRequest,
  GetRoutesResponse,
  SetRoutesRequest,
  SetRoutesResponse,
} from './routes.ts'
export type { ClusterStatusRequest, ClusterStatusResponse, ConnectionStatus } from './status.ts'
export type { VerifyTableRequest, VerifyTableResponse } from './verify.ts'

export const operations = {
  cluster_set_routes: setRoutes,
  cluster_get_routes: getRoutes,
  cluster_delete_routes: deleteRoutes,
  add_node: addNode,
  update_node: updateNode,
  set_node_replication: setNodeReplication,
  remove_node: removeNode,
  configure_cluster: configureCluster,
  cluster_status: clusterStatus,
  cluster_network: clusterNetwork,
  purge_stream: purgeStream,
  pause_replication: pauseReplication,
  resume_replication: resumeReplication,
  verify_table: verifyTable,
} as const

export type OperationName = keyof typeof operations
export type RequestOf<Name extends OperationName> =
  (typeof operations)[Name] extends Operation<infer Request, unknown> ? Request : never
export type ResponseOf<Name extends OperationName> =
  (typeof operations)[Name] extends Operation<never, infer Response> ? Response : never

/** The user who sent the request, as the host authenticated it. Only super users may run operations. Events and logs of changes have the `username`. */
export type Caller = { superUser: boolean; username?: string }

for (const { schema } of Object.values(operations)) compileBody(schema)

const mutexes = new WeakMap<ManifestStore, KeyedMutex>()

function mutexOf(store: ManifestStore): KeyedMutex {
  const known = mutexes.get(store) ?? new KeyedMutex()
  mutexes.set(store, known)
  return known
}

/**
 * Runs one operation. `body` has no `operation`. Rejects with a ClusterError; with aborted if the signal fires before the
 * operation starts.
 */
export async function call<Name extends OperationName>(
  context: OperationContext,
  name: Name,
  body: unknown,
  options: HandlerOptions = {},
): Promise<ResponseOf<Name>> {
  const operation = operations[name] as unknown as Operation<unknown, ResponseOf<Name>>
  const { manifest } = context.store
  if (operation.requiresEnabled && !manifest.enabled) throw clusterError('clustering_disabled')
  const request = readBody(operation.schema, body)
  if (operation.requiresEnabled && context.isSuperseded) throw clusterError('node_superseded', manifest.nodeName)
  operation.checkNames?.(request, { localName: manifest.nodeName, nameFault: context.nameFault })
  const { signal } = options
  let started = false
  const run = async () => {
    signal?.throwIfAborted()
    started = true
    return operation.handler(context, request, options)
  }
  const queue = operation.queue?.(request)
  try {
    if (!queue) return await run()
    const mutex = mutexOf(context.store)
    return await (queue === 'all' ? mutex.runExclusive(run, signal) : mutex.run(queue.node, run, signal))
  } catch (error) {
    // A handler that has started reports its own result, even if the signal fires meanwhile.
    const isAborted = started ? isAbortReason(error, signal) : signal?.aborted
    throw isAborted ? clusterErrorFrom(error, 'aborted', name) : error
  }
}

const isOperation = (name: string): name is OperationName => Object.hasOwn(operations, name)

/** Throws forbidden unless the caller is a super user. Call it before anything of the request is read. */
export function checkCaller(caller: Caller | undefined): void {
  if (caller?.superUser !== true) throw clusterError('forbidden')
}

function requestedOperation(request: unknown): unknown {
  const isObject = typeof request === 'object' && request !== null && Object.hasOwn(request, 'operation')
  return isObject ? (request as { operation: unknown }).operation : undefined
}

/** The operation that a request names, for error texts and traces; it may be unknown, and no string. */
export function operationText(request: unknown): string {
  const name = requestedOperation(request)
  return typeof name === 'string' ? name : inspect(name, { breakLength: Number.POSITIVE_INFINITY })
}

/** Runs a request as it arrives over HTTP: `{ operation, ... }`. Rejects as `call` does, and with forbidden, operation_missing, operation_unknown. */
export async function execute(
  context: OperationContext,
  request: unknown,
  caller: Caller | undefined,
  options: OperationOptions = {},
): Promise<ResponseOf<OperationName>> {
  checkCaller(caller)
  const name = requestedOperation(request)
  if (name === undefined || name === null || name === '') throw clusterError('operation_missing')
  if (typeof name !== 'string' || !isOperation(name)) throw clusterError('operation_unknown', operationText(request))
  const user = typeof caller?.username === 'string' ? caller.username : undefined
  return call(context, name, request, { ...options, user })
}
