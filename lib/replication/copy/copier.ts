// Copies the rows of one source beside live replication, as long as the checkpoint of the subscription has a copy position: page by
// page in the order of the source, resumed where it stopped. Every row is merged, so it may be applied at any time.

import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { CopyPosition, CopyReason, KeyedRow, RemoteTable } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { MeshError } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import { withAbort } from '../../util/abort.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Timers } from '../../util/timers.ts'
import type { Applier } from '../subscribe/applier.ts'
import type { LocalTables, SourceTables } from '../subscribe/local-tables.ts'
import type { CopyEvents, CopyStatus } from '../subscribe/subscription-status.ts'
import { WakeableSleep } from '../subscribe/wakeable-sleep.ts'
import type { Copies } from './copies.ts'
import { beginCopy } from './copy-position.ts'
import { keyOfText, keyText } from './key-text.ts'
import type { RowPage, RowRequests } from './row-requests.ts'
import { transactionsOfRow } from './row-transactions.ts'
import { TableReplacement, type TableReplacementOptions } from './table-replacement.ts'

export type CopierOptions = Pick<TableReplacementOptions, 'node' | 'statuses'> & {
  source: RemoteTable
  applier: Applier
  clock: HybridClock
  copies: Copies
  timers: Timers
  logger: Logger
  tables: Pick<LocalTables, 'check' | 'primaryKeyOf'>
  sourceTables: SourceTables
  events: CopyEvents
  /** Maximum number of transactions in one transaction of the database; a row is never divided. */
  maxBatch: number
  /** The stream of the source is being read: the source is reachable. */
  isReading(): boolean
  /** A copy began or ended, or its reason for waiting changed. */
  onChange(): void
}

/** ms. */
const RETRY_BACKOFF = { first: 100, max: 5_000 }
/** A timer takes less than 2^31 ms; the clock may be set meanwhile. */
const MAX_WAIT_MS = 60_000

export class Copier {
  readonly #options: CopierOptions
  readonly #rows: RowRequests | undefined
  readonly #sleep: WakeableSleep
  readonly #stopping = new AbortController()
  readonly #backoff = new Backoff(RETRY_BACKOFF)
  readonly #replacement: TableReplacement
  #attempt = new AbortController()
  #running: Promise<void> | undefined
  /** A copy to begin with the next step. */
  #requested: CopyReason | undefined
  #reason: string | undefined
  /** Rows to apply at once: 1 after the database has refused several twice, to find the one that it refuses. */
  #maxRows = Number.POSITIVE_INFINITY
  /** Behind this key the database refused rows last. */
  #refusedAfter: string | undefined
  /** Rows copied since this object was created; rows of the present copy and ms (`Timers.elapsed`) when that was begun or resumed. */
  #copied = 0
  #resumed: { rows: number; at: number } | undefined
  /** The last step of this copy was sent to the database. */
  #ending: CopyPosition | undefined
  #updateProgress: ((done: number, total?: number) => void) | undefined

  constructor(options: CopierOptions) {
    this.#options = options
    this.#rows = options.copies.rows
    this.#sleep = new WakeableSleep(options.timers)
    this.#replacement = new TableReplacement(options)
  }

  get isCopying(): boolean {
    return this.#rows !== undefined && (this.#position !== undefined || this.#requested !== undefined)
  }

  /** Why the copy waits. */
  get reason(): string | undefined {
    return this.isCopying ? this.#reason : undefined
  }

