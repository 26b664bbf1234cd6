// Standing down, connected with the other parts of the service.

import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { Peers } from '../peers/peers.ts'
import type { Emit, peerReports } from './reports.ts'
import { isNameInUse, StandingDown, type StandingDownOptions } from './standing-down.ts'

export type StandingDownParts = Pick<StandingDownOptions, 'stop' | 'resume'> & {
  mesh: Mesh
  peers: Pick<Peers, 'instance' | 'reset'>
  store: Pick<ManifestStore, 'manifest'>
  logger: Logger
  reports: ReturnType<typeof peerReports>
  emit: Emit
}

/** `stop` may reject; what it did is tried again when the node closes. */
export function createStandingDown({
  mesh,
  peers,
  store,
  logger,
  reports,
  emit,
  stop,
  resume,
}: StandingDownParts): StandingDown {
  const { nodeName: node } = store.manifest
  return new StandingDown({
    timers: mesh.timers,
    logger,
    // The outbox keeps what is committed; the manifest still follows the file.
    stop: async () => {
      // Logged.
      await stop().catch(() => {})
      peers.reset()
    },
    isNameInUse: async (signal) => {
      const observer = mesh.observer?.()
      if (!observer) return false
      const { routes } = store.manifest
      return isNameInUse({ mesh: observer, node, instance: peers.instance, routes }, signal)
    },
    resume,
    changed: (reason) => {
      if (reason) reports.rejected(node, reason)
      else logger.info({}, 'the other process is gone: this one takes part again')
      emit('node:superseded', { superseded: reason !== undefined, ...(reason ? { reason } : {}) })
    },
  })
}
