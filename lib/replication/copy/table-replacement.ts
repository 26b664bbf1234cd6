// A copy that replaces the local table: empties it in the step that notes it, and copies only when the source has everything that the
// table had and the source was still to get. So only rows are lost here that no other node was to have.

import type { CopyPosition, RemoteTable, TableName, Timestamp } from '../../host/host.ts'
import type { Logger } from '../../observe/logger.ts'
import type { Timers } from '../../util/timers.ts'
import type { Applier } from '../subscribe/applier.ts'
import type { TableStatus } from './row-messages.ts'
import { missingOf } from './settling.ts'

/** What this node and a remote one have of a table. */
export interface TableStatuses {
  here(table: TableName): Promise<TableStatus>
  there(source: RemoteTable, options: { signal: AbortSignal }): Promise<TableStatus>
}

export type TableReplacementContext = {
  /** Name of the local node. */
  node: string
  timers: Timers
  logger: Logger
  /** Without it, the copy waits for nothing. */
  statuses?: TableStatuses | undefined
}

export type TableReplacementOptions = { source: RemoteTable; applier: Applier }

/** ms. Then the copier tries again, and shows the reason. */
const WAIT_MS = 5_000
const POLL_MS = 50

export class TableReplacement {
  readonly #context: TableReplacementContext
  readonly #options: TableReplacementOptions
  /** What this node had after the table was emptied. */
  #target: TableStatus | undefined

  constructor(context: TableReplacementContext, options: TableReplacementOptions) {
    this.#context = context
    this.#options = options
  }

  /**
   * Before the first row. `readHorizon` asks the source for its first page: what does not answer must not cost the table. Resolves with
   * the position from which to copy; with undefined when the copy began again. `onWait`: it waits for the source. Rejects as the source and the host do, and while rows
   * would be lost.
   */
  async prepare(
    position: CopyPosition,
    readHorizon: () => Promise<Timestamp | undefined>,
    signal: AbortSignal,
    onWait: (reason: string) => void,
  ): Promise<CopyPosition | undefined> {
    let current: CopyPosition | undefined = position
    if (position.replace === 'requested') {
      await this.#checkSource(signal)
      current = await this.#empty(position, await readHorizon())
    }
    if (current?.replace === 'emptied') await this.#untilApplied(signal, onWait)
    return current
  }

  /** Two nodes that replace their tables by each other's would both end empty. */
  async #checkSource(signal: AbortSignal): Promise<void> {
    const { source } = this.#options
    const status = await this.#context.statuses?.there(source, { signal })
    if (status?.isReplaced) throw new Error(`${source.node} replaces its own table now`)
  }

  async #empty(position: CopyPosition, horizon: Timestamp | undefined): Promise<CopyPosition | undefined> {
    const { source, applier } = this.#options
    const to: CopyPosition = { ...position, replace: 'emptied' }
    const options = { empties: true, ...(horizon !== undefined && { horizon }) } as const
    this.#target = undefined
    if (!(await applier.copy(source, [], { from: position, to, ...options }))) return undefined
    const { node: peer, database, table } = source
    this.#context.logger.warn({ peer, database, table }, 'table emptied, to be replaced by a copy')
    return to
  }

  /** Transactions of this node that the source has not applied are in the local stream, and in no table any more. */
  async #untilApplied(signal: AbortSignal, onWait: (reason: string) => void): Promise<void> {
    const { node, statuses, timers } = this.#context
    const { source } = this.#options
    if (!statuses) return
    this.#target ??= await statuses.here({ database: source.database, table: source.table })
    const end = timers.elapsed() + WAIT_MS
    for (;;) {
      const missing = missingOf(source.node, await statuses.there(source, { signal }), node, this.#target)
      if (missing === undefined) return
      onWait(missing)
      if (!this.#target.isPublished) this.#target = undefined
      if (!this.#target || timers.elapsed() >= end || signal.aborted) throw new Error(missing)
      await new Promise<void>((resolve) => timers.after(POLL_MS, resolve))
    }
  }
}
