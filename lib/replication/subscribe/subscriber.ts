// Replicates one remote table: reads its stream from the checkpoint on and applies it to the database in batches.

import { ClusterError, reasonOf } from '../../errors.ts'
import type { GapReason, SubscriptionState } from '../../events/events.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { type Entry, type Mesh, MeshError, type Reader, type StreamState } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import { Backoff } from '../../util/backoff.ts'
import { messageEpoch, messageId } from '../wire.ts'
import type { Applier, Position } from './applier.ts'
import { ApplyRetry } from './apply-retry.ts'
import { Cursor } from './cursor.ts'
import { EntryDecoder } from './entry-decoder.ts'
import { Lag } from './lag.ts'
import { PendingBatch } from './pending-batch.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'
import { QuarantineRelease, type ReplayOutcome } from './quarantine-release.ts'
import { StallDetector } from './stall-detector.ts'
import { WakeableSleep } from './wakeable-sleep.ts'

export type { ReplayOutcome } from './quarantine-release.ts'

export type SubscriberEvents = {
  state(source: RemoteTable, state: SubscriptionState, previous: SubscriptionState, error?: string): void
  applied(source: RemoteTable, transactions: number, sequence: number): void
  gap(source: RemoteTable, from: number, to: number, reason: GapReason): void
  stalled(source: RemoteTable, sequence: number, error: string, attempts: number): void
  quarantined(source: RemoteTable, sequence: number, error: string): void
}

export type SubscriberOptions = {
  source: RemoteTable
  mesh: Mesh
  applier: Applier
  clock: HybridClock
  quarantine: Quarantine
  counters: ReplicationCounters
  events: SubscriberEvents
  logger: Logger
  /** ms for each request to the source. */
  requestTimeout: number
  /** Maximum number of transactions, and of bytes of their messages, in one transaction of the database. */
  maxBatch: number
  maxBatchBytes: number
  /** Creates the local table if it was dropped; has no effect when it exists. */
  restoreTable(source: RemoteTable): Promise<void>
}

/** What `cluster.subscriptions()` shows of one remote table. */
export type SubscriptionStatus = {
  source: RemoteTable
  state: SubscriptionState
  /** The last applied sequence, and the last known sequence of the stream. */
  appliedSequence: number
  lastSequence: number
  /** Number of transactions between the two. */
  lag: number
  /** Seconds for which the oldest of them has been waiting; 0 when all are applied. */
  lagSeconds: number
  /** Number of gaps, and of transactions in them. */
  gaps: number
  lost: number
  /** Number of messages in quarantine. */
  quarantined: number
  /** Why the subscription makes no progress now. */
  error?: string
}

/** ms. */
const RETRY_BACKOFF = { first: 50, max: 2_000 }

export class Subscriber {
  readonly #options: SubscriberOptions
  readonly #cursor: Cursor
  readonly #decoder: EntryDecoder
  readonly #release: QuarantineRelease
  readonly #retry: ApplyRetry
  readonly #sleep: WakeableSleep
  readonly #lag: Lag
  readonly #stallDetector: StallDetector
  readonly #stopping = new AbortController()
  /** Aborts the requests in progress, which may have been lost with the link. */
  #attempt = new AbortController()
  #state: SubscriptionState = 'pending'
  #error: string | undefined
  #reader: Reader | undefined
  /** Delivery number of the last entry from the reader. */
  #delivery = 0
  #batch!: PendingBatch
  #applying = false
  #releasing = false
  #running: Promise<void> | undefined

