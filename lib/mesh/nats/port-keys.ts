// The configuration keys of the ports on which the local servers listen.

import type { ServerSettings } from './configuration.ts'

const portKeys = {
  cluster: 'clustering.hubServer.cluster.network.port',
  leafNodes: 'clustering.hubServer.leafNodes.network.port',
  hub: 'clustering.hubServer.network.port',
  leaf: 'clustering.leafServer.network.port',
} as const satisfies Record<keyof ServerSettings['ports'], string>

/** The key that sets this port. */
export const portKeyOf = (ports: ServerSettings['ports'], port: number): string =>
  Object.entries(portKeys).find(([name]) => ports[name as keyof typeof ports] === port)?.[1] ?? 'unknown'
