// The remote tables that a manifest subscribes to.

import type { RemoteTable } from '../../host/host.ts'
import type { Manifest } from '../../manifest/manifest.ts'

export const sourceKey = ({ node, database, table }: RemoteTable) => JSON.stringify([node, database, table])

/** The remote tables of these nodes to which the local node subscribes. */
export const sourcesOf = (nodes: Manifest['nodes']): RemoteTable[] =>
  nodes.flatMap(({ name, subscriptions }) =>
    subscriptions
      .filter(({ subscribe }) => subscribe)
      .map(({ database, table }) => Object.freeze({ node: name, database, table })),
  )