  constructor(options: SubscriberOptions) {
    this.#options = options
    const { source, mesh, applier, clock, quarantine, requestTimeout, counters, events } = options
    const { timers } = mesh
    const gap = (from: number, to: number, reason: GapReason) => {
      counters.gaps++
      counters.lost += to - from + 1
      events.gap(source, from, to, reason)
    }
    this.#cursor = new Cursor({ source, mesh, applier, requestTimeout, gap })
    this.#lag = new Lag(timers)
    this.#stallDetector = new StallDetector(timers)
    this.#sleep = new WakeableSleep(timers)
    this.#decoder = new EntryDecoder({ source, clock, applier })
    this.#release = new QuarantineRelease({
      source,
      quarantine,
      applier,
      clock,
      decoder: this.#decoder,
      onApplied: (transactions, sequence) => events.applied(source, transactions, sequence),
    })
    this.#retry = new ApplyRetry({
      ...options,
      timers,
      sleep: this.#sleep,
      signal: this.#stopping.signal,
      onStalled: (sequence, reason, attempts) => {
        this.#setState('stalled', reason)
        events.stalled(source, sequence, reason, attempts)
      },
    })
  }

  get source(): RemoteTable {
    return this.#options.source
  }

  /** True when everything that the source is known to have is applied. */
  get isLive(): boolean {
    return this.#state === 'live'
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Resolves when reading and applying have ended, or the database has not answered in time. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.restart()
    await this.#running
    this.#setState('ended')
  }

  status(): SubscriptionStatus {
    const { source, quarantine } = this.#options
    const { sequence: appliedSequence, gaps } = this.#cursor.checkpoint
    const lastSequence = Math.max(this.#lag.lastSequence, appliedSequence)
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
      ...(this.#error ? { error: this.#error } : {}),
    }
  }

  /** The mesh or the source's server restarted: aborts the requests in progress and reads again without a delay. */
  restart(): void {
    this.#attempt.abort()
    this.#reader?.close()
    this.#sleep.wake()
  }

  /** Restarts on suspicion. The interval between two restarts doubles while there is no progress. */
  restartIfStuck(): void {
    const { sequence } = this.#cursor.checkpoint
    const { allowed, isRepeated } = this.#stallDetector.requestRestart(sequence, this.#lag.isBehind(sequence))
    if (!allowed) return
    if (isRepeated)
      this.#options.logger.warn(
        { ...this.source, sequence, lastSequence: this.#lag.lastSequence },
        'no messages although the stream has newer ones; recreating the consumer',
      )
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
      if (!this.#retry.reportSlow(reason) && isOwn) this.#setState('stalled', reason)
    } else if (isOwn && this.#state === 'stalled' && !this.#applying) this.#setState('pending')
  }

  /** Applies quarantined messages that are valid now: those with these sequences, or all. Rejects as the host and the disk do. */
  replay(sequences?: readonly number[]): Promise<ReplayOutcome> {
    return this.#release.replay(sequences)
  }

  /**
   * Ends the quarantine of messages whose timestamp the local clock has reached, or that their origin voided. Called
   * while this subscription is live: a transaction that voids them is then read already.
   */
  async releaseDue(isDue: (message: QuarantinedMessage) => boolean): Promise<void> {
    if (this.#releasing || this.#stopped) return
    this.#releasing = true
    const { logger } = this.#options
    try {
      const { applied, voided } = await this.#release.replayWhere(isDue)
      if (applied.length + voided.length > 0)
        logger.info({ ...this.source, applied: applied.length, voided: voided.length }, 'quarantine released')
    } catch (error) {
      logger.warn({ ...this.source, reason: reasonOf(error) }, 'quarantine not released, retrying')
    } finally {
      this.#releasing = false
    }
  }

  /** Removes quarantined messages without applying them. Resolves with their sequences. */
  discard(sequences?: readonly number[]): Promise<number[]> {
    return this.#release.discard(sequences)
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(RETRY_BACKOFF)
    while (!this.#stopped) {
      try {
        this.#attempt = new AbortController()
        const state = await this.#cursor.resume(this.#attempt.signal)
        await this.#options.quarantine.reconcile(this.source, this.#cursor.checkpoint.quarantined)
        backoff.reset()
        await this.#readUntilLost(state)
      } catch (error) {
        if (this.#stopped) return
        const isLost = error instanceof MeshError && (error.code === 'reader_lost' || error.code === 'aborted')
        const isSlow = error instanceof ClusterError && error.code === 'host_timeout'
        if (!isLost) this.#setState(isSlow ? 'stalled' : 'pending', reasonOf(error))
        await this.#sleep.sleep(backoff.next())
      } finally {
        this.#reader?.close()
        this.#reader = undefined
      }
    }
  }

  async #readUntilLost(state: StreamState): Promise<void> {
    const { source, mesh, requestTimeout, maxBatch, counters } = this.#options
    const options = { timeout: requestTimeout, signal: this.#attempt.signal, maxMessages: 2 * maxBatch }
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
        await this.#quarantine(entry, epoch, fault, transaction)
        continue
      }
      if (this.#batch.bytes === 0) this.#lag.setOldest(entry.time)
      this.#batch.add(transaction, entry, epoch)
      if (this.#batch.transactions.length >= maxBatch || this.#batch.bytes >= maxBatchBytes) await this.#flush()
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
    if (this.#batch.position.sequence > this.#cursor.checkpoint.sequence) await this.#apply(this.#batch)
    this.#startBatch()
  }

  /** Applies the batch, then moves the checkpoint by `move`. */
  async #moveCheckpoint(move: () => Promise<void>): Promise<void> {
    await this.#flush()
    await move()
    this.#startBatch()
  }

  /** Moves a message to quarantine and continues with the next one. Waits while the quarantine is full: no message is dropped. */
  #quarantine(entry: Entry, epoch: string, fault: string, transaction?: RemoteTransaction): Promise<void> {
    const { source, quarantine, applier, events } = this.#options
    return this.#moveCheckpoint(() => {
      const position: Position = this.#batch.positionBehind(entry, epoch)
      return this.#retry.run(entry.sequence, async () => {
        await quarantine.put(source, epoch, entry, fault, transaction?.id, transaction)
        const isQuarantined = await applier.quarantine(source, position, transaction)
        if (isQuarantined) events.quarantined(source, entry.sequence, fault)
        else await quarantine.remove({ source, ...position })
      })
    })
  }

  async #apply({ transactions, position }: PendingBatch): Promise<void> {
    const { source, events } = this.#options
    await this.#retry.run(position.sequence, async () => {
      const applied = await this.#cursor.advance(transactions, position)
      this.#updateState()
      if (applied > 0) events.applied(source, applied, position.sequence)
      // A host that never waits would keep the process from reading its connections.
      await new Promise((resolve) => setImmediate(resolve))
    })
  }

  #updateState(): void {
    const { sequence } = this.#cursor.checkpoint
    this.#lag.onApplied(sequence)
    this.#setState(this.#lag.isBehind(sequence) ? 'catching-up' : 'live')
  }

  #setState(state: SubscriptionState, error?: string): void {
    this.#error = error
    if (state === this.#state) return
    const previous = this.#state
    this.#state = state
    this.#options.events.state(this.#options.source, state, previous, error)
  }
}
