// Replicates one remote table: reads its stream from the checkpoint on and applies it to the database in batches.

import { ClusterError, reasonOf } from '../../errors.ts'
import type { GapReason, SubscriptionState } from '../../events/events.ts'
import type { CopyReason, KeyedRow, RemoteTable } from '../../host/host.ts'
import { type Entry, MeshError, type Reader, type StreamState } from '../../mesh/mesh.ts'
import { Backoff } from '../../util/backoff.ts'
import { Copier } from '../copy/copier.ts'
import { messageEpoch, messageId } from '../wire.ts'
import type { RetriedWork } from './apply-retry.ts'
import { BatchApplier } from './batch-applier.ts'
import { Cursor } from './cursor.ts'
import { EntryDecoder } from './entry-decoder.ts'
import { Lag } from './lag.ts'
import { PendingBatch } from './pending-batch.ts'
import type { QuarantinedMessage } from './quarantine.ts'
import { QuarantineRelease, type ReplayOutcome } from './quarantine-release.ts'
import { Staleness } from './staleness.ts'
import { StallDetector } from './stall-detector.ts'
import type { SubscriberOptions } from './subscriber-options.ts'
import type { SubscriptionStatus } from './subscription-status.ts'
import { TableFaultError, TableWait } from './table-wait.ts'
import { WakeableSleep } from './wakeable-sleep.ts'

/** ms. */
const RETRY_BACKOFF = { first: 50, max: 2_000 }

export class Subscriber {
  readonly #options: SubscriberOptions
  readonly #cursor: Cursor
  readonly #decoder: EntryDecoder
  readonly #release: QuarantineRelease
  readonly #tableWait: TableWait
  readonly #batchApplier: BatchApplier
  readonly #sleep: WakeableSleep
  readonly #copier: Copier
  readonly #lag: Lag
  readonly #stallDetector: StallDetector
  readonly #staleness: Staleness
  readonly #stopping = new AbortController()
  /** Aborts the requests in progress, which may have been lost with the link. */
  #attempt = new AbortController()
  #state: SubscriptionState = 'pending'
  #error: string | undefined
  #refused: SubscriptionStatus['refused']
  #reader: Reader | undefined
  /** Delivery number of the last entry from the reader. */
  #delivery = 0
  #batch!: PendingBatch
  #applying = false
  #running: Promise<void> | undefined

