// Replicates one remote table: reads its stream from the checkpoint on and applies it to the database in batches.

import { ClusterError, reasonOf } from '../../errors.ts'
import type { SubscriptionState } from '../../events/events.ts'
import type { Checkpoint, CopyReason, KeyedRow, RemoteTable } from '../../host/host.ts'
import { MeshError, type Reader } from '../../mesh/mesh.ts'
import { Backoff } from '../../util/backoff.ts'
import { Copier } from '../copy/copier.ts'
import type { StreamPosition } from '../stream-metadata.ts'
import type { Applier } from './applier.ts'
import type { RetriedWork } from './apply-retry.ts'
import { BatchApplier } from './batch-applier.ts'
import { Cursor, type Gap, type ResumedPosition } from './cursor.ts'
import { FrameProcessor } from './frame-processor.ts'
import { Lag } from './lag.ts'
import { countLag, observeLag } from './lag-requests.ts'
import { ExtrasHandler } from './message-extras.ts'
import { PartDecoder } from './part-decoder.ts'
import type { QuarantinedMessage } from './quarantine.ts'
import { QuarantineRelease, type ReplayOutcome } from './quarantine-release.ts'
import { Staleness } from './staleness.ts'
import { StallDetector } from './stall-detector.ts'
import { isOfMessage, isStallError, type StallError } from './stall-error.ts'
import type { SubscriberContext, SubscriberOptions } from './subscriber-options.ts'
import type { SubscriptionStatus } from './subscription-status.ts'
import { TableFaultError, TableWait, type TableWaitOptions } from './table-wait.ts'
import { WakeableSleep } from './wakeable-sleep.ts'

/** ms. */
const RETRY_BACKOFF = { first: 50, max: 2_000 }
/** A subscription that is more messages behind asks how many transactions they have. */
const UNCOUNTED_MESSAGES = 8

export class Subscriber {
  readonly #context: SubscriberContext
  readonly #applier: Applier
  readonly source: RemoteTable
  readonly #cursor: Cursor
  readonly #frames: FrameProcessor
  readonly #release: QuarantineRelease
  readonly #tableWait: TableWait
  readonly #batchApplier: BatchApplier
  readonly #sleep: WakeableSleep
  readonly #copier: Copier
  readonly #lag: Lag
  readonly #stallDetector: StallDetector
  readonly #staleness: Staleness
  readonly #ending = { aborted: false }
  /** Aborts the requests in progress, which may have been lost with the link. */
  #attempt = new AbortController()
  /** Of the source's servers when the attempt began: what is read in it is of that session, or a later one. */
  #session: string | undefined
  #state: SubscriptionState = 'pending'
  #error: string | undefined
  #refused: SubscriptionStatus['refused']
  #reader: Reader | undefined
  #applying = false
  /** The position before a message that cannot be read yet, at which the subscription stalls. */
  #stalledAt: Pick<Checkpoint, 'epoch' | 'sequence'> | undefined
  #running: Promise<void> | undefined

