// Which nodes of HarperDB may read which local streams, by the manifest: those that the node publishes to.

import { findNode } from '../manifest/manifest.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { ReaderAdmission } from '../mesh/mesh.ts'
import type { Negotiator } from '../peers/negotiator.ts'
import type { Registers } from '../peers/registers.ts'
import type { Publisher } from '../replication/publish/publisher.ts'

/** HarperDB nodes may read from this one. */
export const hasHarperReaders = ({ settings }: Pick<ManifestStore, 'settings'>): boolean =>
  settings.compatibility === 'harperdb4'

const none: readonly never[] = []

export type HarperReadersParts = {
  store: Pick<ManifestStore, 'manifest'>
  registers: Pick<Registers, 'get'>
  publisher: Pick<Publisher, 'firstSingleMessage'>
  negotiator: Pick<Negotiator, 'askedOf'>
}

type Subscriptions = ReturnType<ReaderAdmission['subscriptionsOf']>

export function harperReaders({ store, registers, publisher, negotiator }: HarperReadersParts): ReaderAdmission {
  /** Together, by what is asked. */
  const together = new WeakMap<Subscriptions, { agreed: Subscriptions; all: Subscriptions }>()
  return {
    subscriptionsOf(node) {
      const agreed = findNode(store.manifest, node)?.subscriptions ?? none
      const asked = negotiator.askedOf(node)
      if (asked.length === 0) return agreed
      const known = together.get(asked)
      if (known?.agreed === agreed) return known.all
      const all = [...asked.map((each) => ({ ...each, isAsked: true })), ...agreed]
      together.set(asked, { agreed, all })
      return all
    },
    async startOf(node, table) {
      const sequence = await publisher.firstSingleMessage(table)
      return sequence === undefined ? undefined : { sequence, since: registers.get(node, table)?.publishSince }
    },
  }
}