  constructor(options: SubscriberOptions) {
    this.#options = options
    const { source, mesh, applier, clock, requestTimeout, counters, events } = options
    const { timers } = mesh
    const gap = (from: number, to: number, reason: GapReason, isRepaired: boolean) => {
      counters.gaps++
      counters.lost += to - from + 1
      events.gap(source, from, to, reason, isRepaired)
      this.#staleness.report()
    }
    const since = () => options.subscribedSince?.(source)
    const { begun, copies } = options
    this.#staleness = new Staleness({
      source,
      applier,
      timers,
      tombstoneAge: options.tombstoneAge,
      subscribedSince: since,
      isCaughtUp: () => this.#state === 'live',
      onStale: (time) => events.stale(source, time),
    })
    this.#cursor = new Cursor({
      ...{ source, mesh, applier, begun, copies, requestTimeout, since, gap },
      requestedStart: () => options.requestedStart?.(source),
      overdueSince: () => this.#staleness.overdueSince,
    })
    const isReading = () => this.isReading
    this.#copier = new Copier({ ...options, timers, isReading, onChange: () => this.#onCopyChange() })
    this.#lag = new Lag(timers)
    this.#stallDetector = new StallDetector(timers)
    this.#sleep = new WakeableSleep(timers)
    this.#decoder = new EntryDecoder({ source, clock, applier })
    this.#release = new QuarantineRelease({
      ...options,
      timers,
      decoder: this.#decoder,
      onApplied: (transactions, sequence) => events.applied(source, transactions, sequence),
    })
    this.#tableWait = new TableWait({
      ...options,
      sleep: this.#sleep,
      signal: this.#stopping.signal,
      onStalled: (sequence, reason, isNew) =>
        isNew ? this.#stall({ sequence }, reason, 1) : this.#setState('stalled', reason),
    })
    this.#batchApplier = new BatchApplier({
      ...options,
      sleep: this.#sleep,
      signal: this.#stopping.signal,
      maxAttempts: options.maxApplyAttempts,
      checkTable: (isFirst) => this.#tableWait.check(isFirst),
      onStalled: (at, reason, attempts) => this.#stall(at, reason, attempts),
      onProgress: (applied, sequence) => {
        this.#updateState()
        if (applied > 0) events.applied(source, applied, sequence)
      },
      onQuarantined: (sequence, reason) => events.quarantined(source, sequence, reason),
    })
  }

  get source(): RemoteTable {
    return this.#options.source
  }

  /** True when everything that the stream of the source is known to have is applied. */
  get isLive(): boolean {
    const isBehind = this.#lag.isBehind(this.#cursor.checkpoint.sequence)
    return this.#state === 'live' || (this.#state === 'copying' && !isBehind)
  }

  /** See Copier.merge. */
  merge(rows: readonly KeyedRow[]): Promise<void> {
    return this.#copier.merge(rows)
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Copies all rows of the source as soon as it can. */
  requestCopy(reason: CopyReason): void {
    this.#copier.request(reason)
  }

  /** A copy was stored with the checkpoint. */
  onCopyRequested(): void {
    this.#copier.check()
    this.#onCopyChange()
  }

  /** Resolves when reading, copying and applying have ended, or the database has not answered in time. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#staleness.stop()
    this.restart()
    await Promise.all([this.#running, this.#copier.stop()])
    this.#setState('ended')
  }

  status(): SubscriptionStatus {
    const { source, quarantine } = this.#options
    const { sequence: appliedSequence, gaps } = this.#cursor.checkpoint
    const lastSequence = Math.max(this.#lag.lastSequence, appliedSequence)
    const error = this.#error ?? this.#copier.reason
    const staleSince = this.#staleness.since
    return {
      source,
      state: this.#state,
      appliedSequence,
      lastSequence,
      lag: lastSequence - appliedSequence,
      lagSeconds: this.#lag.seconds(appliedSequence),
      gaps: gaps?.count ?? 0,
      lost: gaps?.lost ?? 0,
      quarantined: quarantine.list(source).length,
      ...this.#copier.status(),
      ...(staleSince === undefined ? {} : { staleSince }),
      ...(error ? { error } : {}),
      ...(this.#refused ? { refused: this.#refused } : {}),
    }
  }

  /** False while it waits for its source, or asks it. */
  get isReading(): boolean {
    return this.#reader !== undefined
  }

  /** The mesh or the source's server restarted: aborts the requests in progress and reads again without a delay. */
  restart(): void {
    this.#attempt.abort()
    this.#reader?.close()
    this.#sleep.wake()
    this.#copier.restart()
  }

  /** Ends the wait between two attempts. */
  retryNow(): void {
    this.#sleep.wake()
  }

  /** Restarts on suspicion. The interval between two restarts doubles while there is no progress. */
  restartIfStuck(): void {
    const { sequence } = this.#cursor.checkpoint
    const { allowed, isRepeated } = this.#stallDetector.requestRestart(sequence, this.#lag.isBehind(sequence))
    if (!allowed) return
    if (isRepeated) {
      const { node: peer, database, table } = this.source
      this.#options.logger.warn(
        { peer, database, table, sequence, lastSequence: this.#lag.lastSequence },
        'no messages although the stream has newer ones; recreating the consumer',
      )
    }
    this.restart()
  }

  /** The source reports the position of its stream. Without progress since its previous report, messages were lost on the way. */
  onPeerPosition(epoch: string, last: number): void {
    const { checkpoint } = this.#cursor
    this.#cursor.onPeerPosition(epoch, last)
    const isSameEpoch = checkpoint.epoch === '' || epoch === checkpoint.epoch
    if (isSameEpoch) this.#lag.observeLast(last, checkpoint.sequence)
    const isBehind = !isSameEpoch || last > checkpoint.sequence
    if (this.#stallDetector.onPeerPosition(checkpoint.sequence, isBehind, this.#applying)) this.restartIfStuck()
    else if (isBehind) this.#sleep.wake()
  }

  /** The database does not answer a call for this table; undefined: it has answered. `isOwn`: the call is for this source. */
  onHostSlow(reason: string | undefined, isOwn: boolean): void {
    if (this.#stopped) return
    if (reason !== undefined) {
      if (!this.#batchApplier.reportSlow(reason) && isOwn) this.#setState('stalled', reason)
    } else if (isOwn && this.#state === 'stalled' && !this.#applying) {
      // The call may have been one for the copy.
      if (this.isReading) this.#updateState()
      else this.#setState('pending')
    }
  }

  /** Applies quarantined messages that are valid now: those with these sequences, or all. Rejects as the host and the disk do. */
  replay(sequences?: readonly number[]): Promise<ReplayOutcome> {
    return this.#release.replay(sequences)
  }

  /** See QuarantineRelease.releaseDue. */
  releaseDue(isDue: (message: QuarantinedMessage) => boolean): Promise<void> {
    return this.#release.releaseDue(isDue)
  }

  /** Removes quarantined messages without applying them. Resolves with their sequences. */
  discard(sequences?: readonly number[]): Promise<number[]> {
    return this.#release.discard(sequences)
  }

  /** Quarantines the transaction that the database refuses now. Rejects subscription_not_stalled, and as the host and the disk do. */
  quarantineRefused(): Promise<QuarantinedMessage> {
    return this.#batchApplier.quarantineRefused()
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(RETRY_BACKOFF)
    while (!this.#stopped) {
      try {
        await this.#tableWait.untilUsable(() => this.#cursor.checkpoint.sequence + 1)
        this.#attempt = new AbortController()
        const state = await this.#cursor.resume(this.#attempt.signal)
        await this.#options.quarantine.reconcile(this.source, this.#cursor.checkpoint.quarantined)
        backoff.reset()
        await this.#readUntilLost(state)
      } catch (error) {
        if (this.#stopped) return
        const isLost = error instanceof MeshError && (error.code === 'reader_lost' || error.code === 'aborted')
        const isSlow = error instanceof ClusterError && error.code === 'host_timeout'
        if (!isLost && !(error instanceof TableFaultError))
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

  async #readUntilLost(state: StreamState): Promise<void> {
    const { source, mesh, requestTimeout: timeout, maxBatch, budget, counters } = this.#options
    const options = { timeout, signal: this.#attempt.signal, maxMessages: 2 * maxBatch, budget }
    const { sequence, lastMessageId } = this.#cursor.checkpoint
    // Reads the message at the checkpoint again, to check that its id is still the same.
    const overlaps = lastMessageId !== undefined && sequence >= state.firstSequence
    this.#reader = await mesh.read(source, overlaps ? sequence : sequence + 1, options)
    this.#delivery = 0
    this.#error = undefined
    this.#lag.setLast(sequence)
    this.#lag.observeLast(state.lastSequence, sequence)
    this.#updateState()
    counters.consumerRestarts++
    while (!this.#stopped) {
      const entries = await this.#reader.next()
      this.#applying = true
      try {
        await this.#processEntries(entries, state)
      } finally {
        this.#applying = false
      }
    }
  }

  /**
   * The consumer numbers its deliveries. A jump of that number is a loss on the way: the consumer is created again. A jump of the
   * sequence alone is a hole in the stream: those transactions are gone.
   */
  async #processEntries(entries: Entry[], state: StreamState): Promise<void> {
    const { maxBatch, maxBatchBytes, counters } = this.#options
    const last = entries.at(-1)!.sequence
    this.#lag.observeLast(last, this.#cursor.checkpoint.sequence)
    this.#startBatch()
    for (const entry of entries) {
      if (entry.delivery !== this.#delivery + 1) {
        await this.#flush()
        throw new MeshError('reader_lost', 'messages were lost on the way')
      }
      this.#delivery = entry.delivery
      // Messages of foreign writers have no epoch.
      const epoch = messageEpoch(entry) || this.#batch.position.epoch
      if (this.#batch.position.epoch !== '' && epoch !== this.#batch.position.epoch)
        await this.#enterEpoch(epoch, entry.sequence, last)
      const { sequence, lastMessageId } = this.#batch.position
      if (entry.sequence <= sequence) {
        if (entry.sequence < sequence || lastMessageId === undefined || messageId(entry) === lastMessageId) continue
        await this.#moveCheckpoint(() => this.#cursor.rewind(state))
        throw new MeshError('reader_lost', 'the stream was rewound')
      }
      if (entry.sequence !== sequence + 1)
        await this.#moveCheckpoint(() => this.#cursor.skipHole(entry.sequence, this.#attempt.signal))
      counters.bytes += entry.data.byteLength
      const { transaction, fault } = this.#decoder.decode(entry)
      if (fault !== undefined) {
        await this.#moveCheckpoint(() => {
          const message = { entry, transaction, position: this.#batch.positionBehind(entry, epoch) }
          return this.#batchApplier.quarantine(message, fault)
        })
        continue
      }
      if (this.#batch.bytes === 0) this.#lag.setOldest(entry.time)
      this.#batch.add(transaction, entry, epoch)
      if (this.#batch.length >= maxBatch || this.#batch.bytes >= maxBatchBytes) await this.#flush()
    }
    await this.#flush()
  }

  async #enterEpoch(epoch: string, sequence: number, last: number): Promise<void> {
    await this.#moveCheckpoint(() => this.#cursor.enterEpoch(epoch, sequence, this.#attempt.signal))
    this.#lag.setLast(last)
    // The epoch may begin before the first sequence of this reader.
    if (sequence !== this.#batch.position.sequence + 1) throw new MeshError('reader_lost', 'another epoch began')
  }

  #startBatch(): void {
    this.#batch = new PendingBatch(this.#cursor.checkpoint)
  }

  /** Applies the batch and starts the next one. */
  async #flush(): Promise<void> {
    if (this.#batch.position.sequence > this.#cursor.checkpoint.sequence) await this.#batchApplier.apply(this.#batch)
    this.#startBatch()
  }

  /** Applies the batch, then moves the checkpoint by `move`. */
  async #moveCheckpoint(move: () => Promise<void>): Promise<void> {
    await this.#flush()
    await move()
    this.#startBatch()
  }

  #stall(at: RetriedWork, reason: string, attempts: number): void {
    this.#setState('stalled', reason)
    if (at.id !== undefined) this.#refused = { sequence: at.sequence, id: at.id }
    this.#options.events.stalled(this.source, at, reason, attempts)
  }

  #updateState(): void {
    const { sequence } = this.#cursor.checkpoint
    this.#lag.onApplied(sequence)
    this.#copier.check()
    const state = this.#lag.isBehind(sequence) ? 'catching-up' : 'live'
    this.#setState(this.#copier.isCopying ? 'copying' : state)
  }

  /** `stalled` and `pending` take precedence. */
  #onCopyChange(): void {
    if (!this.#stopped && this.isReading && this.#state !== 'stalled' && this.#state !== 'pending') this.#updateState()
  }

  #setState(state: SubscriptionState, error?: string): void {
    this.#error = error
    this.#refused = undefined
    if (state === this.#state) return
    const previous = this.#state
    this.#state = state
    this.#options.events.state(this.#options.source, state, previous, error)
  }
}
