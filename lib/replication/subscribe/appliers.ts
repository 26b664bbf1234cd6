// The appliers of one replicator: one for each local table, all with the same options.

import type { RemoteTable } from '../../host/host.ts'
import type { TableName } from '../../mesh/mesh.ts'
import { TableMap } from '../../mesh/table-map.ts'
import { Applier } from './applier.ts'
import type { ApplierOptions } from './applier-options.ts'

export class Appliers {
  readonly #options: ApplierOptions
  readonly #onCheckpoint: (source: RemoteTable) => void
  readonly #appliers = new TableMap<Applier>()

  constructor(options: ApplierOptions, onCheckpoint: (source: RemoteTable) => void) {
    this.#options = options
    this.#onCheckpoint = onCheckpoint
  }

  of(table: TableName): Applier {
    return this.#appliers.get(table, this.#create)
  }

  /** Undefined before the first call of `of` for this table. */
  find(table: TableName): Applier | undefined {
    return this.#appliers.find(table)
  }

  readonly #create = (table: TableName): Applier =>
    new Applier(this.#options, (node) => this.#onCheckpoint({ node, ...table }))
}
