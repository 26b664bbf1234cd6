// What plugins are handed of a manager: it shows and listens, and that is all.

import type { ClusterEventSource } from '../events/event-source.ts'
import type { Manifest } from '../manifest/manifest.ts'
import type { MeshState } from '../mesh/mesh.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscriber.ts'

/** `opening`: not handed out yet; `closing`: nothing is taken any more, what is in flight is waited for. */
export type ClusterState = 'opening' | 'open' | 'closing' | 'closed'

/** Safe to be handed out: frozen, and nothing of it changes anything. */
export interface ClusterView {
  readonly state: ClusterState
  /** The wanted state, frozen. */
  readonly manifest: Manifest
  readonly events: ClusterEventSource
  /** Of our own mesh; undefined while clustering is disabled. */
  readonly meshState: MeshState | undefined
  /** The nodes of the manifest, in its order, and whether each is heard. */
  peers(): { node: string; up: boolean }[]
  /** One entry a remote table, as of now. */
  subscriptions(): SubscriptionStatus[]
  /** As of now; undefined while clustering is disabled. */
  metrics(): Metrics | undefined
}

export function viewOf(manager: ClusterView): ClusterView {
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
    events: manager.events,
    peers: () => manager.peers(),
    subscriptions: () => manager.subscriptions(),
    metrics: () => manager.metrics(),
  })
}
