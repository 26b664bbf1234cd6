// The operations as methods of the manager, and as JSON for callers that the host has authenticated.

import { SafeEmitter } from '../events/events.ts'
import type { Caller, OperationName, OperationOptions, ResponseOf } from '../operations/index.ts'
import type { OperationRunner } from './operation-runner.ts'
import type { OperationMethod, OperationRequest, OperationResponse, UntypedRequest } from './operation-types.ts'

export class OperationMethods extends SafeEmitter {
  readonly #runner: () => OperationRunner

  constructor(runner: () => OperationRunner) {
    super()
    this.#runner = runner
  }

  /** `cluster_set_routes`: adds the routes that are in neither list, of the hub or of the leaf. */
  setRoutes = this.#operation('cluster_set_routes')
  /** `cluster_get_routes` */
  getRoutes = this.#operation('cluster_get_routes')
  /** `cluster_delete_routes`: deletes the routes from both lists. */
  deleteRoutes = this.#operation('cluster_delete_routes')
  /** `add_node`: subscriptions with a node that is not in the manifest yet. */
  addNode = this.#operation('add_node')
  /** `update_node`: changes the named tables only; adds the node if the manifest does not have it. */
  updateNode = this.#operation('update_node')
  /** `set_node_replication`: the same as `update_node`. */
  setNodeReplication = this.#operation('set_node_replication')
  /** `remove_node` */
  removeNode = this.#operation('remove_node')
  /** `configure_cluster`: replaces all connections of the manifest by these. */
  configureCluster = this.#operation('configure_cluster')
  /** `cluster_status`: requests the status of every node of the manifest at the same time. */
  status = this.#operation('cluster_status')
  /** `cluster_network`: every node whose hub answers. */
  network = this.#operation('cluster_network')
  /** `purge_stream`: removes whole messages from the stream of one local table. `keep`: at least so many transactions stay. */
  purgeStream = this.#operation('purge_stream')
  /** `pause_replication`: `pause` with a JSON body and answer. */
  pauseReplication = this.#operation('pause_replication')
  /** `resume_replication` */
  resumeReplication = this.#operation('resume_replication')
  /** `verify_table`: `verify` with a JSON body and answer. */
  verifyTable = this.#operation('verify_table')

  #operation<Name extends OperationName>(name: Name): OperationMethod<Name> {
    const method = (body: unknown = {}, options: OperationOptions = {}): Promise<ResponseOf<Name>> =>
      this.#runner().call(name, body, options)
    return method as OperationMethod<Name>
  }

  /** Runs an operation as JSON, `{ operation, ... }`, for a caller that the host has authenticated. Rejects with a ClusterError. */
  execute<Name extends OperationName>(
    request: OperationRequest<Name>,
    caller?: Caller,
    options?: OperationOptions,
  ): Promise<OperationResponse<Name>>
  execute<const Body>(
    request: Body & UntypedRequest<Body>,
    caller?: Caller,
    options?: OperationOptions,
  ): Promise<OperationResponse>
  execute(request: unknown, caller?: Caller, options: OperationOptions = {}): Promise<object> {
    return this.#runner().execute(request, caller, options)
  }
}
