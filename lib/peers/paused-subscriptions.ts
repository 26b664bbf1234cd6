// The subscriptions that an operator has paused on this node. A local flag, no part of what nodes agree on.

import type { RemoteTable, TableName } from '../mesh/mesh.ts'
import { TablesByNode } from './tables-by-node.ts'

export class PausedSubscriptions {
  readonly #onChange: () => void
  readonly #tables = new TablesByNode<TableName>()

  constructor(onChange: () => void) {
    this.#onChange = onChange
  }

  has(source: RemoteTable): boolean {
    return this.#tables.get(source) !== undefined
  }

  add(source: RemoteTable): void {
    if (this.has(source)) return
    const { node, database, table } = source
    this.#tables.set(node, { database, table })
    this.#onChange()
  }

  /** Resumed, or the subscription ended: a later one is not paused. */
  delete(source: RemoteTable): void {
    if (this.#tables.delete(source)) this.#onChange()
  }

  /** `[database, table]` of each, by node. */
  toJSON(): Record<string, string[][]> {
    return this.#tables.rows(({ database, table }) => [database, table])
  }
}
