// Local tables whose rows are older than other nodes know, because the database was restored: each is copied once from every source, also
// from one whose subscription starts later.

import type { RemoteTable, TableName } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'

export class RestoredTables {
  /** The nodes from which each table, by its key, is copied already. */
  readonly #copied = new Map<string, Set<string>>()

  /** The table was restored: it is copied from all sources again. */
  add(table: TableName): void {
    this.#copied.set(tableKey(table), new Set())
  }

  /** True once for each source of a restored table: its rows are to be copied. */
  takeCopy(source: RemoteTable): boolean {
    const copied = this.#copied.get(tableKey(source))
    if (!copied || copied.has(source.node)) return false
    copied.add(source.node)
    return true
  }
}
