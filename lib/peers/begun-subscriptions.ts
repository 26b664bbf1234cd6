// The subscriptions that have stored a checkpoint, and the last request that each of them has begun. A begun subscription without a
// checkpoint has lost it; a new one never had one.

import type { RemoteTable, TableName } from '../mesh/mesh.ts'
import { TablesByNode } from './tables-by-node.ts'

/** `request`: see StartRequest.id; '' is lower than any. */
type Begun = TableName & { request: string }

export class BegunSubscriptions {
  readonly #isSubscribed: (source: RemoteTable) => boolean
  readonly #onChange: () => void
  readonly #tables = new TablesByNode<Begun>()

  /** `isSubscribed`: the local node subscribes to the table. */
  constructor(isSubscribed: (source: RemoteTable) => boolean, onChange: () => void) {
    this.#isSubscribed = isSubscribed
    this.#onChange = onChange
  }

  has(source: RemoteTable): boolean {
    return this.#tables.get(source) !== undefined
  }

  /** The last request that it has begun; '' before the first one. */
  requestOf(source: RemoteTable): string {
    return this.#tables.get(source)?.request ?? ''
  }

  /**
   * Call when a checkpoint is stored. `request`: the one that the checkpoint names. Has no effect for a subscription that ended
   * meanwhile.
   */
  add(source: RemoteTable, request = ''): void {
    const { node, database, table } = source
    if ((this.has(source) && this.requestOf(source) >= request) || !this.#isSubscribed(source)) return
    this.#tables.set(node, { database, table, request })
    this.#onChange()
  }

  /** The subscription ended: a later one is a new one. */
  delete(source: RemoteTable): void {
    if (this.#tables.delete(source)) this.#onChange()
  }

  /** `[database, table]` of each subscription, and its request if it has begun one, by node. */
  toJSON(): Record<string, string[][]> {
    return this.#tables.rows(({ database, table, request }) => [database, table, ...(request ? [request] : [])])
  }
}
