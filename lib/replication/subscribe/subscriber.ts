// One remote table: its stream read behind the checkpoint, batch by batch into the database, for as long as it is subscribed.

import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../../errors.ts'
import type { GapReason, SubscriptionState } from '../../events/events.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { type Entry, type Mesh, MeshError, type Reader, type StreamState } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import { decode, messageEpoch, messageId } from '../wire.ts'
import type { Applier, Position } from './applier.ts'
import { Cursor } from './cursor.ts'
import type { Quarantine } from './quarantine.ts'

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
  requestTimeout: number
  /** Most transactions, and most bytes of their messages, in one transaction of the database. */
  maxBatch: number
  maxBatchBytes: number
  /** Makes our table if it was dropped; does nothing when it is there. */
  restoreTable(source: RemoteTable): Promise<void>
}

/** What `cluster.subscriptions()` shows of one remote table. */
export type SubscriptionStatus = {
  source: RemoteTable
  state: SubscriptionState
  /** The last sequence applied, and the stream's last as far as we know it. */
  appliedSequence: number
  lastSequence: number
  /** Transactions between the two. */
  lag: number
  /** For how long the oldest of them has been waiting, in seconds; 0 when there are none. */
  lagSeconds: number
  /** Gaps so far, and the transactions in them. */
  gaps: number
  lost: number
  /** Messages in quarantine. */
  quarantined: number
  /** Why nothing is applied at present. */
  error?: string
}

/** Sequences of messages of the quarantine: applied now, and still there. */
export type ReplayOutcome = { applied: number[]; kept: number[] }

const RETRY_DELAY_MS = { min: 50, max: 2_000 }
/** Longest time, in ms, between two attempts to read again on suspicion alone: a large message on a slow link takes its time. */
const MAX_RESTART_INTERVAL_MS = 30_000
/** ms after which a database that does not answer is reported, again and again. */
const SLOW_APPLY_MS = 5_000
/** ms that a manager which closes waits for a database that does not answer. */
const STOP_TIMEOUT_MS = 5_000

/** What was read and is not yet applied; it leads to `position`. */
type PendingBatch = { transactions: RemoteTransaction[]; bytes: number; position: Position }

export class Subscriber {
  readonly #options: SubscriberOptions
  readonly #cursor: Cursor
  readonly #stopping = new AbortController()
  /** Of the requests under way: they may have been lost with the link. */
  #attempt = new AbortController()
  #state: SubscriptionState = 'pending'
  #lastSequence = 0
  /** ms since 1970 of the oldest transaction that we know of and have not applied. */
  #behindSince: number | undefined
  #error: string | undefined
  #reader: Reader | undefined
  /** Number of the entry that the reader delivered last. */
  #delivery = 0
  #applying = false
  /** Where we were at the heartbeat before. */
  #lastAnnouncedAt = -1
  /** When, and where, we read again on suspicion last, and for how many ms we do not do so again there. */
  #lastRestart = { at: 0, sequence: -1, minInterval: 0 }
  #wake: (() => void) | undefined
  #running: Promise<void> | undefined

  constructor(options: SubscriberOptions) {
    this.#options = options
    const { source, mesh, applier, requestTimeout, counters, events } = options
    const gap = (from: number, to: number, reason: GapReason) => {
      counters.gaps++
      counters.lost += to - from + 1
      events.gap(source, from, to, reason)
    }
    this.#cursor = new Cursor({ source, mesh, applier, requestTimeout, gap })
  }

