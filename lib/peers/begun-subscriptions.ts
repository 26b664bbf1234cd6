// The subscriptions that have stored a checkpoint. A begun subscription without a checkpoint has lost it; a new one never had one.

import { tableKey } from '../manifest/manifest.ts'
import type { TableName } from '../mesh/mesh.ts'

type Source = TableName & { node: string }

export class BegunSubscriptions {
  readonly #isSubscribed: (source: Source) => boolean
  readonly #onChange: () => void
  /** By node; each table by its key. */
  readonly #nodes = new Map<string, Map<string, TableName>>()

  /** `isSubscribed`: the local node subscribes to the table. */
  constructor(isSubscribed: (source: Source) => boolean, onChange: () => void) {
    this.#isSubscribed = isSubscribed
    this.#onChange = onChange
  }

  has({ node, ...table }: Source): boolean {
    return this.#nodes.get(node)?.has(tableKey(table)) ?? false
  }

  /** Call when a checkpoint is stored. Has no effect for a subscription that ended meanwhile. */
  add(source: Source): void {
    const { node, database, table } = source
    if (this.has(source) || !this.#isSubscribed(source)) return
    const ofNode = this.#nodes.get(node) ?? new Map<string, TableName>()
    this.#nodes.set(node, ofNode)
    ofNode.set(tableKey(source), { database, table })
    this.#onChange()
  }

  /** The subscription ended: a later one is a new one. */
  delete({ node, ...table }: Source): void {
    const ofNode = this.#nodes.get(node)
    if (!ofNode?.delete(tableKey(table))) return
    if (ofNode.size === 0) this.#nodes.delete(node)
    this.#onChange()
  }

  /** `[database, table]` of each subscription, by node. */
  toJSON(): Record<string, [string, string][]> {
    const pairs = [...this.#nodes].map(([node, tables]): [string, [string, string][]] => [
      node,
      [...tables.values()].map(({ database, table }) => [database, table]),
    ])
    return Object.fromEntries(pairs)
  }
}
