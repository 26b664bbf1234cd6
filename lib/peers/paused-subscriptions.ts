// The subscriptions that an operator has paused on this node. A local flag, no part of what nodes agree on.

import { tableKey } from '../manifest/manifest.ts'
import type { TableName } from '../mesh/mesh.ts'

type Source = TableName & { node: string }

export class PausedSubscriptions {
  readonly #onChange: () => void
  /** By node; each table by its key. */
  readonly #nodes = new Map<string, Map<string, TableName>>()

  constructor(onChange: () => void) {
    this.#onChange = onChange
  }

  has({ node, ...table }: Source): boolean {
    return this.#nodes.get(node)?.has(tableKey(table)) ?? false
  }

  add(source: Source): void {
    if (this.has(source)) return
    const { node, database, table } = source
    const ofNode = this.#nodes.get(node) ?? new Map<string, TableName>()
    this.#nodes.set(node, ofNode)
    ofNode.set(tableKey(source), { database, table })
    this.#onChange()
  }

  /** Resumed, or the subscription ended: a later one is not paused. */
  delete({ node, ...table }: Source): void {
    const ofNode = this.#nodes.get(node)
    if (!ofNode?.delete(tableKey(table))) return
    if (ofNode.size === 0) this.#nodes.delete(node)
    this.#onChange()
  }

  /** `[database, table]` of each, by node. */
  toJSON(): Record<string, string[][]> {
    const rows = ({ database, table }: TableName) => [database, table]
    return Object.fromEntries([...this.#nodes].map(([node, tables]) => [node, [...tables.values()].map(rows)]))
  }
}
