// One remote table: its stream read behind the checkpoint, batch by batch into the database, for as long as it is subscribed.

import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../errors.ts'
import type { GapReason, SubscriptionState } from '../events.ts'
import type { RemoteTransaction, Source } from '../host.ts'
import type { Logger } from '../logger.ts'
import { type Entry, type Mesh, MeshError, type Reader, type StreamState } from '../mesh/mesh.ts'
import type { Applier, Place } from './applier.ts'
import type { Clock } from './clock.ts'
import { Cursor } from './cursor.ts'
import type { ReplicationCounters } from './metrics.ts'
import type { Quarantine } from './quarantine.ts'
import { decode, epochOf, idOf } from './wire.ts'

export type SubscriberEvents = {
  state(source: Source, state: SubscriptionState, previous: SubscriptionState, error?: string): void
  applied(source: Source, transactions: number, sequence: number): void
  gap(source: Source, from: number, to: number, reason: GapReason): void
  stalled(source: Source, sequence: number, error: string, attempts: number): void
  quarantined(source: Source, sequence: number, error: string): void
}

export type SubscriberOptions = {
  source: Source
  mesh: Mesh
  applier: Applier
  clock: Clock
  quarantine: Quarantine
  counters: ReplicationCounters
  events: SubscriberEvents
  logger: Logger
  requestTimeout: number
  /** Most transactions, and most bytes of their messages, in one transaction of the database. */
  maxBatch: number
  maxBatchBytes: number
  /** Makes our table if it was dropped; does nothing when it is there. */
  restoreTable(source: Source): Promise<void>
}

