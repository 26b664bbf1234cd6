// Which subscriptions the remote node has not agreed to, and why: the other end must know of each change before it is in effect there.

import { tableKey } from '../manifest/manifest.ts'
import type { RemoteTable, TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'

/** `pending`: the remote node was not reached since the subscription changed. `refused`: it answered that it cannot accept it. */
export type Disagreement = { readonly state: 'pending' | 'refused'; readonly reason: string }

/** A subscription that the remote node cannot accept now, and why. */
export type Refusal = RemoteTable & { readonly reason: string }

export type AgreementsOptions = {
  logger: Logger
  /** Called once for each change of the reason. */
  refused(node: string, table: TableName, reason: string): void
}

const NOT_REACHED: Disagreement = { state: 'pending', reason: 'the remote node was not reached yet' }
/** Reasons come from remote nodes. */
const MAX_REASON_LENGTH = 500

type Entry = { readonly table: TableName; disagreement: Disagreement }

export class Agreements {
  readonly #options: AgreementsOptions
  /** By node and `tableKey`. */
  readonly #nodes = new Map<string, Map<string, Entry>>()

  constructor(options: AgreementsOptions) {
    this.#options = options
  }

  /** Undefined if the remote node has agreed. */
  get(node: string, table: TableName): Disagreement | undefined {
    return this.#nodes.get(node)?.get(tableKey(table))?.disagreement
  }

  /** The subscriptions that remote nodes cannot accept. */
  refusals(): Refusal[] {
    return [...this.#nodes].flatMap(([node, tables]) =>
      [...tables.values()].flatMap(({ table, disagreement: { state, reason } }) =>
        state === 'refused' ? { node, ...table, reason } : [],
      ),
    )
  }

  /** True while the remote node has not agreed to some subscription. */
  isOpen(node: string): boolean {
    return this.#nodes.has(node)
  }

  /** These subscriptions changed here, and the remote node does not know it yet. */
  changed(node: string, tables: readonly TableName[]): void {
    for (const table of tables) this.#set(node, table, this.get(node, table) ?? NOT_REACHED)
  }

  /** The remote node cannot accept this subscription. */
  refuse(node: string, table: TableName, reason: string): void {
    this.#set(node, table, { state: 'refused', reason: reason.slice(0, MAX_REASON_LENGTH) })
  }

  /** The comparison with the node failed: that concerns the open subscriptions, or all of them if it refuses to compare. */
  failed(node: string, state: Disagreement['state'], reason: string, all: readonly TableName[]): void {
    const open = [...(this.#nodes.get(node)?.values() ?? [])].map(({ table }) => table)
    const concerned = open.length === 0 && state === 'refused' ? all : open
    for (const table of concerned)
      if (state === 'refused') this.refuse(node, table, reason)
      // A node that refused before and is not reached now still has its reason.
      else if (this.get(node, table)?.state !== 'refused')
        this.#set(node, table, { state, reason: reason.slice(0, MAX_REASON_LENGTH) })
  }

  confirm(node: string, tables: readonly TableName[]): void {
    const ofNode = this.#nodes.get(node)
    if (!ofNode) return
    for (const { database, table } of tables) {
      const key = tableKey({ database, table })
      if (ofNode.get(key)?.disagreement.state === 'refused')
        this.#options.logger.info({ peer: node, database, table }, 'subscription accepted by the peer')
      ofNode.delete(key)
    }
    if (ofNode.size === 0) this.#nodes.delete(node)
  }

  #set(node: string, { database, table }: TableName, disagreement: Disagreement): void {
    const ofNode = this.#nodes.get(node) ?? new Map<string, Entry>()
    this.#nodes.set(node, ofNode)
    const key = tableKey({ database, table })
    const before = ofNode.get(key)?.disagreement
    ofNode.set(key, { table: { database, table }, disagreement })
    const { state, reason } = disagreement
    if (state !== 'refused' || (before?.state === 'refused' && before.reason === reason)) return
    this.#options.logger.warn({ peer: node, database, table, reason }, 'subscription refused by the peer, retrying')
    this.#options.refused(node, { database, table }, reason)
  }
}