  get source(): RemoteTable {
    return this.#options.source
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Resolves when nothing is read or applied any more; with `waitForHost` however long the database takes. */
  async stop(waitForHost = true): Promise<void> {
    this.#stopping.abort()
    this.#attempt.abort()
    this.#reader?.close()
    this.#wake?.()
    const expiry = new AbortController()
    await Promise.race([
      this.#running,
      ...(waitForHost ? [] : [delay(STOP_TIMEOUT_MS, undefined, { signal: expiry.signal }).catch(() => {})]),
    ])
    expiry.abort()
    this.#setState('ended')
  }

  status(): SubscriptionStatus {
    const { source, quarantine, mesh } = this.#options
    const { sequence: appliedSequence, gaps } = this.#cursor.checkpoint
    const lastSequence = Math.max(this.#lastSequence, appliedSequence)
    const waiting =
      lastSequence > appliedSequence && this.#behindSince !== undefined ? mesh.timers.now() - this.#behindSince : 0
    return {
      source,
      state: this.#state,
      appliedSequence,
      lastSequence,
      lag: lastSequence - appliedSequence,
      lagSeconds: Math.max(0, waiting) / 1_000,
      gaps: gaps?.count ?? 0,
      lost: gaps?.lost ?? 0,
      quarantined: quarantine.list(source).length,
      ...(this.#error ? { error: this.#error } : {}),
    }
  }

  /** The mesh or the other node's server was started anew: what was asked is forgotten, and asked again without waiting any longer. */
  restart(): void {
    this.#attempt.abort()
    this.#reader?.close()
    this.#wake?.()
  }

  /** The same when it only seems so: each time without progress we wait twice as long before we try again. */
  restartIfStuck(): void {
    const { sequence } = this.#cursor.checkpoint
    const { at, minInterval } = sequence === this.#lastRestart.sequence ? this.#lastRestart : { at: 0, minInterval: 0 }
    const now = this.#options.mesh.timers.elapsed()
    if (now - at < minInterval) return
    const isBehind = this.#lastSequence > sequence
    if (isBehind && minInterval > 1_000) {
      const { source, logger } = this.#options
      logger.warn(
        { ...source, sequence, last: this.#lastSequence },
        'nothing arrives of what the stream has, reading again',
      )
    }
    const next = isBehind ? Math.min(Math.max(2 * minInterval, 1_000), MAX_RESTART_INTERVAL_MS) : 1_000
    this.#lastRestart = { at: now, sequence, minInterval: next }
    this.restart()
  }

  /**
   * The other node announced where its stream is. Behind that, without having moved since the announcement before: what was
   * sent to us was lost on the way, and the consumer is made again.
   */
  onPeerPosition(epoch: string, last: number): void {
    const { checkpoint } = this.#cursor
    this.#cursor.onPeerPosition(epoch, last)
    const isSameEpoch = checkpoint.epoch === '' || epoch === checkpoint.epoch
    if (isSameEpoch) this.#observeLast(last)
    const behind = !isSameEpoch || last > checkpoint.sequence
    const stuck = behind && !this.#applying && this.#lastAnnouncedAt === checkpoint.sequence
    this.#lastAnnouncedAt = behind ? checkpoint.sequence : -1
    if (stuck) this.restartIfStuck()
    else if (behind) this.#wake?.()
  }

  /** Applies what can be taken by now of the quarantine: of these sequences, or of all. Rejects as the host and the disk do. */
  async replay(sequences?: readonly number[]): Promise<ReplayOutcome> {
    const { source, applier, quarantine, clock, events } = this.#options
    const outcome: ReplayOutcome = { applied: [], kept: [] }
    for (const message of this.#quarantinedMessages(sequences)) {
      const entry = await quarantine.entry(message)
      const transaction = entry && this.#decodeEntry(entry).transaction
      if (!transaction || !clock.accepts(transaction.timestamp)) {
        outcome.kept.push(message.sequence)
        continue
      }
      const applied = await applier.releaseQuarantined(source, message, transaction, message.id !== undefined)
      await quarantine.remove(message)
      outcome.applied.push(message.sequence)
      if (applied > 0) events.applied(source, applied, message.sequence)
    }
    return outcome
  }

  /** Gives up messages of the quarantine. Resolves with their sequences. */
  async discard(sequences?: readonly number[]): Promise<number[]> {
    const { source, applier, quarantine } = this.#options
    const messages = this.#quarantinedMessages(sequences)
    for (const message of messages) {
      await applier.releaseQuarantined(source, message)
      await quarantine.remove(message)
    }
    return messages.map(({ sequence }) => sequence)
  }

  #quarantinedMessages(sequences?: readonly number[]) {
    const { source, quarantine } = this.#options
    return quarantine.list(source).filter(({ sequence }) => !sequences || sequences.includes(sequence))
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    let wait = RETRY_DELAY_MS.min
    while (!this.#stopped) {
      try {
        this.#attempt = new AbortController()
        const state = await this.#cursor.resume(this.#attempt.signal)
        await this.#options.quarantine.reconcile(this.source, this.#cursor.checkpoint.quarantined)
        wait = RETRY_DELAY_MS.min
        await this.#readUntilLost(state)
      } catch (error) {
        if (this.#stopped) return
        const lost = error instanceof MeshError && (error.code === 'reader_lost' || error.code === 'aborted')
        if (!lost) this.#setState('pending', reasonOf(error))
        await this.#sleep(wait)
        wait = Math.min(wait * 2, RETRY_DELAY_MS.max)
      } finally {
        this.#reader?.close()
        this.#reader = undefined
      }
    }
  }

  /** Until the reader is lost: entries to batches to the database. */
  async #readUntilLost(state: StreamState): Promise<void> {
    const { source, mesh, requestTimeout, maxBatch, counters } = this.#options
    const options = { timeout: requestTimeout, signal: this.#attempt.signal, maxMessages: 2 * maxBatch }
    const { sequence, lastMessageId } = this.#cursor.checkpoint
    // The message at our place is read once more, to see that it is still the one we know.
    const overlaps = lastMessageId !== undefined && sequence >= state.firstSequence
    this.#reader = await mesh.read(source, overlaps ? sequence : sequence + 1, options)
    this.#delivery = 0
    this.#error = undefined
    this.#lastSequence = sequence
    this.#observeLast(state.lastSequence)
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
   * The consumer numbers what it delivers: a jump in that number is a loss on the way, and the consumer is made again. A jump
   * of the sequence alone is a hole in the stream: those transactions are gone.
   */
  async #processEntries(entries: Entry[], state: StreamState): Promise<void> {
    const { maxBatch, maxBatchBytes, counters } = this.#options
    const { signal } = this.#attempt
    this.#observeLast(entries.at(-1)!.sequence)
    let pending = this.#emptyBatch()
    const flush = async () => {
      if (pending.position.sequence > this.#cursor.checkpoint.sequence) await this.#apply(pending)
      pending = this.#emptyBatch()
    }
    /** Moves the checkpoint by other means than a batch. */
    const move = async (move: () => Promise<void>) => {
      await flush()
      await move()
      pending = this.#emptyBatch()
    }
    for (const entry of entries) {
      if (entry.delivery !== this.#delivery + 1) {
        await flush()
        throw new MeshError('reader_lost', 'messages were lost on the way')
      }
      this.#delivery = entry.delivery
      // Foreign messages have none.
      const epoch = messageEpoch(entry) || pending.position.epoch
      if (pending.position.epoch !== '' && epoch !== pending.position.epoch) {
        await move(() => this.#cursor.enterEpoch(epoch, entry.sequence, signal))
        this.#lastSequence = entries.at(-1)!.sequence
        // The new one may begin before what this reader was asked for.
        if (entry.sequence !== pending.position.sequence + 1) throw new MeshError('reader_lost', 'another epoch began')
      }
      const { sequence, lastMessageId } = pending.position
      if (entry.sequence <= sequence) {
        if (entry.sequence < sequence || lastMessageId === undefined || messageId(entry) === lastMessageId) continue
        await move(() => this.#cursor.rewind(state))
        throw new MeshError('reader_lost', 'the stream went back in time')
      }
      if (entry.sequence !== sequence + 1) await move(() => this.#cursor.skipHole(entry.sequence, signal))
      counters.bytes += entry.data.byteLength
      const { transaction, fault } = this.#decodeEntry(entry)
      if (fault !== undefined) {
        await move(() =>
          this.#quarantine(entry, advancePosition({ ...pending.position }, entry, epoch), fault, transaction),
        )
        continue
      }
      // The oldest that is not applied.
      if (pending.bytes === 0) this.#behindSince = entry.time
      pending.transactions.push(transaction)
      pending.bytes += entry.data.byteLength
      advancePosition(pending.position, entry, epoch)
      if (pending.transactions.length >= maxBatch || pending.bytes >= maxBatchBytes) await flush()
    }
    await flush()
  }

  #emptyBatch(): PendingBatch {
    const { applied: _, quarantined: __, gaps: ___, ...position } = this.#cursor.checkpoint
    return { transactions: [], bytes: 0, position }
  }

  /** What an entry says, which our clock has noted then, or why it cannot be taken. */
  #decodeEntry(
    entry: Entry,
  ): { transaction: RemoteTransaction; fault?: undefined } | { transaction?: RemoteTransaction; fault: string } {
    const { source, clock, applier } = this.#options
    try {
      const transaction = decode(source, entry)
      if (clock.merge(transaction.timestamp) || applier.isApplied(source, transaction)) return { transaction }
      // It would win over everything until then.
      const fault = `its stamp ${transaction.timestamp} is too far in the future: one of the two clocks is wrong`
      return { transaction, fault }
    } catch (error) {
      return { fault: reasonOf(error) }
    }
  }

  /** To the quarantine, and on. A full one is waited for: nothing is dropped. */
  #quarantine(entry: Entry, position: Position, fault: string, transaction?: RemoteTransaction): Promise<void> {
    const { source, quarantine, applier, events } = this.#options
    return this.#retryUntilDone(entry.sequence, async () => {
      await quarantine.put(source, position.epoch, entry, fault, transaction?.id)
      const isQuarantined = await applier.quarantine(source, position, transaction)
      if (isQuarantined) events.quarantined(source, entry.sequence, fault)
      else await quarantine.remove({ source, ...position })
    })
  }

  async #apply({ transactions, position }: PendingBatch): Promise<void> {
    const { source, events } = this.#options
    await this.#retryUntilDone(position.sequence, async () => {
      const applied = await this.#cursor.advance(transactions, position)
      this.#updateState()
      if (applied > 0) events.applied(source, applied, position.sequence)
      // A database that works without ever waiting must not keep the connection from being heard.
      await new Promise((resolve) => setImmediate(resolve))
    })
  }