/** What `cluster.subscriptions()` shows of one remote table. */
export type SubscriptionStatus = {
  source: Source
  state: SubscriptionState
  /** The last sequence applied, and the stream's last as far as we know it. */
  applied: number
  last: number
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

const RETRY = { first: 50, most: 2_000 }
/** Longest time, in ms, between two attempts to read again on suspicion alone: a large message on a slow link takes its time. */
const MOST_PATIENCE = 30_000
/** ms after which a database that does not answer is reported, again and again. */
const SLOW_APPLY = 5_000
/** ms that a manager which closes waits for a database that does not answer. */
const STOP_TIMEOUT = 5_000

/** What was read and is not yet applied; it leads to `place`. */
type Pending = { transactions: RemoteTransaction[]; bytes: number; place: Place }

export class Subscriber {
  readonly #options: SubscriberOptions
  readonly #cursor: Cursor
  readonly #stopping = new AbortController()
  /** Of the requests under way: they may have been lost with the link. */
  #attempt = new AbortController()
  #state: SubscriptionState = 'pending'
  #last = 0
  /** ms since 1970 of the oldest transaction that we know of and have not applied. */
  #behindSince: number | undefined
  #error: string | undefined
  #reader: Reader | undefined
  /** Number of the entry that the reader delivered last. */
  #delivery = 0
  #applying = false
  /** Where we were at the heartbeat before. */
  #seenAt = -1
  /** When, and where, we read again on suspicion last, and for how many ms we do not do so again there. */
  #suspicion = { at: 0, sequence: -1, patience: 0 }
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

  get source(): Source {
    return this.#options.source
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Resolves when nothing is read or applied any more; with `patient` however long the database takes. */
  async stop(patient = true): Promise<void> {
    this.#stopping.abort()
    this.#attempt.abort()
    this.#reader?.close()
    this.#wake?.()
    const late = new AbortController()
    await Promise.race([
      this.#running,
      ...(patient ? [] : [delay(STOP_TIMEOUT, undefined, { signal: late.signal }).catch(() => {})]),
    ])
    late.abort()
    this.#become('ended')
  }

  status(): SubscriptionStatus {
    const { source, quarantine, mesh } = this.#options
    const { sequence: applied, gaps } = this.#cursor.checkpoint
    const last = Math.max(this.#last, applied)
    const waiting = last > applied && this.#behindSince !== undefined ? mesh.timers.now() - this.#behindSince : 0
    return {
      source,
      state: this.#state,
      applied,
      last,
      lag: last - applied,
      lagSeconds: Math.max(0, waiting) / 1_000,
      gaps: gaps?.count ?? 0,
      lost: gaps?.lost ?? 0,
      quarantined: quarantine.list(source).length,
      ...(this.#error ? { error: this.#error } : {}),
    }
  }

  /** The mesh or the other node's server was started anew: what was asked is forgotten, and asked again without waiting any longer. */
  reread(): void {
    this.#attempt.abort()
    this.#reader?.close()
    this.#wake?.()
  }

  /** The same when it only seems so: each time without progress we wait twice as long before we try again. */
  suspect(): void {
    const { sequence } = this.#cursor.checkpoint
    const { at, patience } = sequence === this.#suspicion.sequence ? this.#suspicion : { at: 0, patience: 0 }
    const now = this.#options.mesh.timers.elapsed()
    if (now - at < patience) return
    const isBehind = this.#last > sequence
    if (isBehind && patience > 1_000) {
      const { source, logger } = this.#options
      logger.warn({ ...source, sequence, last: this.#last }, 'nothing arrives of what the stream has, reading again')
    }
    const next = isBehind ? Math.min(Math.max(2 * patience, 1_000), MOST_PATIENCE) : 1_000
    this.#suspicion = { at: now, sequence, patience: next }
    this.reread()
  }

  /**
   * The other node announced where its stream is. Behind that, without having moved since the announcement before: what was
   * sent to us was lost on the way, and the consumer is made again.
   */
  announced(epoch: string, last: number): void {
    const { checkpoint } = this.#cursor
    this.#cursor.announced(epoch, last)
    const ours = checkpoint.epoch === '' || epoch === checkpoint.epoch
    if (ours) this.#reaches(last)
    const behind = !ours || last > checkpoint.sequence
    const stuck = behind && !this.#applying && this.#seenAt === checkpoint.sequence
    this.#seenAt = behind ? checkpoint.sequence : -1
    if (stuck) this.suspect()
    else if (behind) this.#wake?.()
  }

  /** Applies what can be taken by now of the quarantine: of these sequences, or of all. Rejects as the host and the disk do. */
  async replay(sequences?: readonly number[]): Promise<ReplayOutcome> {
    const { source, applier, quarantine, clock, events } = this.#options
    const outcome: ReplayOutcome = { applied: [], kept: [] }
    for (const message of this.#quarantined(sequences)) {
      const entry = await quarantine.entry(message)
      const transaction = entry && this.#read(entry).transaction
      if (!transaction || !clock.accepts(transaction.stamp)) {
        outcome.kept.push(message.sequence)
        continue
      }
      const applied = await applier.release(source, message, transaction, message.id !== undefined)
      await quarantine.remove(message)
      outcome.applied.push(message.sequence)
      if (applied > 0) events.applied(source, applied, message.sequence)
    }
    return outcome
  }

  /** Gives up messages of the quarantine. Resolves with their sequences. */
  async discard(sequences?: readonly number[]): Promise<number[]> {
    const { source, applier, quarantine } = this.#options
    const messages = this.#quarantined(sequences)
    for (const message of messages) {
      await applier.release(source, message)
      await quarantine.remove(message)
    }
    return messages.map(({ sequence }) => sequence)
  }

  #quarantined(sequences?: readonly number[]) {
    const { source, quarantine } = this.#options
    return quarantine.list(source).filter(({ sequence }) => !sequences || sequences.includes(sequence))
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    let wait = RETRY.first
    while (!this.#stopped) {
      try {
        this.#attempt = new AbortController()
        const state = await this.#cursor.locate(this.#attempt.signal)
        await this.#options.quarantine.reconcile(this.source, this.#cursor.checkpoint.aside)
        wait = RETRY.first
        await this.#readOn(state)
      } catch (error) {
        if (this.#stopped) return
        const lost = error instanceof MeshError && (error.code === 'reader_lost' || error.code === 'aborted')
        if (!lost) this.#become('pending', reasonOf(error))
        await this.#pause(wait)
        wait = Math.min(wait * 2, RETRY.most)
      } finally {
        this.#reader?.close()
        this.#reader = undefined
      }
    }
  }

  /** Until the reader is lost: entries to batches to the database. */
  async #readOn(state: StreamState): Promise<void> {
    const { source, mesh, requestTimeout, maxBatch, counters } = this.#options
    const options = { timeout: requestTimeout, signal: this.#attempt.signal, maxMessages: 2 * maxBatch }
    const { sequence, lastId } = this.#cursor.checkpoint
    // The message at our place is read once more, to see that it is still the one we know.
    const overlaps = lastId !== undefined && sequence >= state.firstSequence
    this.#reader = await mesh.read(source, overlaps ? sequence : sequence + 1, options)
    this.#delivery = 0
    this.#error = undefined
    this.#last = sequence
    this.#reaches(state.lastSequence)
    this.#showProgress()
    counters.rereads++
    while (!this.#stopped) {
      const entries = await this.#reader.next()
      this.#applying = true
      try {
        await this.#take(entries, state)
      } finally {
        this.#applying = false
      }
    }
  }

  /**
   * The consumer numbers what it delivers: a jump in that number is a loss on the way, and the consumer is made again. A jump
   * of the sequence alone is a hole in the stream: those transactions are gone.
   */
  async #take(entries: Entry[], state: StreamState): Promise<void> {
    const { maxBatch, maxBatchBytes, counters } = this.#options
    const { signal } = this.#attempt
    this.#reaches(entries.at(-1)!.sequence)
    let pending = this.#nothingPending()
    const flush = async () => {
      if (pending.place.sequence > this.#cursor.checkpoint.sequence) await this.#apply(pending)
      pending = this.#nothingPending()
    }
    /** Moves the checkpoint by other means than a batch. */
    const move = async (how: () => Promise<void>) => {
      await flush()
      await how()
      pending = this.#nothingPending()
    }
    for (const entry of entries) {
      if (entry.delivery !== this.#delivery + 1) {
        await flush()
        throw new MeshError('reader_lost', 'messages were lost on the way')
      }
      this.#delivery = entry.delivery
      // Foreign messages have none.
      const epoch = epochOf(entry) || pending.place.epoch
      if (pending.place.epoch !== '' && epoch !== pending.place.epoch) {
        await move(() => this.#cursor.cross(epoch, entry.sequence, signal))
        this.#last = entries.at(-1)!.sequence
        // The new one may begin before what this reader was asked for.
        if (entry.sequence !== pending.place.sequence + 1) throw new MeshError('reader_lost', 'another epoch began')
      }
      const { sequence, lastId } = pending.place
      if (entry.sequence <= sequence) {
        if (entry.sequence < sequence || lastId === undefined || idOf(entry) === lastId) continue
        await move(() => this.#cursor.rewind(state))
        throw new MeshError('reader_lost', 'the stream went back in time')
      }
      if (entry.sequence !== sequence + 1) await move(() => this.#cursor.jump(entry.sequence, signal))
      counters.bytes += entry.data.byteLength
      const { transaction, fault } = this.#read(entry)
      if (fault !== undefined) {
        await move(() => this.#setAside(entry, moved({ ...pending.place }, entry, epoch), fault, transaction))
        continue
      }
      // The oldest that is not applied.
      if (pending.bytes === 0) this.#behindSince = entry.time
      pending.transactions.push(transaction)
      pending.bytes += entry.data.byteLength
      moved(pending.place, entry, epoch)
      if (pending.transactions.length >= maxBatch || pending.bytes >= maxBatchBytes) await flush()
    }
    await flush()
  }

  #nothingPending(): Pending {
    const { seen: _, aside: __, gaps: ___, ...place } = this.#cursor.checkpoint
    return { transactions: [], bytes: 0, place }
  }

  /** What an entry says, which our clock has noted then, or why it cannot be taken. */
  #read(
    entry: Entry,
  ): { transaction: RemoteTransaction; fault?: undefined } | { transaction?: RemoteTransaction; fault: string } {
    const { source, clock, applier } = this.#options
    try {
      const transaction = decode(source, entry)
      if (clock.merge(transaction.stamp) || applier.knows(source, transaction)) return { transaction }
      // It would win over everything until then.
      const fault = `its stamp ${transaction.stamp} is too far in the future: one of the two clocks is wrong`
      return { transaction, fault }
    } catch (error) {
      return { fault: reasonOf(error) }
    }
  }

  /** To the quarantine, and on. A full one is waited for: nothing is dropped. */
  #setAside(entry: Entry, place: Place, fault: string, transaction?: RemoteTransaction): Promise<void> {
    const { source, quarantine, applier, events } = this.#options
    return this.#untilDone(entry.sequence, async () => {
      await quarantine.put(source, place.epoch, entry, fault, transaction?.id)
      const isAside = await applier.setAside(source, place, transaction)
      if (isAside) events.quarantined(source, entry.sequence, fault)
      else await quarantine.remove({ source, ...place })
    })
  }

  async #apply({ transactions, place }: Pending): Promise<void> {
    const { source, events } = this.#options
    await this.#untilDone(place.sequence, async () => {
      const applied = await this.#cursor.advance(transactions, place)
      this.#showProgress()
      if (applied > 0) events.applied(source, applied, place.sequence)
      // A database that works without ever waiting must not keep the connection from being heard.
      await new Promise((resolve) => setImmediate(resolve))
    })
  }

  /** What the host refuses is tried again, without end: nothing is skipped by itself. Rejects when stopped meanwhile. */
  async #untilDone(sequence: number, work: () => Promise<void>): Promise<void> {
    const { source, counters, restoreTable, logger, mesh } = this.#options
    for (let attempts = 1; ; attempts++) {
      const started = mesh.timers.elapsed()
      const forget = mesh.timers.every(SLOW_APPLY, () => {
        const seconds = Math.round((mesh.timers.elapsed() - started) / 1_000)
        this.#stalled(sequence, `the database has not answered for ${seconds} s`, attempts)
      })
      try {
        return await work()
      } catch (error) {
        if (!this.#stopped) this.#stalled(sequence, reasonOf(error), attempts)
      } finally {
        forget()
      }
      counters.retries++
      // Dropped, perhaps, since it was agreed on.
      await restoreTable(source).catch((error) =>
        logger.warn({ ...source, reason: reasonOf(error) }, 'the table could not be made'),
      )
      if (!this.#stopped) await this.#pause(Math.min(RETRY.first * 2 ** (attempts - 1), RETRY.most))
      if (this.#stopped) throw new MeshError('aborted', 'the subscription ended')
    }
  }

  #stalled(sequence: number, reason: string, attempts: number): void {
    this.#become('stalled', reason)
    this.#options.events.stalled(this.#options.source, sequence, reason, attempts)
  }

  /** The stream is known to go as far as `last`. */
  #reaches(last: number): void {
    this.#last = Math.max(this.#last, last)
    if (this.#last > this.#cursor.checkpoint.sequence) this.#behindSince ??= this.#options.mesh.timers.now()
  }

  #showProgress(): void {
    const { sequence } = this.#cursor.checkpoint
    this.#last = Math.max(this.#last, sequence)
    if (sequence >= this.#last) this.#behindSince = undefined
    this.#become(sequence < this.#last ? 'catching-up' : 'live')
  }

  #become(state: SubscriptionState, error?: string): void {
    this.#error = error
    if (state === this.#state) return
    const previous = this.#state
    this.#state = state
    this.#options.events.state(this.#options.source, state, previous, error)
  }

  /** At most `ms`, less when nudged or stopped. */
  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const forget = this.#options.mesh.timers.after(ms, resolve)
      this.#wake = () => {
        forget()
        resolve()
      }
    })
    this.#wake = undefined
  }
}

/** The place, now behind this entry. */
function moved(place: Place, entry: Entry, epoch: string): Place {
  const id = idOf(entry)
  place.epoch = epoch
  place.sequence = entry.sequence
  if (id === '') delete place.lastId
  else place.lastId = id
  return place
}
