// One remote table: its stream read behind the checkpoint, batch by batch into the database, for as long as it is subscribed.

import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../errors.ts'
import type { GapReason, SubscriptionState } from '../events.ts'
import type { Checkpoint, RemoteTransaction, Source } from '../host.ts'
import type { Logger } from '../logger.ts'
import { type Entry, type Mesh, MeshError, type Reader, type StreamState } from '../mesh/mesh.ts'
import type { Applier } from './applier.ts'
import type { Clock } from './clock.ts'
import { epochBehind, type Incarnation, type Label, parseLabel } from './incarnations.ts'
import { decode, epochOf } from './wire.ts'

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
  events: SubscriberEvents
  logger: Logger
  requestTimeout: number
  /** Most transactions, and most bytes of their messages, in one transaction of the database. */
  maxBatch: number
  maxBatchBytes: number
}

/** What `cluster.subscriptions()` shows of one remote table. */
export type SubscriptionStatus = {
  source: Source
  state: SubscriptionState
  /** The last sequence applied, and the stream's last as far as we know it. */
  applied: number
  last: number
  gaps: number
  quarantined: number
  error?: string
}

const RETRY = { first: 50, most: 2_000 }

export class Subscriber {
  readonly #options: SubscriberOptions
  readonly #stopping = new AbortController()
  /** Of the requests under way: they may have been lost with the link. */
  #attempt = new AbortController()
  #state: SubscriptionState = 'pending'
  #checkpoint: Checkpoint = { epoch: '', sequence: 0 }
  #last = 0
  #gaps = 0
  #quarantined = 0
  #error: string | undefined
  #reader: Reader | undefined
  /** Number of the entry that the reader delivered last. */
  #delivery = 0
  #applying = false
  /** Where we were at the heartbeat before. */
  #seenAt = -1
  #wake: (() => void) | undefined
  #running: Promise<void> | undefined

  constructor(options: SubscriberOptions) {
    this.#options = options
  }

  get source(): Source {
    return this.#options.source
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Resolves when nothing is read or applied any more. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#attempt.abort()
    this.#reader?.close()
    this.#wake?.()
    await this.#running
    this.#become('ended')
  }

