// Standing down as a service does it.

import type { Mesh } from '../mesh/mesh.ts'
import type { Peers } from '../peers/peers.ts'
import type { ServiceOptions } from './foundation.ts'
import { isNameInUse, StandingDown, type StandingDownOptions } from './standing-down.ts'

export function createStandingDown(
  { options: { logger }, store, emit }: Pick<ServiceOptions, 'options' | 'store' | 'emit'>,
  { mesh, peers }: { mesh: Mesh; peers: Peers },
  parts: Pick<StandingDownOptions, 'stop' | 'resume'> & { rejected(node: string, reason: string): void },
): StandingDown {
  const { nodeName: node } = store.manifest
  return new StandingDown({
    timers: mesh.timers,
    logger,
    // The outbox keeps what is committed; the manifest still follows the file.
    stop: async () => {
      await parts.stop()
      peers.reset()
    },
    isNameInUse: async (signal) => {
      const observer = mesh.observer?.()
      if (!observer) return false
      const { routes } = store.manifest
      return isNameInUse({ mesh: observer, node, instance: peers.instance, routes }, signal)
    },
    resume: parts.resume,
    changed: (reason) => {
      if (reason) parts.rejected(node, reason)
      else logger.info({}, 'the other process is gone: this one takes part again')
      emit('node:superseded', { superseded: reason !== undefined, ...(reason ? { reason } : {}) })
    },
  })
}
