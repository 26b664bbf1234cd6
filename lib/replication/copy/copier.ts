// Copies the rows of one source beside live replication, as long as the checkpoint of the subscription has a copy position: into an
// empty table all rows in the order of the source, resumed where it stopped; into one with rows those that differ. Every row is
// merged, so it may be applied at any time.

import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { CopyPosition, CopyReason, KeyedRow, RemoteTable } from '../../host/host.ts'
import { MeshError } from '../../mesh/mesh.ts'
import { Backoff } from '../../util/backoff.ts'
import { setImmediate } from '../../util/timers.ts'
import type { Applier } from '../subscribe/applier.ts'
import type { CopyStatus } from '../subscribe/subscription-status.ts'
import { WakeableSleep } from '../subscribe/wakeable-sleep.ts'
import { ChangeAnnouncer } from './change-announcer.ts'
import type { CopierContext, CopierOptions } from './copier-options.ts'
import { beginCopy } from './copy-position.ts'
import { createFeed, type Feed } from './feed.ts'
import { keyText } from './key-text.ts'
import { announcedWrites, effectiveRows, type IsAnnounced } from './row-effect.ts'
import type { FeedPart } from './row-feed.ts'
import type { RowRequests } from './row-requests.ts'
import { transactionsOfRow } from './row-transactions.ts'
import { SliceSize } from './slice-size.ts'
import { TableReplacement } from './table-replacement.ts'

/** ms. */
const RETRY_BACKOFF = { first: 100, max: 5_000 }
/** A timer takes less than 2^31 ms; the clock may be set meanwhile. */
const MAX_WAIT_MS = 60_000

export class Copier {
  readonly #context: CopierContext
  readonly #options: CopierOptions
  readonly #source: RemoteTable
  readonly #applier: Applier
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
  readonly #slice: SliceSize
  /** Behind this key the database refused rows last. */
  #refusedAfter: string | undefined
  /** Rows copied since this object was created; rows of the present copy and ms (`Timers.elapsed`) when that was begun or resumed. */
  #copied = 0
  #resumed: { rows: number; at: number } | undefined
  /** The last step of this copy was sent to the database. */
  #ending: CopyPosition | undefined
  #feed: Feed | undefined
  /** Pages are being copied. */
  #isActive = false
  readonly #announcer: ChangeAnnouncer
  readonly #isAnnounced: IsAnnounced
  #updateProgress: ((done: number, total?: number) => void) | undefined

  constructor(context: CopierContext, options: CopierOptions) {
    const { source, applier } = options
    this.#context = context
    this.#options = options
    this.#source = source
    this.#applier = applier
    this.#rows = context.copies.rows
    this.#slice = new SliceSize(context.maxBatch)
    this.#sleep = new WakeableSleep(context.timers)
    this.#replacement = new TableReplacement(context, options)
    this.#isAnnounced = announcedWrites(context.node, context.relayEnabled, context.earlierNames)
    this.#announcer = new ChangeAnnouncer(context, { source, applier, isCopying: () => this.#isActive })
  }