  status(): { copied: number; copy?: CopyStatus } {
    const position = this.isCopying ? this.#position : undefined
    if (!position) return { copied: this.#copied }
    const { reason, rows } = position
    const ms = this.#resumed ? this.#options.timers.elapsed() - this.#resumed.at : 0
    const rate = ms > 0 ? { rate: Math.max(0, ((rows - this.#resumed!.rows) * 1_000) / ms) } : {}
    return { copied: this.#copied, copy: { reason, rows, ...rate } }
  }

  /** Begins a copy as soon as the subscription has a checkpoint. One that is under way begins again. */
  request(reason: CopyReason): void {
    if (!this.#rows) return
    this.#requested = reason
    this.check()
  }

  /** The checkpoint may have a copy position now, or the source may be reachable. */
  check(): void {
    if (!this.isCopying || this.#stopping.signal.aborted) return
    if (this.#running) {
      if (this.#isWaitOver) this.#sleep.wake()
      return
    }
    this.#backoff.reset()
    this.#running = this.#run().finally(() => {
      this.#running = undefined
      // Another copy may have begun meanwhile.
      this.check()
    })
    this.#options.onChange()
  }

  /** Applies rows of the source beside a copy, whose position stays. Rejects as the host does. */
  async merge(rows: readonly KeyedRow[]): Promise<void> {
    const { source, tables, applier, clock } = this.#options
    const primaryKey = await tables.primaryKeyOf(source)
    if (primaryKey === undefined) throw clusterError('table_not_found', source.table)
    for (let isApplied = false; !isApplied; ) {
      const current = applier.checkpointOf(source)
      if (!current) throw new Error('the subscription has not begun')
      const { copy, sequence } = current
      const transactions = rows.flatMap(
        (row) => transactionsOfRow({ source, primaryKey, clock, sequence }, row).transactions,
      )
      isApplied = await applier.copy(source, transactions, { from: copy, to: copy })
    }
  }

  /** The link or the server of the source restarted: aborts the requests in progress, and tries again without a delay. */
  restart(): void {
    this.#attempt.abort()
    this.#sleep.wake()
  }

  /** Resolves when nothing is stored any more. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.restart()
    await this.#running
  }

  get #position(): CopyPosition | undefined {
    return this.#options.applier.checkpointOf(this.#options.source)?.copy
  }

  /** Until the source is reachable, or until the local clock reaches rows that were left out. */
  #waitsFor: 'source' | 'clock' | undefined

  get #isWaitOver(): boolean {
    if (this.#waitsFor === 'source') return this.#options.isReading()
    return this.#waitsFor === 'clock' && this.#position?.retryAt === undefined
  }

  async #run(): Promise<void> {
    // After the step that began the copy.
    await Promise.resolve()
    while (this.isCopying && !this.#stopping.signal.aborted) {
      try {
        this.#attempt = new AbortController()
        this.#waitsFor = this.#options.isReading() ? undefined : 'source'
        if (this.#waitsFor) await this.#sleep.sleep(MAX_WAIT_MS)
        else await this.#copy(this.#attempt.signal)
      } catch (error) {
        if (this.#stopping.signal.aborted) return
        const isOutdated = error instanceof MeshError && error.code === 'reader_lost'
        if (!isOutdated && !this.#attempt.signal.aborted) this.#setReason(reasonOf(error))
        await this.#sleep.sleep(this.#backoff.next())
      }
    }
    if (this.#ending && this.#options.applier.checkpointOf(this.#options.source) && !this.#position) this.#onEnded()
    this.#setReason(undefined)
    this.#options.onChange()
  }

  async #copy(signal: AbortSignal): Promise<void> {
    const { source, applier, copies } = this.#options
    await this.#checkSource()
    if (this.#requested) {
      const requested = this.#requested
      await applier.requestCopy(source, requested)
      if (!this.#position) throw new MeshError('reader_lost', 'the subscription has no checkpoint')
      if (this.#requested === requested) this.#requested = undefined
    }
    const position = this.#position
    if (!position) return
    if (this.#rows!.serves(source) === false) return this.#drop(position)
    if (position.after === undefined && (await this.#waitForClock(position.retryAt))) return
    if (copies.slots.isFull) this.#setReason('waiting for other copies')
    const endCopy = await copies.slots.acquire(signal)
    try {
      this.#setReason(undefined)
      await this.#copyPages(position, signal)
    } finally {
      endCopy()
    }
  }

  async #checkSource(): Promise<void> {
    const { source, tables, sourceTables } = this.#options
    if (this.#rows!.serves(source) === undefined) await sourceTables.refresh(source.node)
    if (this.#rows!.serves(source) === undefined) throw new Error(`${source.node} has not described its tables`)
    const fault = await tables.check(source)
    if (fault) throw new Error(fault.reason)
  }

  /** The copy is to run again at that time. True when it waited. */
  async #waitForClock(retryAt = 0): Promise<boolean> {
    const wait = retryAt - this.#options.timers.now()
    if (wait <= 0) return false
    this.#setReason(`rows with timestamps of the future are missing until ${new Date(retryAt).toISOString()}`)
    this.#waitsFor = 'clock'
    await this.#sleep.sleep(Math.min(wait, MAX_WAIT_MS))
    return true
  }

  /** The next page is requested while one is applied. */
  async #copyPages(first: CopyPosition, signal: AbortSignal): Promise<void> {
    const { source, timers, events } = this.#options
    this.#resumed = { rows: first.rows, at: timers.elapsed() }
    this.#updateProgress = events.copyProgress(source)
    let position: CopyPosition | undefined = first
    if (first.replace && first.after === undefined) {
      const page = () => this.#rows!.page(source, undefined, { signal })
      const readHorizon = async () => (await page()).horizon
      position = await this.#replacement.prepare(first, readHorizon, signal, (reason) => this.#setReason(reason))
      if (!position) return
    }
    const request = (after = position!.after): Promise<RowPage> => {
      const page = this.#rows!.page(source, after === undefined ? undefined : keyOfText(after), { signal })
      // It may be in flight when the copy ends.
      page.catch(() => {})
      return page
    }
    let next = request()
    for (;;) {
      const { rows, horizon } = await withAbort(next, signal)
      this.#setReason(undefined)
      if (rows.length === 0) return this.#end(position, horizon)
      next = request(keyText(rows.at(-1)!.key))
      if (position.after === undefined) events.copyBegan(source, position.reason)
      position = await this.#applyPage(rows, position)
      if (!position) return
    }
  }

  /** Resolves with the position behind the page; with undefined when the copy began again. */
  async #applyPage(rows: readonly KeyedRow[], from: CopyPosition): Promise<CopyPosition | undefined> {
    const { source, tables, applier, clock, maxBatch } = this.#options
    const primaryKey = await tables.primaryKeyOf(source)
    if (primaryKey === undefined) throw new Error('the table does not exist here')
    let position = from
    for (let next = 0; next < rows.length; ) {
      if (this.#stopping.signal.aborted) throw new MeshError('aborted')
      const sequence = applier.checkpointOf(source)?.sequence ?? 0
      const transactions = []
      let retryAt = position.after === undefined ? undefined : position.retryAt
      const begin = next
      for (; next < rows.length && next - begin < this.#maxRows; next++) {
        const row = transactionsOfRow({ source, primaryKey, clock, sequence }, rows[next]!)
        if (next > begin && transactions.length + row.transactions.length > maxBatch) break
        transactions.push(...row.transactions)
        if (row.retryAt !== undefined) retryAt = Math.min(row.retryAt, retryAt ?? row.retryAt)
      }
      const { retryAt: _, ...kept } = position
      const after = keyText(rows[next - 1]!.key)
      const to = { ...kept, after, rows: position.rows + next - begin, ...(retryAt !== undefined && { retryAt }) }
      if (!(await this.#applyRows(transactions, position, to, next - begin))) return undefined
      position = to
    }
    return position
  }

  async #applyRows(
    transactions: Parameters<Applier['copy']>[1],
    from: CopyPosition,
    to: CopyPosition,
    count: number,
  ): Promise<boolean> {
    const { source, applier } = this.#options
    try {
      const options = to.acceptOld ? { acceptOld: true } : {}
      if (!(await applier.copy(source, transactions, { from, to, ...options }))) return false
    } catch (error) {
      if (error instanceof MeshError || error instanceof ClusterError || this.#stopping.signal.aborted) throw error
      // One by one, the rows before the bad one are applied. A rejected step may have been committed: then the position is another.
      if (this.#refusedAfter === (from.after ?? '')) this.#maxRows = 1
      this.#refusedAfter = from.after ?? ''
      if (count > 1) throw error
      throw new Error(`the database refuses the row '${to.after!.slice(1)}': ${reasonOf(error)}`, { cause: error })
    }
    this.#maxRows *= 2
    this.#backoff.reset()
    this.#copied += count
    this.#updateProgress?.(to.rows)
    // A host that never waits would keep the process from reading its connections.
    await new Promise((resolve) => setImmediate(resolve))
    return true
  }

  /** All rows were read. Runs again later when some were left out. */
  async #end(position: CopyPosition, horizon: RowPage['horizon']): Promise<void> {
    const { source, applier, copies } = this.#options
    const { after, retryAt } = position
    const isComplete = after === undefined || retryAt === undefined
    // What they had sent before, and this source does not have, was in the table.
    if (isComplete && position.replace) await copies.copyFromOthers(source)
    const to = isComplete ? undefined : { ...beginCopy(position, position.reason), retryAt }
    this.#ending = isComplete ? position : undefined
    const options = { ...(horizon !== undefined && { horizon }), ...(position.acceptOld && { acceptOld: true }) }
    if (!(await applier.copy(source, [], { from: position, to, ...options })) && this.#position)
      this.#ending = undefined
  }

  async #drop(position: CopyPosition): Promise<void> {
    const { source, applier, logger } = this.#options
    await applier.copy(source, [], { from: position, to: undefined })
    const { node: peer, database, table } = source
    logger.warn({ peer, database, table, reason: position.reason }, 'rows not copied: the source does not serve them')
  }

  #onEnded(): void {
    const { source, copies, events, timers } = this.#options
    const { reason, rows } = this.#ending!
    this.#ending = undefined
    copies.onCopied(source)
    this.#updateProgress?.(rows, rows)
    events.copied(source, { reason, rows, ms: Math.round(timers.elapsed() - (this.#resumed?.at ?? timers.elapsed())) })
  }

  #setReason(reason: string | undefined): void {
    if (reason === this.#reason) return
    this.#reason = reason
    this.#options.onChange()
  }
}
