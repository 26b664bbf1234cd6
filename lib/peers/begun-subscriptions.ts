// The subscriptions that have stored a checkpoint, and the last request that each of them has begun. A begun subscription without a
// checkpoint has lost it; a new one never had one.

import { tableKey } from '../manifest/manifest.ts'
import type { TableName } from '../mesh/mesh.ts'

type Source = TableName & { node: string }
/** `request`: see StartRequest.id; '' is lower than any. */
type Begun = TableName & { request: string }

export class BegunSubscriptions {
  readonly #isSubscribed: (source: Source) => boolean
  readonly #onChange: () => void
  /** By node; each table by its key. */
  readonly #nodes = new Map<string, Map<string, Begun>>()

  /** `isSubscribed`: the local node subscribes to the table. */
  constructor(isSubscribed: (source: Source) => boolean, onChange: () => void) {
    this.#isSubscribed = isSubscribed
    this.#onChange = onChange
  }

  has({ node, ...table }: Source): boolean {
    return this.#nodes.get(node)?.has(tableKey(table)) ?? false
  }

  /** The last request that it has begun; '' before the first one. */
  requestOf({ node, ...table }: Source): string {
    return this.#nodes.get(node)?.get(tableKey(table))?.request ?? ''
  }

  /**
   * Call when a checkpoint is stored. `request`: the one that the checkpoint names. Has no effect for a subscription that ended
   * meanwhile.
   */
  add(source: Source, request = ''): void {
    const { node, database, table } = source
    if ((this.has(source) && this.requestOf(source) >= request) || !this.#isSubscribed(source)) return
    const ofNode = this.#nodes.get(node) ?? new Map<string, Begun>()
    this.#nodes.set(node, ofNode)
    ofNode.set(tableKey(source), { database, table, request })
    this.#onChange()
  }

  /** The subscription ended: a later one is a new one. */
  delete({ node, ...table }: Source): void {
    const ofNode = this.#nodes.get(node)
    if (!ofNode?.delete(tableKey(table))) return
    if (ofNode.size === 0) this.#nodes.delete(node)
    this.#onChange()
  }

  /** `[database, table]` of each subscription, and its request if it has begun one, by node. */
  toJSON(): Record<string, string[][]> {
    const pairs = [...this.#nodes].map(([node, tables]): [string, string[][]] => [
      node,
      [...tables.values()].map(({ database, table, request }) => [database, table, ...(request ? [request] : [])]),
    ])
    return Object.fromEntries(pairs)
  }
}
