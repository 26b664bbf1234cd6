// The only writer of one local stream: its queue, the messages in flight, the stored position and the epoch.

import { randomUUID } from 'node:crypto'
import { reasonOf } from '../../errors.ts'
import { MeshError, type StreamState } from '../../mesh/mesh.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { queueMicrotask, setImmediate } from '../../util/timers.ts'
import {
  type EpochRange,
  endEpochs,
  formatStreamMetadata,
  parseStreamMetadata,
  type StreamPosition,
  singleFrom,
  withPurge,
} from '../stream-metadata.ts'
import { frameId } from '../wire/message-ids.ts'
import type { MessagePosition } from '../wire/single-message-encoder.ts'
import { FrameQueue, type StreamPart } from './frame-queue.ts'
import { frameFormat, type MessageAhead } from './message-format.ts'
import { type PurgeOptions, planPurge } from './purge-plan.ts'
import { positionIn, readEnd, type StoredFrame, type StoredPosition } from './stored-frame.ts'
import { StoredTail } from './stored-tail.ts'
import type { StreamEnd, StreamWriterOptions } from './stream-writer-options.ts'
import { TailComparison } from './tail-comparison.ts'

const start: StoredPosition = { epoch: '', sequence: 0, index: 0 }

/**
 * The stream has neither holes nor repeats: each append names the expected last sequence and the id of the frame ahead of it,
 * and the server rejects a frame that does not follow. After any failure `resync` reads the stream's position, and appending
 * continues after it.
 */
export class StreamWriter {
  readonly #options: StreamWriterOptions
  /** Not known to be stored. The entry at offset `i` gets the index `#stored.index + 1 + i`. */
  readonly #queue: FrameQueue
  /** Where the parts begin that were not reported as stored. Epoch '' before the first resync. */
  #stored: StoredPosition = start
  /** Id of the transaction there; '' if it is not known. */
  #storedId = ''
  /** The end of the stream. Beyond `#stored` while the messages in between are compared with the outbox. */
  #end: StreamEnd = start
  /** Id of the last frame that was sent. */
  #sentId = ''
  #storedParts = 0
  #single: number | undefined
  /** In flight alone. */
  #ahead: MessageAhead | undefined
  #ready = false
  /** Acknowledgements of appends before the last interruption are ignored. */
  #generation = 0
  #onAcknowledgement = this.#createAcknowledgementHandler()
  #onDrained: (() => void) | undefined
  #paused = false
  readonly #scheduled = { microtask: false, turn: false }
  readonly #exclusive = new SerialQueue()
  #comparison: TailComparison | undefined
  /** Why the stream does not match the outbox: it continues in a new epoch. */
  #divergence: string | undefined

  constructor(options: StreamWriterOptions) {
    this.#options = options
    this.#queue = new FrameQueue(options.frames)
  }

  /** How many parts of the queue were reported as stored. */
  get storedParts(): number {
    return this.#storedParts
  }

  /** In step with the stream, able to send. */
  get ready(): boolean {
    return this.#ready
  }

  get queued(): number {
    return this.#queue.length
  }

  /** The end of the stream; epoch '' before the first resync. Without index while its last message is gone and not compared yet. */
  get position(): StreamEnd {
    return this.#end
  }

  /** The first message that HarperDB reads; undefined if it reads none, and before the first resync. */
  get single(): number | undefined {
    return this.#single
  }