  constructor(context: SubscriberContext, { source, applier }: SubscriberOptions) {
    this.#context = context
    this.#applier = applier
    this.source = source
    const { mesh, timers, requestTimeout, events, begun, copies } = context
    this.#staleness = new Staleness(context, {
      source,
      applier,
      isCaughtUp: () => this.#state === 'live',
      onStale: (time) => events.stale(source, time),
    })
    this.#cursor = new Cursor({
      source,
      mesh,
      applier,
      begun,
      copies,
      requestTimeout,
      since: () => context.subscribedSince?.(source),
      gap: (found) => this.#onGap(found),
      requestedStart: () => context.requestedStart?.(source),
      overdueSince: () => this.#staleness.overdueSince,
    })
    const isReading = () => this.isReading
    this.#copier = new Copier(context, { source, applier, isReading, onChange: () => this.#onCopyChange() })
    this.#lag = new Lag(timers)
    this.#stallDetector = new StallDetector(timers)
    const sleep = new WakeableSleep(timers)
    this.#sleep = sleep
    const signal = this.#ending
    const decoder = new PartDecoder(context, { source, applier })
    const onApplied = (transactions: number, sequence: number) => events.applied(source, transactions, sequence)
    this.#release = new QuarantineRelease(context, { source, applier, decoder, onApplied })
    const onTableStalled: TableWaitOptions['onStalled'] = (sequence, reason, isNew) =>
      isNew ? this.#stall({ sequence }, reason, 1) : this.#setState('stalled', reason)
    this.#tableWait = new TableWait(context, { source, applier, sleep, signal, onStalled: onTableStalled })
    this.#batchApplier = new BatchApplier(context, {
      source,
      applier,
      sleep,
      signal,
      checkTable: (isFirst) => this.#tableWait.check(isFirst),
      onStalled: (at, reason, attempts) => this.#stall(at, reason, attempts),
      onProgress: (applied, sequence) => {
        this.#updateState()
        if (applied > 0) events.applied(source, applied, sequence)
      },
      onQuarantined: (message) => events.quarantined(message),
    })
    const [cursor, batchApplier, lag] = [this.#cursor, this.#batchApplier, this.#lag]
    const extras = new ExtrasHandler(context, source)
    const onCompared = () => context.onCompared?.(source, this.#session)
    this.#frames = new FrameProcessor(context, { cursor, decoder, extras, batchApplier, lag, onCompared })
  }

  #onGap(gap: Gap): void {
    const { counters, events } = this.#context
    counters.gaps++
    counters.lost += gap.lost ?? 0
    events.gap(this.source, gap)
    this.#staleness.report()
  }

  /** True when everything that the stream of the source is known to have is applied. */
  get isLive(): boolean {
    const isBehind = this.#lag.isBehind(this.#cursor.checkpoint)
    return this.#state === 'live' || (this.#state === 'copying' && !isBehind)
  }

  /** See Copier.merge. */
  merge(rows: readonly KeyedRow[]): Promise<void> {
    return this.#copier.merge(rows)
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Instead of `start`: nothing is applied until the subscription is started by another object. Its position is known. */
  startPaused(): void {
    this.#setState('paused')
    this.#running = this.#applier.loadCheckpoint(this.source).then(
      () => this.retryNow(),
      () => {},
    )
  }

  /** Copies all rows of the source as soon as it can. */
  requestCopy(reason: CopyReason): void {
    this.#copier.request(reason)
  }

  /** See Copier. An object that takes the place of this one begins it. */
  get requestedCopy(): CopyReason | undefined {
    return this.#copier.requested
  }

  /** A copy was stored with the checkpoint. */
  onCopyRequested(): void {
    this.#copier.check()
    this.#onCopyChange()
  }

  /** Resolves when reading, copying and applying have ended, or the database has not answered in time. `state`: from then on. */
  async stop(state: SubscriptionState = 'ended'): Promise<void> {
    this.#ending.aborted = true
    this.restart()
    await Promise.all([this.#running, this.#copier.stop()])
    this.#setState(state)
  }

  status(): SubscriptionStatus {
    const { source } = this
    const { checkpoint } = this.#cursor
    const { sequence: appliedSequence, gaps, unrepairedGaps } = checkpoint
    const lastSequence = Math.max(this.#lag.lastSequence, appliedSequence)
    const error = this.#error ?? this.#copier.reason
    const staleSince = this.#staleness.since
    return {
      source,
      state: this.#state,
      appliedSequence,
      lastSequence,
      lag: this.#lag.count(checkpoint),
      lagSeconds: this.#lag.seconds(checkpoint),
      gaps: gaps?.count ?? 0,
      lost: gaps?.lost ?? 0,
      ...(unrepairedGaps === undefined ? {} : { unrepairedGaps }),
      quarantined: this.#context.quarantine.count(source),
      ...this.#copier.status(),
      ...(staleSince === undefined ? {} : { staleSince }),
      ...(error ? { error } : {}),
      ...(this.#refused ? { refused: this.#refused } : {}),
    }
  }

  get state(): SubscriptionState {
    return this.#state
  }

  /** Why it makes no progress. */
  get error(): string | undefined {
    return this.#error
  }

  /** Its status shows a condition of health. */
  get isTroubled(): boolean {
    const { unrepairedGaps = 0 } = this.#cursor.checkpoint
    if (this.#state === 'stalled' || unrepairedGaps > 0 || this.#staleness.since !== undefined) return true
    return this.#context.quarantine.count(this.source) > 0
  }

  /** See Staleness.check. */
  checkStaleness(): Promise<void> {
    return this.#ending.aborted ? Promise.resolve() : this.#staleness.check()
  }

  /** False while it waits for its source, or asks it. */
  get isReading(): boolean {
    return this.#reader !== undefined
  }

  /** The mesh or the source's server restarted: aborts the requests in progress and reads again without a delay. */
  restart(): void {
    this.#attempt.abort()
    this.#reader?.close()
    this.retryNow()
    this.#copier.restart()
  }

  /** Ends the wait between two attempts. A paused subscription only asks how far it is behind. */
  retryNow(): void {
    this.#sleep.wake()
    if (this.#state === 'paused' && !this.#ending.aborted) void observeLag(this.#context, this.#lagParts)
  }

  /** Restarts on suspicion. The interval between two restarts doubles while there is no progress. */
  restartIfStuck(): void {
    const { checkpoint } = this.#cursor
    const { sequence } = checkpoint
    const { allowed, isRepeated } = this.#stallDetector.requestRestart(sequence, this.#lag.isBehind(checkpoint))
    if (!allowed) return
    if (isRepeated) {
      const { node: peer, database, table } = this.source
      this.#context.logger.warn(
        { peer, database, table, sequence, lastSequence: this.#lag.lastSequence },
        'no messages although the stream has newer ones; recreating the consumer',
      )
    }
    this.restart()
  }

  /** The source reports the position of its stream. Without progress since its previous report, messages were lost on the way. */
  onPeerPosition(position: StreamPosition): void {
    const { checkpoint } = this.#cursor
    if (this.#cursor.onPeerPosition(position)) this.restart()
    const isSameEpoch = checkpoint.epoch === '' || position.epoch === checkpoint.epoch
    if (isSameEpoch) this.#lag.observeLast(position, checkpoint)
    const isBehind = !isSameEpoch || position.sequence > checkpoint.sequence
    if (this.#state === 'paused') return
    if (this.#stallDetector.onPeerPosition(checkpoint.sequence, isBehind, this.#applying)) this.restartIfStuck()
    else if (isBehind) this.#sleep.wake()
  }

  /** The database does not answer a call for this table; undefined: it has answered. `isOwn`: the call is for this source. */
  onHostSlow(reason: string | undefined, isOwn: boolean): void {
    if (this.#ending.aborted || this.#state === 'paused') return
    if (reason !== undefined) {
      if (!this.#batchApplier.reportSlow(reason) && isOwn) this.#setState('stalled', reason)
    } else if (isOwn && this.#state === 'stalled' && !this.#applying) {
      // The call may have been one for the copy.
      if (this.isReading) this.#updateState()
      else this.#setState('pending')
    }
  }

  /** Applies what is in quarantine and valid now: what has these indexes, or all. Rejects as the host and the disk do. */
  replay(indexes?: readonly number[]): Promise<ReplayOutcome> {
    return this.#release.replay(indexes)
  }

  /** See QuarantineRelease.releaseDue. */
  async releaseDue(isDue: (message: QuarantinedMessage) => boolean): Promise<void> {
    if (this.#state !== 'paused') await this.#release.releaseDue(isDue)
  }

  /** Removes from quarantine without applying. Resolves with the indexes. */
  discard(indexes?: readonly number[]): Promise<number[]> {
    return this.#release.discard(indexes)
  }

  /** Quarantines the transaction that the database refuses now. Rejects subscription_not_stalled, and as the host and the disk do. */
  quarantineRefused(): Promise<QuarantinedMessage> {
    return this.#batchApplier.quarantineRefused()
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(RETRY_BACKOFF)
    while (!this.#ending.aborted) {
      try {
        await this.#tableWait.untilUsable(() => this.#cursor.checkpoint.sequence + 1)
        this.#attempt = new AbortController()
        this.#session = this.#context.sessionOf?.(this.source.node)
        const resumed = await this.#cursor.resume(this.#attempt.signal)
        await this.#context.quarantine.reconcile(this.source, this.#cursor.checkpoint.quarantined)
        backoff.reset()
        await this.#readUntilLost(resumed)
      } catch (error) {
        if (this.#ending.aborted) return
        const isLost = error instanceof MeshError && (error.code === 'reader_lost' || error.code === 'aborted')
        const isSlow = error instanceof ClusterError && error.code === 'host_timeout'
        if (isStallError(error)) this.#stallAt(error)
        else if (!isLost && !(error instanceof TableFaultError))
          this.#setState(isSlow ? 'stalled' : 'pending', reasonOf(error))
        // Rows that were copied by another process may not be announced; that does not wait for the source.
        this.#copier.check()
        await this.#sleep.sleep(backoff.next())
      } finally {
        this.#reader?.close()
        this.#reader = undefined
      }
    }
  }

  async #readUntilLost(resumed: ResumedPosition): Promise<void> {
    const { source } = this
    const { mesh, requestTimeout: timeout, maxBatch, budget, counters } = this.#context
    const { signal } = this.#attempt
    const isSilent = this.#context.isSilent?.(source.node)
    const options = { timeout, signal, maxMessages: 2 * maxBatch, budget, isSilent }
    this.#reader = await mesh.read(source, resumed.from, options)
    if (signal.aborted) throw new MeshError('aborted')
    const { checkpoint } = this.#cursor
    this.#frames.begin(resumed, signal)
    this.#lag.setLast(checkpoint.sequence)
    this.#lag.observeLast({ sequence: resumed.state.lastSequence }, checkpoint)
    if (this.#lag.count(checkpoint) > UNCOUNTED_MESSAGES)
      void countLag(this.#context, this.#lagParts, resumed.state.lastSequence, signal)
    // A message that cannot be read yet is reached again and again: the subscription stays stalled until it is behind it.
    if (this.#stalledAt?.epoch !== checkpoint.epoch || this.#stalledAt.sequence !== checkpoint.sequence) {
      this.#error = undefined
      this.#updateState()
    }
    counters.consumerRestarts++
    while (!this.#ending.aborted) {
      const entries = await this.#reader.next()
      this.#applying = true
      try {
        await this.#frames.process(entries)
      } finally {
        this.#applying = false
      }
    }
  }

  get #lagParts() {
    return { source: this.source, cursor: this.#cursor, lag: this.#lag }
  }

  #stall(at: RetriedWork, reason: string, attempts: number): void {
    this.#setState('stalled', reason)
    if (at.id !== undefined && at.index !== undefined)
      this.#refused = { sequence: at.sequence, index: at.index, id: at.id }
    this.#context.events.stalled(this.source, at, reason, attempts)
  }

  /** The next message, or the description, cannot be read here yet. It is reported once. */
  #stallAt(error: StallError): void {
    const { epoch, sequence } = this.#cursor.checkpoint
    this.#stalledAt = isOfMessage(error) ? { epoch, sequence } : undefined
    if (this.#state === 'stalled' && this.#error === error.message) return
    this.#stall({ sequence: sequence + 1 }, error.message, 1)
  }

  #updateState(): void {
    const { checkpoint } = this.#cursor
    this.#lag.onApplied(checkpoint)
    this.#copier.check()
    const state = this.#lag.isBehind(checkpoint) ? 'catching-up' : 'live'
    this.#setState(this.#copier.isCopying ? 'copying' : state)
  }

  /** `stalled` and `pending` take precedence. */
  #onCopyChange(): void {
    if (!this.#ending.aborted && this.isReading && this.#state !== 'stalled' && this.#state !== 'pending')
      this.#updateState()
  }

  #setState(state: SubscriptionState, error?: string): void {
    this.#error = error
    this.#refused = undefined
    if (state === this.#state) return
    const previous = this.#state
    this.#state = state
    this.#context.events.state(this.source, state, previous, error)
  }
}
