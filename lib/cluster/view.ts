// The view of a manager for plugins: read-only state and events.

import type { ClusterEventSource } from '../events/event-source.ts'
import type { RemoteTable, TableName, Timestamp } from '../host/host.ts'
import type { Manifest } from '../manifest/manifest.ts'
import type { ClusterMeshState } from '../mesh/mesh.ts'
import type { Health } from '../observe/health.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Replica } from '../replication/positions/replica-positions.ts'
import type { QuarantinedMessage } from '../replication/subscribe/quarantine.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscription-status.ts'
import type { ClockStatus } from './clock-control.ts'
import type { PeerLink } from './peer-links.ts'

/**
 * `opening`: `open` has not resolved yet; `superseded`: open, but another process used the name of this node first, so this one takes no
 * part until that one is gone; `closing`: new calls are rejected, calls in progress end.
 */
export type ClusterState = 'opening' | 'open' | 'superseded' | 'closing' | 'closed'

/** Safe to pass to code that must not change anything: frozen, without methods that change state. */
export interface ClusterView {
  readonly state: ClusterState
  /** The configured state, frozen. */
  readonly manifest: Manifest
  readonly events: ClusterEventSource
  /** Undefined while clustering is disabled. */
  readonly meshState: ClusterMeshState | undefined
  /** Why `meshState` is `isolated` or `disconnected`. */
  readonly meshReason: string | undefined
  /** How far timestamps of this node are ahead; with `reason` when that is more than `maxClockDrift`. */
  readonly clock: ClockStatus
  /** See `ClusterManager.health`. */
  health(): Health
  /** The nodes of the manifest, in its order; `up`: heartbeats arrive, or the node runs HarperDB, which sends none, and is read. */
  peers(): { node: string; up: boolean }[]
  /** One entry per remote table. */
  subscriptions(): SubscriptionStatus[]
  /** See `ClusterManager.replicas`. */
  replicas(table: TableName): Replica[]
  /**
   * Asks a node of the manifest how it replicates with each of its peers. Rejects node_not_listening, node_timeout, mesh_unavailable,
   * peer_rejected (also if it runs HarperDB or a version without this request), aborted, clustering_disabled, closed.
   */
  linksOf(node: string, options?: { signal?: AbortSignal }): Promise<PeerLink[]>
  /** See `QuarantineControl.list`. */
  readonly quarantine: { list(source?: RemoteTable): QuarantinedMessage[] }
  /** Undefined while clustering is disabled. */
  metrics(): Metrics | undefined
  /** See `ClusterManager.tombstoneLimit`. */
  tombstoneLimit(): Timestamp | undefined
}

export function viewOf(manager: Omit<ClusterView, 'linksOf'>, linksOf: ClusterView['linksOf']): ClusterView {
  return Object.freeze({
    get state() {
      return manager.state
    },
    get manifest() {
      return manager.manifest
    },
    get meshState() {
      return manager.meshState
    },
    get meshReason() {
      return manager.meshReason
    },
    get clock() {
      return manager.clock
    },
    events: manager.events,
    health: () => manager.health(),
    peers: () => manager.peers(),
    subscriptions: () => manager.subscriptions(),
    replicas: (table: TableName) => manager.replicas(table),
    linksOf,
    quarantine: Object.freeze({ list: (source?: RemoteTable) => manager.quarantine.list(source) }),
    metrics: () => manager.metrics(),
    tombstoneLimit: () => manager.tombstoneLimit(),
  })
}
