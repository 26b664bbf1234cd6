// Waits until the local table of a subscription can be written: it exists, with the primary key of the source.

import type { RemoteTable } from '../../host/host.ts'
import { MeshError } from '../../mesh/mesh.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Applier } from './applier.ts'
import type { LocalTables, SourceTables, TableFault } from './local-tables.ts'
import type { WakeableSleep } from './wakeable-sleep.ts'

/** Rejects the work of a subscription whose local table has a fault. */
export class TableFaultError extends Error {
  override readonly name = 'TableFaultError'
}

export type TableWaitContext = {
  tables: LocalTables
  sourceTables: SourceTables
  onTableDropped(table: RemoteTable): void
}

export type TableWaitOptions = {
  source: RemoteTable
  applier: Applier
  sleep: WakeableSleep
  /** Aborts when the subscription stops. */
  signal: { readonly aborted: boolean }
  /** Called again and again while it waits. `isNew`: with another reason than before. */
  onStalled(sequence: number, reason: string, isNew: boolean): void
}

/** ms. */
const POLL_BACKOFF = { first: 50, max: 2_000 }

export class TableWait {
  readonly #context: TableWaitContext
  readonly #options: TableWaitOptions

  constructor(context: TableWaitContext, options: TableWaitOptions) {
    this.#context = context
    this.#options = options
  }

  /**
   * Creates the table of a new subscription; waits for an operator otherwise. `sequence`: that of the next message. Rejects as
   * requests and the host do, and when the subscription stops.
   */
  async untilUsable(sequence: () => number): Promise<void> {
    const { tables, sourceTables } = this.#context
    const { source, sleep, signal, onStalled } = this.#options
    let fault = await tables.check(source)
    if (fault?.kind === 'missing') {
      await sourceTables.create(source)
      fault = await tables.check(source, { fresh: true })
    }
    const backoff = new Backoff(POLL_BACKOFF)
    for (let before: TableFault | undefined; fault; ) {
      if (fault.kind === 'missing') throw new Error(fault.reason)
      onStalled(sequence(), fault.reason, fault.reason !== before?.reason)
      if (fault.kind === 'dropped' && before?.kind !== 'dropped') await this.#forgetCheckpoints()
      before = fault
      await sleep.sleep(backoff.next())
      if (signal.aborted) throw new MeshError('aborted', 'the subscription ended')
      fault = await tables.checkAgain(source, fault)
    }
  }

  /** The host has deleted the checkpoints with the table; one that remains belongs to rows that are gone. */
  async #forgetCheckpoints(): Promise<void> {
    const { source, applier } = this.#options
    this.#context.onTableDropped(source)
    await applier.loadCheckpoint(source)
  }

  /** Rejects with TableFaultError when the table is the reason of a rejection. `isFirst`: the first rejection in a row. */
  async check(isFirst: boolean): Promise<void> {
    const { tables } = this.#context
    // A database that cannot describe its tables has another fault.
    const fault = await tables.check(this.#options.source, { fresh: isFirst }).catch(() => undefined)
    if (fault) throw new TableFaultError(fault.reason)
  }
}