  /** A copy that was requested and has not begun: it is not stored. */
  get requested(): CopyReason | undefined {
    return this.#requested
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
    const ms = this.#resumed ? this.#context.timers.elapsed() - this.#resumed.at : 0
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
    this.#announcer.check()
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
    const { host, tables, clock } = this.#context
    const [source, applier] = [this.#source, this.#applier]
    const primaryKey = await tables.primaryKeyOf(source)
    if (primaryKey === undefined) throw clusterError('table_not_found', source.table)
    const effective = await effectiveRows(rows, {
      host,
      table: source,
      primaryKey,
      acceptOld: false,
      isAnnounced: this.#isAnnounced,
    })
    for (let isApplied = effective.rows.length === 0; !isApplied; ) {
      const current = applier.checkpointOf(source)
      if (!current) throw new Error('the subscription has not begun')
      const { copy, sequence } = current
      const transactions = effective.rows.flatMap(
        (row) => transactionsOfRow({ source, primaryKey, clock, sequence }, row).transactions,
      )
      isApplied = await applier.copy(source, transactions, { from: copy, to: copy, announce: effective.announce })
    }
    this.#announcer.check()
  }

  /** The link or the server of the source restarted: aborts the requests in progress, and tries again without a delay. */
  restart(): void {
    // Without a copy nothing uses it, and an aborted signal would stay in memory for each idle subscription.
    if (this.#running) this.#attempt.abort()
    this.#sleep.wake()
  }

  /** Resolves when nothing is stored any more. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.restart()
    await Promise.all([this.#running, this.#announcer.stop()])
  }

  get #position(): CopyPosition | undefined {
    return this.#applier.checkpointOf(this.#source)?.copy
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
    if (this.#ending && this.#applier.checkpointOf(this.#source) && !this.#position) this.#onEnded()
    this.#setReason(undefined)
    this.#options.onChange()
  }

  async #copy(signal: AbortSignal): Promise<void> {
    const { copies } = this.#context
    await this.#checkSource()
    if (this.#requested) {
      const requested = this.#requested
      await this.#applier.requestCopy(this.#source, requested)
      if (!this.#position) throw new MeshError('reader_lost', 'the subscription has no checkpoint')
      if (this.#requested === requested) this.#requested = undefined
    }
    const position = this.#position
    if (!position) return
    if (this.#rows!.serves(this.#source) === false) return this.#drop(position)
    const isBegun = position.after !== undefined || this.#feed?.position === position
    if (!isBegun && (await this.#waitForClock(position.retryAt))) return
    if (copies.slots.isFull) this.#setReason('waiting for other copies')
    const endCopy = await copies.slots.acquire(signal)
    try {
      this.#setReason(undefined)
      this.#isActive = true
      const prepared = await this.#prepare(position, signal)
      if (prepared) await this.#copyRows(await this.#feedFrom(prepared), signal)
    } finally {
      this.#isActive = false
      endCopy()
      this.#announcer.check()
    }
  }

  async #checkSource(): Promise<void> {
    const { tables, sourceTables } = this.#context
    const source = this.#source
    if (this.#rows!.serves(source) === undefined) await sourceTables.refresh(source.node)
    if (this.#rows!.serves(source) === undefined) throw new Error(`${source.node} has not described its tables`)
    const fault = await tables.check(source)
    if (fault) throw new Error(fault.reason)
  }

  /** The copy is to run again at that time. True when it waited. */
  async #waitForClock(retryAt = 0): Promise<boolean> {
    const wait = retryAt - this.#context.timers.now()
    if (wait <= 0) return false
    this.#setReason(`rows with timestamps of the future are missing until ${new Date(retryAt).toISOString()}`)
    this.#waitsFor = 'clock'
    await this.#sleep.sleep(Math.min(wait, MAX_WAIT_MS))
    return true
  }

  /** Before the first row of a copy that replaces the table. Undefined: the copy began again. */
  async #prepare(position: CopyPosition, signal: AbortSignal): Promise<CopyPosition | undefined> {
    if (!position.replace || position.after !== undefined) return position
    const readHorizon = async () => (await this.#rows!.page(this.#source, undefined, { signal })).horizon
    return this.#replacement.prepare(position, readHorizon, signal, (reason) => this.#setReason(reason))
  }

  async #feedFrom(position: CopyPosition): Promise<Feed> {
    // Nothing is compared twice after a failure: what the source got since then arrives in its stream.
    const known = this.#feed
    if (known?.position === position && !known.rows.isOrdered) return known
    const { hashes } = this.#context.copies
    const primaryKey = () => this.#primaryKey()
    const own = { source: this.#source, applier: this.#applier }
    const more = { hashes, requests: this.#rows!, isAnnounced: this.#isAnnounced, primaryKey }
    this.#feed = await createFeed(position, { ...this.#context, ...own, ...more })
    return this.#feed
  }

  async #copyRows(feed: Feed, signal: AbortSignal): Promise<void> {
    const { timers, events } = this.#context
    const { rows, reason } = feed.position
    this.#resumed = { rows, at: timers.elapsed() }
    this.#updateProgress = events.copyProgress(this.#source)
    for (let isFirst = rows === 0; ; isFirst = false) {
      const part = await feed.rows.next(signal)
      this.#setReason(undefined)
      if (part.rows.length === 0) return this.#end(feed, part.horizon)
      feed.isEmpty = false
      if (isFirst) events.copyBegan(this.#source, reason)
      if (!(await this.#applyPart(part, feed))) return
      feed.rows.done()
    }
  }

  async #primaryKey(): Promise<string> {
    const primaryKey = await this.#context.tables.primaryKeyOf(this.#source)
    if (primaryKey === undefined) throw new Error('the table does not exist here')
    return primaryKey
  }

  /** Resolves with false when the copy began again. */
  async #applyPart({ rows, announce }: FeedPart, feed: Feed): Promise<boolean> {
    const { clock, maxBatch } = this.#context
    const source = this.#source
    const primaryKey = await this.#primaryKey()
    for (let next = 0; next < rows.length; ) {
      if (this.#stopping.signal.aborted) throw new MeshError('aborted')
      const from = feed.position
      const sequence = this.#applier.checkpointOf(source)?.sequence ?? 0
      const transactions = []
      let { retryAt } = feed
      const begin = next
      for (; next < rows.length && next - begin < Math.min(this.#maxRows, this.#slice.rows); next++) {
        const row = transactionsOfRow({ source, primaryKey, clock, sequence }, rows[next]!)
        if (next > begin && transactions.length + row.transactions.length > maxBatch) break
        transactions.push(...row.transactions)
        if (row.retryAt !== undefined) retryAt = Math.min(row.retryAt, retryAt ?? row.retryAt)
      }
      const { after: _, retryAt: __, ...kept } = from
      const to: CopyPosition = {
        ...kept,
        rows: from.rows + next - begin,
        ...(feed.rows.isOrdered && { after: keyText(rows[next - 1]!.key), ...(retryAt !== undefined && { retryAt }) }),
      }
      const step = { from, to, announce: announce && transactions.length > 0 }
      if (!(await this.#applyRows(transactions, step, rows.slice(begin, next)))) return false
      feed.position = to
      feed.retryAt = retryAt
    }
    return true
  }

  async #applyRows(
    transactions: Parameters<Applier['copy']>[1],
    step: { from: CopyPosition; to: CopyPosition; announce: boolean },
    rows: readonly KeyedRow[],
  ): Promise<boolean> {
    const { from, to } = step
    try {
      const options = to.acceptOld ? { acceptOld: true } : {}
      const apply = () => this.#applier.copy(this.#source, transactions, { ...step, ...options })
      if (!(await this.#slice.run(apply))) return false
    } catch (error) {
      if (error instanceof MeshError || error instanceof ClusterError || this.#stopping.signal.aborted) throw error
      // One by one, the rows before the bad one are applied. A rejected step may have been committed: then the position is another.
      if (this.#refusedAfter === (from.after ?? '')) this.#maxRows = 1
      this.#refusedAfter = from.after ?? ''
      if (rows.length > 1) throw error
      const key = keyText(rows[0]!.key).slice(1)
      throw new Error(`the database refuses the row '${key}': ${reasonOf(error)}`, { cause: error })
    }
    this.#maxRows *= 2
    this.#backoff.reset()
    this.#copied += rows.length
    this.#updateProgress?.(to.rows)
    // A host that never waits would keep the process from reading its connections.
    await new Promise((resolve) => setImmediate(resolve))
    return true
  }

  /** All rows were read. Runs again later when some were left out. */
  async #end({ position, retryAt, isEmpty }: Feed, horizon: FeedPart['horizon']): Promise<void> {
    const [source, applier] = [this.#source, this.#applier]
    this.#feed = undefined
    const isComplete = isEmpty || retryAt === undefined
    // What they had sent before, and this source does not have, was in the table.
    if (isComplete && position.replace) await this.#context.copies.copyFromOthers(source)
    const to = isComplete ? undefined : { ...beginCopy(position, position.reason), retryAt }
    this.#ending = isComplete ? position : undefined
    const options = { ...(horizon !== undefined && { horizon }), ...(position.acceptOld && { acceptOld: true }) }
    if (!(await applier.copy(source, [], { from: position, to, completes: isComplete, ...options })) && this.#position)
      this.#ending = undefined
  }

  async #drop(position: CopyPosition): Promise<void> {
    // It is all that the table gets now.
    if (position.replace === 'emptied') await this.#context.copies.copyFromOthers(this.#source)
    await this.#applier.dropCopy(this.#source, position)
    const { node: peer, database, table } = this.#source
    const fields = { peer, database, table, reason: position.reason }
    this.#context.logger.warn(fields, 'rows not copied: the source does not serve them')
  }

  #onEnded(): void {
    const { copies, events, timers } = this.#context
    const { reason, rows } = this.#ending!
    this.#ending = undefined
    copies.onCopied(this.#source)
    this.#updateProgress?.(rows, rows)
    const now = timers.elapsed()
    events.copied(this.#source, { reason, rows, ms: Math.round(now - (this.#resumed?.at ?? now)) })
  }

  #setReason(reason: string | undefined): void {
    if (reason === this.#reason) return
    this.#reason = reason
    this.#options.onChange()
  }
}
