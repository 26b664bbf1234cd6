// Runs operations and other calls of the manager: checks the state, traces, waits for the effect, and converts errors.

import { ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { ManifestStore } from '../manifest/store.ts'
import { MeshError } from '../mesh/mesh.ts'
import { traced } from '../observe/diagnostics.ts'
import {
  type Caller,
  call,
  checkCaller,
  execute,
  type OperationContext,
  type OperationName,
  type OperationOptions,
  operationText,
  type ResponseOf,
} from '../operations/index.ts'
import { pendingOf } from '../operations/pending.ts'
import { delay } from '../util/timers.ts'
import type { CheckedOptions } from './options.ts'
import type { Service } from './service.ts'
import type { ClusterState } from './view.ts'

export type OperationRunnerOptions = {
  options: CheckedOptions
  store: ManifestStore
  /** Undefined while clustering is disabled. */
  service(): Service | undefined
  state(): ClusterState
}

export class OperationRunner {
  readonly #options: OperationRunnerOptions

  constructor(options: OperationRunnerOptions) {
    this.#options = options
  }

  /** Runs an operation for code of this process. Rejects with a ClusterError. */
  call<Name extends OperationName>(name: Name, body: unknown, { signal }: OperationOptions): Promise<ResponseOf<Name>> {
    return this.#run(
      () => this.#trace(name, () => call(this.#context(), name, body, { signal })),
      (answer) => this.#withPending(name, body, answer),
    )
  }

  /** Runs a request for a caller. The caller is checked before anything of the request is read. Rejects with a ClusterError. */
  async execute(request: unknown, caller: Caller | undefined, options: OperationOptions): Promise<object> {
    checkCaller(caller)
    const name = operationText(request)
    return this.#run(
      () => this.#trace(name, () => execute(this.#context(), request, caller, options)),
      (answer) => this.#withPending(name as OperationName, request, answer),
    )
  }

  /** Rejects clustering_disabled, node_superseded, closed, and as `work` does. */
  withService<T>(work: (service: Service) => Promise<T>): Promise<T> {
    return this.#run(async () => work(this.#requireService()))
  }

  /** As `withService`, for work that changes nothing that is to be in effect when it resolves. */
  useService<T>(work: (service: Service) => Promise<T>): Promise<T> {
    return this.#convertErrors(() => work(this.#requireService()))
  }

  #requireService(): Service {
    const { service: find, store } = this.#options
    const service = find()
    if (!service) throw clusterError('clustering_disabled')
    if (service.superseded) throw clusterError('node_superseded', store.manifest.nodeName)
    return service
  }

  /** Resolves when the changes of `work` are in effect, or after `requestTimeout`: a server that is down may take longer. */
  #run<T>(work: () => Promise<T>, complete = (answer: T): T => answer): Promise<T> {
    const { options, service } = this.#options
    return this.#convertErrors(async () => {
      const answer = await work()
      const expiry = new AbortController()
      const expired = delay(options.requestTimeout, undefined, { signal: expiry.signal }).catch(() => {})
      await Promise.race([service()?.reconciled(), expired])
      expiry.abort()
      return complete(answer)
    })
  }

  /** Rejects with a ClusterError, `closed` if the manager is not open. */
  async #convertErrors<T>(work: () => Promise<T>): Promise<T> {
    const { options, state } = this.#options
    if (state() !== 'open') throw clusterError('closed')
    try {
      return await work()
    } catch (error) {
      if (error instanceof ClusterError) throw error
      if (error instanceof MeshError) throw clusterErrorFrom(error, 'mesh_unavailable', error.message)
      options.logger.error({ reason: reasonOf(error) }, 'operation failed')
      throw clusterErrorFrom(error, 'internal', reasonOf(error))
    }
  }

  /** Adds what is not in effect yet. */
  #withPending<T>(name: OperationName, request: unknown, answer: T): T {
    const pending = pendingOf(name, request, this.#options.service()?.pending() ?? [])
    return pending.length > 0 ? { ...answer, pending } : answer
  }

  #trace<T>(operation: string, work: () => Promise<T>): Promise<T> {
    return traced('operation', () => ({ node: this.#options.store.manifest.nodeName, operation }), work)
  }

  #context(): OperationContext {
    const { options, store, service } = this.#options
    const { host, logger } = options
    // Operations check that clustering is enabled before they use a part of the service.
    const parts = service()?.operationParts() ?? ({} as ReturnType<Service['operationParts']>)
    return { store, host, logger, isSuperseded: service()?.superseded !== undefined, ...parts }
  }
}