  /** What the host refuses is tried again, without end: nothing is skipped by itself. Rejects when stopped meanwhile. */
  async #retryUntilDone(sequence: number, work: () => Promise<void>): Promise<void> {
    const { source, counters, restoreTable, logger, mesh } = this.#options
    for (let attempts = 1; ; attempts++) {
      const started = mesh.timers.elapsed()
      const cancel = mesh.timers.every(SLOW_APPLY_MS, () => {
        const seconds = Math.round((mesh.timers.elapsed() - started) / 1_000)
        this.#reportStalled(sequence, `the database has not answered for ${seconds} s`, attempts)
      })
      try {
        return await work()
      } catch (error) {
        if (!this.#stopped) this.#reportStalled(sequence, reasonOf(error), attempts)
      } finally {
        cancel()
      }
      counters.retries++
      // Dropped, perhaps, since it was agreed on.
      await restoreTable(source).catch((error) =>
        logger.warn({ ...source, reason: reasonOf(error) }, 'the table could not be made'),
      )
      if (!this.#stopped) await this.#sleep(Math.min(RETRY_DELAY_MS.min * 2 ** (attempts - 1), RETRY_DELAY_MS.max))
      if (this.#stopped) throw new MeshError('aborted', 'the subscription ended')
    }
  }

  #reportStalled(sequence: number, reason: string, attempts: number): void {
    this.#setState('stalled', reason)
    this.#options.events.stalled(this.#options.source, sequence, reason, attempts)
  }

  /** The stream is known to go as far as `last`. */
  #observeLast(last: number): void {
    this.#lastSequence = Math.max(this.#lastSequence, last)
    if (this.#lastSequence > this.#cursor.checkpoint.sequence) this.#behindSince ??= this.#options.mesh.timers.now()
  }

  #updateState(): void {
    const { sequence } = this.#cursor.checkpoint
    this.#lastSequence = Math.max(this.#lastSequence, sequence)
    if (sequence >= this.#lastSequence) this.#behindSince = undefined
    this.#setState(sequence < this.#lastSequence ? 'catching-up' : 'live')
  }

  #setState(state: SubscriptionState, error?: string): void {
    this.#error = error
    if (state === this.#state) return
    const previous = this.#state
    this.#state = state
    this.#options.events.state(this.#options.source, state, previous, error)
  }

  /** At most `ms`, less when nudged or stopped. */
  async #sleep(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#options.mesh.timers.after(ms, resolve)
      this.#wake = () => {
        cancel()
        resolve()
      }
    })
    this.#wake = undefined
  }
}

/** The place, now behind this entry. */
function advancePosition(position: Position, entry: Entry, epoch: string): Position {
  const id = messageId(entry)
  position.epoch = epoch
  position.sequence = entry.sequence
  if (id === '') delete position.lastMessageId
  else position.lastMessageId = id
  return position
}
