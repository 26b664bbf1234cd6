// Which nodes of HarperDB may read which local streams, by the manifest: those that the node publishes to.

import { findNode } from '../manifest/manifest.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { ReaderAdmission } from '../mesh/mesh.ts'
import type { Registers } from '../peers/registers.ts'
import type { Publisher } from '../replication/publish/publisher.ts'

const none: readonly never[] = []

export const harperReaders = (
  store: Pick<ManifestStore, 'manifest'>,
  registers: Pick<Registers, 'get'>,
  publisher: Pick<Publisher, 'firstSingleMessage'>,
): ReaderAdmission => ({
  subscriptionsOf: (node) => findNode(store.manifest, node)?.subscriptions ?? none,
  startOf: async (node, table) => {
    const sequence = await publisher.firstSingleMessage(table)
    return sequence === undefined ? undefined : { sequence, since: registers.get(node, table)?.publishSince }
  },
})