  status(): SubscriptionStatus {
    return {
      source: this.#options.source,
      state: this.#state,
      applied: this.#checkpoint.sequence,
      last: Math.max(this.#last, this.#checkpoint.sequence),
      gaps: this.#gaps,
      quarantined: this.#quarantined,
      ...(this.#error ? { error: this.#error } : {}),
    }
  }

  /** The mesh or the other node is back: ask anew, without waiting any longer. */
  reread(): void {
    this.#attempt.abort()
    this.#reader?.close()
    this.#wake?.()
  }

  /**
   * The other node announced where its stream is. Behind that, without having moved since the announcement before: what was
   * sent to us was lost on the way, and the consumer is made again.
   */
  announced(epoch: string, last: number): void {
    const ours = this.#checkpoint.epoch === '' || epoch === this.#checkpoint.epoch
    if (ours) this.#last = Math.max(this.#last, last)
    const behind = !ours || last > this.#checkpoint.sequence
    const stuck = behind && !this.#applying && this.#seenAt === this.#checkpoint.sequence
    this.#seenAt = behind ? this.#checkpoint.sequence : -1
    if (stuck) this.reread()
    else if (behind) this.#wake?.()
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    let wait = RETRY.first
    while (!this.#stopped) {
      try {
        this.#attempt = new AbortController()
        await this.#position()
        wait = RETRY.first
        await this.#read()
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

  /** Compares the checkpoint with what the stream says of itself, and moves it over what is gone. */
  async #position(): Promise<void> {
    const { source, mesh, applier, requestTimeout } = this.#options
    const known = await applier.recall(source)
    const state = await mesh.streamState(source, { timeout: requestTimeout, signal: this.#attempt.signal })
    if (!state) throw new MeshError('not_found', `${source.node} has no stream of this table yet`)
    this.#checkpoint = known ?? (await startAtEnd(applier, source, state))
    this.#last = state.lastSequence
    const label = parseLabel(state.description)
    await this.#enter(label, (next) => this.#checkpoint.sequence < next.from - 1)
    const { sequence } = this.#checkpoint
    if (sequence > state.lastSequence) await this.#rewind(label, state)
    else if (state.firstSequence > sequence + 1) await this.#skip(state.firstSequence - 1, 'purged')
  }

  /**
   * Goes from incarnation to incarnation of the stream, up to the last of `label` or until `stop` says that what the stream
   * still holds of the one we are in is to be read first. What was acknowledged in one that is over and is not there any more
   * is a gap.
   */
  async #enter(label: Label, stop: (next: Incarnation) => boolean): Promise<void> {
    while (this.#checkpoint.epoch !== '' && label.length > 0 && this.#checkpoint.epoch !== label.at(-1)!.epoch) {
      const { epoch, sequence } = this.#checkpoint
      const index = label.findIndex((each) => each.epoch === epoch)
      // One that began at 0 is told of only because its stream is gone.
      const next = label[index + 1]!.from > 0 ? label[index + 1]! : label[index + 2]!
      if (index >= 0 && stop(next)) return
      // Of an incarnation that nobody tells of any more, at least the next one is lost.
      const lost = index >= 0 ? (label[index]!.last ?? sequence) : sequence + 1
      await this.#begin(next.epoch, next.from - 1, lost)
    }
  }

  /** Fewer messages than we applied, and no new incarnation. */
  async #rewind(label: Label, state: StreamState): Promise<void> {
    if (label.length > 0)
      throw new MeshError(
        'not_found',
        'the stream is behind what was applied; its node is expected to begin a new epoch',
      )
    const { sequence } = this.#checkpoint
    await this.#store({ ...this.#checkpoint, sequence: state.firstSequence - 1 })
    this.#gap(sequence + 1, sequence + 1, 'rewound')
  }

  /** Goes on in `epoch` behind `sequence`; `lostUpTo` is the last of the epoch before, which we shall not see. */
  async #begin(epoch: string, sequence: number, lostUpTo: number): Promise<void> {
    const gap = { from: this.#checkpoint.sequence + 1, to: lostUpTo }
    await this.#store({ ...this.#checkpoint, epoch, sequence })
    this.#last = sequence
    if (gap.to >= gap.from) this.#gap(gap.from, gap.to, 'recreated')
  }

  async #skip(to: number, reason: GapReason): Promise<void> {
    const from = this.#checkpoint.sequence + 1
    await this.#store({ ...this.#checkpoint, sequence: to })
    this.#gap(from, to, reason)
  }

  #gap(from: number, to: number, reason: GapReason): void {
    this.#gaps++
    this.#options.events.gap(this.#options.source, from, to, reason)
  }

  async #store(position: Checkpoint, transactions: RemoteTransaction[] = []): Promise<number> {
    const [checkpoint, applied] = await this.#options.applier.apply(this.#options.source, transactions, position)
    this.#checkpoint = checkpoint
    return applied
  }

  /** Until the reader is lost: entries to batches to the database. */
  async #read(): Promise<void> {
    const { source, mesh, requestTimeout, maxBatch } = this.#options
    const options = { timeout: requestTimeout, signal: this.#attempt.signal, maxMessages: 2 * maxBatch }
    this.#reader = await mesh.read(source, this.#checkpoint.sequence + 1, options)
    this.#delivery = 0
    this.#error = undefined
    this.#showProgress()
    while (!this.#stopped) {
      const entries = await this.#reader.next()
      this.#applying = true
      try {
        await this.#take(entries)
      } finally {
        this.#applying = false
      }
    }
  }

  /**
   * The consumer numbers what it delivers: a jump in that number is a loss on the way, and the consumer is made again. A jump
   * of the sequence alone is a hole in the stream: those transactions are gone.
   */
  async #take(entries: Entry[]): Promise<void> {
    const { maxBatch, maxBatchBytes, clock } = this.#options
    let batch: RemoteTransaction[] = []
    let bytes = 0
    let { epoch, sequence, lastId } = this.#checkpoint
    const flush = async () => {
      if (sequence > this.#checkpoint.sequence)
        await this.#apply(batch, { ...this.#checkpoint, epoch, sequence, ...(lastId ? { lastId } : {}) })
      batch = []
      bytes = 0
    }
    /** Moves the checkpoint by other means than a batch. */
    const move = async (how: () => Promise<void>) => {
      await flush()
      await how()
      ;({ epoch, sequence, lastId } = this.#checkpoint)
    }
    for (const entry of entries) {
      if (entry.delivery !== this.#delivery + 1) {
        await flush()
        throw new MeshError('reader_lost', 'messages were lost on the way')
      }
      this.#delivery = entry.delivery
      // Foreign messages have none.
      const stored = epochOf(entry) || epoch
      if (epoch === '') epoch = stored
      if (stored !== epoch) await move(() => this.#cross(stored, entry.sequence))
      if (entry.sequence <= sequence) continue
      if (entry.sequence !== sequence + 1) await move(() => this.#skip(entry.sequence - 1, 'purged'))
      const transaction = this.#decode(entry)
      if (transaction && !clock.accepts(transaction.stamp)) {
        await flush()
        await this.#awaitClock(transaction)
      }
      if (transaction) {
        clock.merge(transaction.stamp)
        batch.push(transaction)
        lastId = transaction.id
      }
      sequence = entry.sequence
      bytes += entry.data.byteLength
      if (batch.length >= maxBatch || bytes >= maxBatchBytes) await flush()
    }
    await flush()
  }

  /** A message of another epoch: the stream's description says where it began and what of the last one is lost. */
  async #cross(epoch: string, sequence: number): Promise<void> {
    const { source, mesh, requestTimeout } = this.#options
    const state = await mesh.streamState(source, { timeout: requestTimeout, signal: this.#attempt.signal })
    const label = parseLabel(state?.description ?? '')
    const known = label.slice(0, label.findIndex((each) => each.epoch === epoch) + 1)
    await this.#enter(known, () => false)
    if (this.#checkpoint.epoch !== epoch) await this.#begin(epoch, sequence - 1, this.#checkpoint.sequence + 1)
  }

  #decode(entry: Entry): RemoteTransaction | undefined {
    const { source, events } = this.#options
    try {
      return decode(source, entry)
    } catch (error) {
      this.#quarantined++
      events.quarantined(source, entry.sequence, reasonOf(error))
      return undefined
    }
  }

  /** A stamp that is too far in the future would win over everything until then: nothing is taken before our clock agrees. */
  async #awaitClock({ stamp, sequence }: RemoteTransaction): Promise<void> {
    for (let attempts = 1; !this.#options.clock.accepts(stamp); attempts++)
      await this.#stall(
        sequence,
        `its stamp ${stamp} is too far in the future: one of the two clocks is wrong`,
        attempts,
      )
  }

  /** What the host refuses is tried again, without end: nothing is skipped by itself. */
  async #apply(transactions: RemoteTransaction[], position: Checkpoint): Promise<void> {
    const { source, events } = this.#options
    for (let attempts = 1; ; attempts++) {
      try {
        const applied = await this.#store(position, transactions)
        this.#showProgress()
        if (applied > 0) events.applied(source, applied, position.sequence)
        // A database that works without ever waiting must not keep the connection from being heard.
        await new Promise((resolve) => setImmediate(resolve))
        return
      } catch (error) {
        await this.#stall(position.sequence, reasonOf(error), attempts)
      }
    }
  }

  /** Says so and waits, longer each time; rejects when stopped meanwhile. */
  async #stall(sequence: number, reason: string, attempts: number): Promise<void> {
    if (!this.#stopped) {
      this.#become('stalled', reason)
      this.#options.events.stalled(this.#options.source, sequence, reason, attempts)
      await this.#pause(Math.min(RETRY.first * 2 ** (attempts - 1), RETRY.most))
    }
    if (this.#stopped) throw new MeshError('aborted', 'the subscription ended')
  }

  #showProgress(): void {
    this.#last = Math.max(this.#last, this.#checkpoint.sequence)
    this.#become(this.#checkpoint.sequence < this.#last ? 'catching-up' : 'live')
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
    const woken = new AbortController()
    this.#wake = () => woken.abort()
    await delay(ms, undefined, { signal: woken.signal }).catch(() => {})
    this.#wake = undefined
  }
}

/** A subscription that nobody agreed on a start for begins at the end of the stream. */
async function startAtEnd(applier: Applier, source: Source, state: StreamState): Promise<Checkpoint> {
  const sequence = state.lastSequence
  const epoch = epochBehind(parseLabel(state.description), sequence)
  return (await applier.apply(source, [], { epoch, sequence }))[0]
}
