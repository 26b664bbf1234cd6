// The health of the local node while clustering is enabled: asks the parts that know, reports changes, and owns the state of the mesh
// as the manager shows it.

import type { RemoteTable } from '../host/host.ts'
import type { ClusterMeshState, Mesh, MeshState } from '../mesh/mesh.ts'
import { compareHealth, type Health, healthOf } from '../observe/health.ts'
import type { Logger } from '../observe/logger.ts'
import { sourceKey } from '../replication/subscribe/sources.ts'
import type { PendingTable } from '../replication/subscribe/subscribers.ts'
import { assessHealth, type HealthFacts } from './health.ts'
import { PendingTables } from './pending-tables.ts'
import { Reachability } from './reachability.ts'
import { type Emit, logMeshState } from './reports.ts'

export type NodeHealthOptions = {
  mesh: Pick<Mesh, 'timers' | 'problems'>
  /** The nodes of the manifest that send heartbeats; `up`: they arrive. */
  peers(): readonly { node: string; up: boolean }[]
  /** What the other parts know now. */
  facts(): Pick<HealthFacts, 'superseded' | 'subscriptions' | 'refusals' | 'clockAhead'> & {
    /** The remote tables that cannot be read now. */
    pending: readonly PendingTable[]
  }
  emit: Emit
  logger: Logger
}

/** Conditions that are shorter are in no event. */
const CHECK_INTERVAL_MS = 1_000

export class NodeHealth {
  readonly #options: NodeHealthOptions
  readonly #reachability: Reachability
  readonly #pending: PendingTables
  #reported: Health = healthOf([])
  #stopChecking: (() => void) | undefined

  constructor(options: NodeHealthOptions) {
    this.#options = options
    const { mesh, peers, emit, logger } = options
    this.#pending = new PendingTables(mesh.timers)
    this.#reachability = new Reachability({
      timers: mesh.timers,
      peers,
      changed: (state, reason) => {
        logMeshState(logger, state, reason)
        emit('mesh:state', { state, ...(reason === undefined ? {} : { reason }) })
      },
    })
  }

  /** Reports changes from now on. */
  start(): void {
    this.#stopChecking = this.#options.mesh.timers.every(CHECK_INTERVAL_MS, () => this.#check())
  }

  close(): void {
    this.#stopChecking?.()
    this.#reachability.close()
  }

  get meshState(): ClusterMeshState {
    return this.#reachability.state
  }

  get meshReason(): string | undefined {
    return this.#reachability.reason
  }

  /** The mesh reports its state. */
  onMesh(state: MeshState, reason?: string): void {
    this.#reachability.onMesh(state, reason)
  }

  /** A node of the manifest was added, removed, heard or missed. */
  onPeers(): void {
    this.#reachability.onPeers()
  }

  /** Computed when it is called. */
  status(): Health {
    const { mesh, facts } = this.#options
    const { pending, ...known } = facts()
    const { state, reason, isSettled } = this.#reachability
    const peers = this.#reachability.peers()
    const down = new Set(peers.flatMap(({ node, up }) => (up ? [] : [node])))
    const refused = new Set(known.refusals.map(sourceKey))
    const isReached = state === 'connected' && isSettled
    const isExplained = (source: RemoteTable) => !isReached || down.has(source.node) || refused.has(sourceKey(source))
    return assessHealth({
      ...known,
      mesh: { state, reason, isSettled, problems: mesh.problems?.() ?? [] },
      peers,
      pending: this.#pending.update(pending, isExplained),
    })
  }

  #check(): void {
    // A node that sends no heartbeats may be read by now.
    this.#reachability.onPeers()
    const [before, now] = [this.#reported, this.status()]
    const { began, ended } = compareHealth(before, now)
    if (began.length === 0 && ended.length === 0) return
    this.#reported = now
    this.#options.emit('health:changed', { ...now, began: Object.freeze(began), ended: Object.freeze(ended) })
  }
}
