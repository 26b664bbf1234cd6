// What all copies of a node share: which subscriptions begin with one, what a loss repairs, and how many run at the same time.

import type { CopyPosition, CopyReason, Host, RemoteTable } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import type { StartRequest } from '../../manifest/start-request.ts'
import type { TableName } from '../../mesh/mesh.ts'
import { beginCopy, requestedCopy } from './copy-position.ts'
import { CopySlots } from './copy-slots.ts'
import type { PeerHashes } from './peer-hashes.ts'
import type { RowRequests } from './row-requests.ts'

export type CopiesOptions = {
  host: Pick<Host, 'readRows' | 'horizon'>
  /** Undefined: nothing is copied. */
  rows: RowRequests | undefined
  /** Undefined: tables are not compared; a copy transfers all rows. */
  hashes?: Pick<PeerHashes, 'status' | 'addSums' | 'findAfter'> | undefined
  /** Losses are repaired by a copy. */
  repair: boolean
  /** The table is subscribed from another node too. */
  hasOtherSource(source: RemoteTable): boolean
  /** Stores that the table is to be copied from every other node that it is subscribed from. */
  copyFromOthers(source: RemoteTable): Promise<void>
}

const MAX_COPIES = 2

/** The part that a cursor needs. */
export interface CopyStarts {
  /** The copy that a new subscription begins with. `start`: what was asked for. Rejects as the host does. */
  initial(source: RemoteTable, start?: StartRequest): Promise<CopyPosition | undefined>
  /** The copy that a running subscription is asked for. */
  requested(source: RemoteTable, current: CopyPosition | undefined, start: StartRequest): CopyPosition | undefined
  /** The copy after a loss, if `current` was under way. Undefined: the loss stays. */
  afterLoss(source: RemoteTable, current: CopyPosition | undefined, reason: CopyReason): CopyPosition | undefined
}

/** Nothing is copied. */
export const noCopies: CopyStarts = {
  initial: async () => undefined,
  requested: () => undefined,
  afterLoss: () => undefined,
}

export class Copies implements CopyStarts {
  readonly #options: CopiesOptions
  readonly slots = new CopySlots(MAX_COPIES)
  /**
   * Tables that were created here, or were empty when the first subscription began, until the first copy has ended. So the order in
   * which the subscriptions of one change begin does not matter.
   */
  readonly #fresh = new Set<string>()

  constructor(options: CopiesOptions) {
    this.#options = options
  }

  get rows(): RowRequests | undefined {
    return this.#options.rows
  }

  /** See CopiesOptions. */
  copyFromOthers(source: RemoteTable): Promise<void> {
    return this.#options.copyFromOthers(source)
  }

  /** Undefined when the local database cannot read its rows. */
  get hashes(): CopiesOptions['hashes'] {
    return this.#options.host.readRows && this.#options.hashes
  }

  /** The table has rows that need not be transferred: more than those that arrived since its first copy began. Rejects as the host does. */
  async hasRows({ database, table }: TableName): Promise<boolean> {
    if (this.#fresh.has(tableKey({ database, table }))) return false
    return (await this.#options.host.readRows!({ database, table }, { limit: 1 })).length > 0
  }

  /** A negotiation created the table. */
  onTableCreated(table: TableName): void {
    this.#fresh.add(tableKey(table))
  }

  onTableDropped(table: TableName): void {
    this.#fresh.delete(tableKey(table))
  }

  /** A copy of the table has ended. */
  onCopied(table: TableName): void {
    this.#fresh.delete(tableKey(table))
  }

  async initial(source: RemoteTable, start?: StartRequest): Promise<CopyPosition | undefined> {
    const { host, hasOtherSource } = this.#options
    if (!this.#isServed(source)) return undefined
    if (start?.copy !== undefined) return this.requested(source, undefined, start)
    if (start?.startTime !== undefined) return undefined
    const isFresh = await this.#isFresh(source)
    // Without `readRows` nothing tells whether the table has rows.
    if (!isFresh && !(host.readRows && hasOtherSource(source))) return undefined
    return beginCopy(undefined, 'initial', isFresh)
  }

  requested(
    source: RemoteTable,
    current: CopyPosition | undefined,
    { copy, replace }: StartRequest,
  ): CopyPosition | undefined {
    // The table was emptied for a copy: its end, or its failure, settles what became of the rows.
    if (current?.replace === 'emptied' || current?.emptied) return requestedCopy(current, replace)
    return copy && this.#isServed(source) ? requestedCopy(current, replace) : undefined
  }

  afterLoss(source: RemoteTable, current: CopyPosition | undefined, reason: CopyReason): CopyPosition | undefined {
    if (this.#options.repair && this.#isServed(source)) return beginCopy(current, reason)
    return current && beginCopy(current, current.reason)
  }

  /** The copy after the source has copied rows that its stream does not have. It continues one that is under way, from the first row on. */
  afterSourceChange(source: RemoteTable, current: CopyPosition | undefined): CopyPosition | undefined {
    if (!this.#options.repair || !this.#isServed(source)) return current
    return beginCopy(current, current?.reason ?? 'source_changed')
  }

  /** Unknown counts as true: the copy is dropped when the source turns out not to serve rows. */
  #isServed(source: RemoteTable): boolean {
    const { rows } = this.#options
    return rows !== undefined && rows.serves(source) !== false
  }

  /** The table was created here, or has neither rows, tombstones nor a horizon. */
  async #isFresh({ database, table }: RemoteTable): Promise<boolean> {
    const { host } = this.#options
    const key = tableKey({ database, table })
    if (this.#fresh.has(key)) return true
    if (!host.readRows) return false
    const rows = await host.readRows({ database, table }, { limit: 1 })
    const horizon = await host.horizon?.({ database, table })
    if (rows.length > 0 || horizon !== undefined) return false
    this.#fresh.add(key)
    return true
  }
}
