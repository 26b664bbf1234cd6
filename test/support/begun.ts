// Which subscriptions have begun, and the tables of a source, for tests of subscribers without a negotiator.

import type { RemoteTable } from '../../lib/host/host.ts'
import type { BegunSubscriptions } from '../../lib/replication/subscribe/cursor.ts'
import type { SourceTables } from '../../lib/replication/subscribe/local-tables.ts'

export class Begun implements BegunSubscriptions {
  readonly #keys = new Set<string>()

  has(source: RemoteTable): boolean {
    return this.#keys.has(JSON.stringify(source))
  }

  add(source: RemoteTable): void {
    this.#keys.add(JSON.stringify(source))
  }
}

/** The source has every table with the primary key `id`. */
export const sourceTables: SourceTables = {
  primaryKeyOf: () => undefined,
  refresh: async () => {},
  create: async () => {},
  attributesFound: async () => {},
}
