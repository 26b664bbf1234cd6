// Values of remote tables, by node, as the revision file stores them.

import { tableKey } from '../manifest/manifest.ts'
import type { RemoteTable, TableName } from '../mesh/mesh.ts'

export class TablesByNode<Value extends TableName> {
  /** Each table by its key. */
  readonly #nodes = new Map<string, Map<string, Value>>()

  get({ node, database, table }: RemoteTable): Value | undefined {
    return this.#nodes.get(node)?.get(tableKey({ database, table }))
  }

  set(node: string, value: Value): void {
    const ofNode = this.#nodes.get(node) ?? new Map<string, Value>()
    this.#nodes.set(node, ofNode)
    ofNode.set(tableKey(value), value)
  }

  /** False when it did not exist. */
  delete({ node, database, table }: RemoteTable): boolean {
    const ofNode = this.#nodes.get(node)
    if (!ofNode?.delete(tableKey({ database, table }))) return false
    if (ofNode.size === 0) this.#nodes.delete(node)
    return true
  }

  /** The rows of each node. */
  rows(rowOf: (value: Value) => string[]): Record<string, string[][]> {
    return Object.fromEntries([...this.#nodes].map(([node, tables]) => [node, [...tables.values()].map(rowOf)]))
  }
}