  push(part: StreamPart): void {
    this.#queue.push(part)
    if (this.#comparison) this.#comparison.wake()
    else if (this.#queue.hasFullFrame) this.#sendQueued()
    else if (this.#queue.mayCutPartial) this.#scheduleSend()
  }

  /** `mayShowMore` may have changed. */
  onOutboxRead(): void {
    this.#comparison?.wake()
  }

  /**
   * Creates the stream if it is missing, reads its position and continues after it. Messages beyond the last acknowledged one are
   * compared with the queue before anything is appended. Never runs during a purge, because both change the description. Rejects as
   * the mesh and the host do.
   */
  resync(): Promise<void> {
    this.#interrupt()
    return this.#runExclusive(() => this.#resync())
  }

  async #resync(): Promise<void> {
    const { mesh, table, node, requestTimeout, format = frameFormat } = this.#options
    const [known] = await Promise.all([this.#knownPosition(), format.prepare()])
    // The description of a new stream names no current epoch: a store that lost a description may create the stream over old messages.
    const ended = { epochs: endEpochs([], known, { sequence: 0 }), purged: [] }
    const state = await mesh.ensureStream(table, formatStreamMetadata(table, ended))
    if (isInconsistent(state)) throw new Error(`the state of stream ${table.database}.${table.table} is inconsistent`)
    const metadata = parseStreamMetadata(state.description)
    const { epochs, purged, unrecorded } = metadata
    const mark = (await this.#options.unrecordedMark?.()) ?? unrecorded
    const isMarked = mark === unrecorded
    const isInFormat = format.isSingle === (metadata.single !== undefined)
    const current = epochs.findLast((each) => each.last === undefined)
    const { index, ...end } = await readEnd({ mesh, source: { node, ...table }, requestTimeout }, state, current, known)
    this.#single = metadata.single
    const isInStep = isMarked && isInFormat && this.#divergence === undefined
    if (isInStep && known && current?.epoch === known.epoch && isWithin(known, state)) {
      this.#resume(known, { epoch: known.epoch, sequence: end.sequence, index })
    } else if (isMarked && isInFormat && current && !known && current.epoch === end.epoch && index !== undefined) {
      await this.#startEpoch({ epoch: current.epoch, sequence: end.sequence, index })
    } else {
      const epoch = newEpoch()
      const before = endEpochs(epochs, known, { ...end, ...(index !== undefined && { index }) })
      // Nobody has read a stream that has no earlier epoch.
      const isUnrecorded = !isMarked && before.length > 0
      const next = { epoch, from: end.sequence + 1, ...(isUnrecorded && { unrecorded: true as const }) }
      this.#single = format.isSingle ? singleFrom(state.description, metadata, next.from) : undefined
      const described = { epochs: [...before, next], purged, unrecorded: mark, single: this.#single }
      await mesh.describeStream(table, formatStreamMetadata(table, described))
      await this.#startEpoch({ epoch, sequence: end.sequence, index: 0 })
      this.#reportDivergence(epochs, known, end.sequence)
    }
    this.#divergence = undefined
    this.#ready = true
    if (this.#isBehind) void this.#compare(state)
  }

  async #knownPosition(): Promise<StoredPosition | undefined> {
    if (this.#stored.epoch !== '') return this.#stored
    const loaded = await this.#options.loadPosition()
    if (!loaded) return undefined
    const { epoch, sequence, index, partial } = loaded
    this.#storedId = loaded.id
    return { epoch, sequence, index, ...(partial && { partial }) }
  }

  #reportDivergence(epochs: EpochRange[], known: StoredPosition | undefined, to: number): void {
    const { diverged } = this.#options
    const { epoch } = this.#stored
    if (this.#divergence !== undefined)
      return diverged?.({ epoch, from: known!.sequence + 1, to, reason: this.#divergence })
    // An epoch without messages may have begun right before a crash. An epoch that the description does not name: the stream is the older one.
    const from = epochs.at(-1)?.from ?? 0
    const isOlder = epochs.some((each) => each.epoch === known?.epoch && each.last !== undefined)
    if (isOlder && from <= to)
      diverged?.({ epoch, from, to, reason: 'the database has the position of an earlier epoch' })
  }

  /**
   * Compares the messages beyond the confirmed position with the queue, and reports those as stored that match. Anything else begins
   * a new epoch: appending a transaction again is harmless, losing one is not.
   */
  async #compare({ firstSequence, lastSequence: to, messages }: StreamState): Promise<void> {
    const generation = this.#generation
    const from = Math.max(this.#stored.sequence + 1, firstSequence)
    const hasHoles = messages < to - firstSequence + 1
    const comparison = new TailComparison({
      tail: new StoredTail(this.#options, { from, to, hasHoles }),
      queue: this.#queue,
      to,
      id: this.#storedId,
      mayShowMore: this.#options.mayShowMore,
      position: () => this.#stored,
      reportStored: (frame, index) => this.#reportStored(frame, index),
      passAhead: this.#options.format?.isSingle ? (frame) => this.#passAhead(frame) : undefined,
    })
    this.#comparison = comparison
    try {
      const reason = await comparison.run()
      if (generation !== this.#generation) return
      this.#comparison = undefined
      this.#divergence = reason
      if (reason === undefined) this.#sendQueued()
      else this.#fail(new MeshError('wrong_sequence', reason))
    } catch (error) {
      if (generation !== this.#generation) return
      this.#fail(error instanceof MeshError ? error : new MeshError('rejected', reasonOf(error)))
    }
  }

  get #isBehind(): boolean {
    return this.#stored.sequence < this.#end.sequence
  }

  /**
   * Continues in an epoch that the stream's description already names. The host stores its position before any message is
   * appended in it: after a crash in between, no message counts as stored that is not.
   */
  async #startEpoch(position: StreamPosition): Promise<void> {
    await this.#options.savePosition(position)
    this.#storedId = ''
    this.#resume(position, position)
  }

  #resume(stored: StoredPosition, end: StreamEnd): void {
    this.#stored = stored
    this.#end = end
  }

  /**
   * Purges between two messages. The description names the purged range before the purge: otherwise a subscriber would report
   * those messages as expired.
   */
  purge(options: PurgeOptions): Promise<void> {
    return this.#runExclusive(async () => {
      const { mesh, table, node, requestTimeout } = this.#options
      const source = { node, ...table }
      const state = await mesh.streamState(source, { timeout: requestTimeout })
      if (!state) return
      const metadata = parseStreamMetadata(state.description)
      const { before, ranges } = await planPurge({ mesh, source, requestTimeout }, state, metadata.epochs, options)
      if (ranges.length === 0) return
      await mesh.describeStream(table, formatStreamMetadata(table, ranges.reduce(withPurge, metadata)))
      await mesh.purgeStream(table, { before })
      // The comparison may wait for a message that was purged.
      if (this.#isBehind) this.#fail(new MeshError('reader_lost', 'the stream was purged'))
    })
  }

  /**
   * Removes the messages before `before`, which every subscriber has applied: while others are in flight, and without a purged range in the
   * description. Does nothing in another epoch, whose messages have other numbers.
   */
  trim({ epoch, before }: { epoch: string; before: number }): Promise<void> {
    return this.#exclusive.run(async () => {
      const isInStep = this.#ready && !this.#isBehind && this.#stored.epoch === epoch
      if (isInStep) await this.#options.mesh.purgeStream(this.#options.table, { before })
    })
  }

  /** Runs `work` with nothing in flight, one call at a time. */
  #runExclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#exclusive.run(async () => {
      this.#paused = true
      try {
        if (this.#queue.framesInFlight > 0)
          await new Promise<void>((resolve) => {
            this.#onDrained = resolve
          })
        return await work()
      } finally {
        this.#paused = false
        this.#sendQueued()
      }
    })
  }

  /**
   * A lone transaction leaves at once. What is pushed in the same turn of the event loop leaves together with it, or behind it if a frame
   * is in flight already.
   */
  #scheduleSend(): void {
    const isIdle = this.#queue.framesInFlight === 0
    const kind = isIdle ? 'microtask' : 'turn'
    if (this.#scheduled[kind]) return
    this.#scheduled[kind] = true
    const send = () => {
      this.#scheduled[kind] = false
      this.#sendQueued()
    }
    if (isIdle) queueMicrotask(send)
    else setImmediate(send)
  }

  #sendQueued(): void {
    const { mesh, table, node, format = frameFormat } = this.#options
    // While messages are compared, it is not known which part is next.
    if (!this.#ready || this.#paused || this.#isBehind) return
    const { epoch, sequence, index } = this.#stored
    for (;;) {
      const ahead = this.#queue.framesInFlight
      const position = { node, epoch, first: index + this.#queue.partsInFlight + 1 }
      if (format.isSingle && ahead === 0 && this.#sendAhead(position)) return
      const parts = this.#queue.cut()
      if (!parts) return
      // Without the id, a foreign message at that sequence would pass for the frame in flight.
      const expected = ahead > 0 ? { sequence: sequence + ahead, id: this.#sentId } : { sequence }
      this.#sentId = frameId(epoch, position.first, parts.length)
      const message = format.encode(position, parts)
      mesh.append(table, message, format.isSingle ? undefined : expected, this.#onAcknowledgement)
    }
  }

  /** Sends what has to be stored before the next part, if there is something. Only with nothing in flight. */
  #sendAhead(position: MessagePosition): boolean {
    const { mesh, table, format = frameFormat } = this.#options
    const next = this.#queue.at(0)
    this.#ahead = next && format.aheadOf(position, next.data)
    if (!this.#ahead) return false
    this.#queue.sendOther()
    mesh.append(table, this.#ahead.message, undefined, this.#onAcknowledgement)
    return true
  }

  /** For appends of the current generation only. */
  #createAcknowledgementHandler(): (error: MeshError | undefined, sequence: number) => void {
    const generation = this.#generation
    return (error, sequence) => {
      if (generation !== this.#generation) return
      const { epoch, index } = this.#stored
      if (error || sequence !== this.#stored.sequence + 1) return this.#fail(error)
      const sentAhead = this.#ahead
      this.#ahead = undefined
      const last = index + (sentAhead ? 1 : 0) + this.#queue.acknowledge()
      this.#end = { epoch, sequence, index: last }
      if (sentAhead) {
        sentAhead.stored()
        this.#passAhead({ epoch, sequence, last })
      } else this.#reportStored({ epoch, sequence, last }, last)
      if (this.#queue.framesInFlight === 0) this.#notifyDrained()
      this.#sendQueued()
    }
  }

  /** The stream has the parts of the queue up to `index`, which lies in this frame. */
  #reportStored(frame: StoredFrame, index: number): void {
    const { index: before } = this.#stored
    this.#stored = positionIn(frame, index)
    for (let next = before + 1; next <= index; next++) {
      const part = this.#queue.shift()
      if (next === index) this.#storedId = part.id
      this.#storedParts++
      part.stored(frame, next)
    }
    if (index === frame.last) this.#options.onGrowth?.()
  }

  /** The stream has a message that is no transaction of the outbox. */
  #passAhead(frame: StoredFrame): void {
    this.#stored = positionIn(frame, frame.last)
    this.#storedId = frameId(frame.epoch, frame.last, 1)
    this.#options.onGrowth?.()
  }

  #fail(error: MeshError | undefined): void {
    this.#interrupt()
    this.#options.interrupted(error ?? new MeshError('wrong_sequence', 'acknowledged out of order'))
  }

  #interrupt(): void {
    this.#ready = false
    this.#generation++
    this.#onAcknowledgement = this.#createAcknowledgementHandler()
    this.#queue.reset()
    this.#ahead = undefined
    this.#comparison?.cancel()
    this.#comparison = undefined
    this.#notifyDrained()
  }

  #notifyDrained(): void {
    this.#onDrained?.()
    this.#onDrained = undefined
  }
}

const newEpoch = () => randomUUID().replaceAll('-', '').slice(0, 16)

/** After store errors nats-server 2.10 reports more messages than its sequences allow. */
const isInconsistent = ({ messages, firstSequence, lastSequence }: StreamState) =>
  messages > Math.max(0, lastSequence - firstSequence + 1)

/** The stream has the message of this position; whether its transactions are the same ones is not known. */
const isWithin = ({ sequence, partial }: StoredPosition, { lastSequence }: StreamState) =>
  lastSequence >= sequence + (partial ? 1 : 0)
