// The only writer of one local stream: its queue, the messages in flight, the stored position and the epoch.

import { randomUUID } from 'node:crypto'
import type { PublishedPosition } from '../../host/host.ts'
import { type Headers, type Mesh, MeshError, type StreamState, type TableName } from '../../mesh/mesh.ts'
import { Fifo } from '../../util/fifo.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { type EpochRange, endEpochs, formatStreamMetadata, parseStreamMetadata, withPurge } from '../stream-metadata.ts'
import { type StoredMessage, StoredTail } from './stored-tail.ts'

/** One table's part of a transaction. */
export type StreamPart = {
  id: string
  data: Uint8Array
  headers(epoch: string): Headers
  /** Called once, when the stream has stored it. */
  stored(position: StreamPosition): void
}
export type StreamPosition = { epoch: string; sequence: number }

/**
 * The stream has, or had, the messages `from` to `to` of its epoch, and the outbox does not prove that they are its own: the database
 * is older than the stream, or they were deleted before they were confirmed. `epoch` is the new epoch.
 */
export type Divergence = { epoch: string; from: number; to: number; reason: string }

export type StreamWriterOptions = {
  table: TableName
  /** Name of the local node. */
  node: string
  mesh: Mesh
  /** ms for each request. */
  requestTimeout: number
  /** Maximum number of messages in flight. */
  window: number
  /** The position that the host stored for this table; undefined when it stored none. */
  loadPosition(): Promise<PublishedPosition | undefined>
  /** The mark of transactions that are in no stream: while it is not in the description, a new epoch begins. */
  unrecordedMark?(): Promise<string | undefined>
  /** Stores where an epoch begins, before any message is appended in it. */
  savePosition(position: StreamPosition): Promise<void>
  /**
   * False when everything is queued that an earlier process may have appended. `queued`: the number of queued parts; the outbox may
   * show no more before some of them are stored.
   */
  mayShowMore(queued: number): boolean
  /** Appending stopped until the next `resync`. */
  interrupted(error: MeshError): void
  /** A new epoch began because the stream does not match the database. */
  diverged?(divergence: Divergence): void
  /** The stream has stored more of the queue. */
  onGrowth?(): void
}

/**
 * The stream has neither holes nor repeats: each append names the expected last sequence and the id of the message ahead of it,
 * and the server rejects a message that does not follow. After any failure `resync` reads the stream's position, and appending
 * continues after it.
 */
export class StreamWriter {
  readonly #options: StreamWriterOptions
  /** Not known to be stored. The entry at index `i` gets the sequence `#stored + 1 + i`. */
  readonly #queue = new Fifo<StreamPart>()
  /** Number of entries in flight, from the head of the queue. */
  #sent = 0
  /** The last sequence whose part was reported as stored. */
  #stored = 0
  /** The stream's last sequence. Greater than `#stored` while the messages in between are compared with the outbox. */
  #last = 0
  #epoch = ''
  #ready = false
  /** Acknowledgements of appends before the last interruption are ignored. */
  #generation = 0
  #onAcknowledgement = this.#createAcknowledgementHandler()
  #onDrained: (() => void) | undefined
  #paused = false
  #scheduled = false
  readonly #exclusive = new SerialQueue()
  #onQueued: (() => void) | undefined
  /** Why the stream does not match the outbox: it continues in a new epoch. */
  #divergence: string | undefined

  constructor(options: StreamWriterOptions) {
    this.#options = options
  }

  /** In step with the stream, able to send. */
  get ready(): boolean {
    return this.#ready
  }

  get queued(): number {
    return this.#queue.length
  }

  /** The end of the stream; epoch '' before the first resync. */
  get position(): StreamPosition {
    return { epoch: this.#epoch, sequence: this.#last }
  }

  push(part: StreamPart): void {
    this.#queue.push(part)
    if (this.#onQueued) this.#wakeComparison()
    else if (this.#sent === 0) this.#sendQueued()
    else this.#scheduleSend()
  }

  /** `mayShowMore` may have changed. */
  onOutboxRead(): void {
    this.#wakeComparison()
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
    const { mesh, table } = this.#options
    const known =
      this.#epoch === '' ? await this.#options.loadPosition() : { epoch: this.#epoch, sequence: this.#stored }
    // The description of a new stream names no current epoch: a store that lost a description may create the stream over old messages.
    const ended = { epochs: endEpochs([], known, 0), purged: [] }
    const state = await mesh.ensureStream(table, formatStreamMetadata(table, ended))
    if (isInconsistent(state)) throw new Error(`the state of stream ${table.database}.${table.table} is inconsistent`)
    const { epochs, purged, unrecorded } = parseStreamMetadata(state.description)
    const mark = (await this.#options.unrecordedMark?.()) ?? unrecorded
    const isMarked = mark === unrecorded
    const current = epochs.findLast((each) => each.last === undefined)
    const last = state.lastSequence
    const isInStep = isMarked && this.#divergence === undefined
    if (isInStep && known && current?.epoch === known.epoch && last >= known.sequence) {
      this.#resume(known.epoch, known.sequence, last)
    } else if (isMarked && current && !known) await this.#startEpoch(current.epoch, last)
    else {
      const epoch = newEpoch()
      const before = endEpochs(epochs, known, last)
      // Nobody has read a stream that has no earlier epoch.
      const next = { epoch, from: last + 1, ...(!isMarked && before.length > 0 && { unrecorded: true as const }) }
      const described = { epochs: [...before, next], purged, unrecorded: mark }
      await mesh.describeStream(table, formatStreamMetadata(table, described))
      await this.#startEpoch(epoch, last)
      this.#reportDivergence(epochs, known, last)
    }
    this.#divergence = undefined
    this.#ready = true
    if (this.#stored < last) void this.#compare(state)
  }

  #reportDivergence(epochs: EpochRange[], known: StreamPosition | undefined, to: number): void {
    const { diverged } = this.#options
    const epoch = this.#epoch
    if (this.#divergence !== undefined)
      return diverged?.({ epoch, from: known!.sequence + 1, to, reason: this.#divergence })
    // An epoch without messages may have begun right before a crash. An epoch that the description does not name: the stream is the older one.
    const from = epochs.at(-1)?.from ?? 0
    const isOlder = epochs.some((each) => each.epoch === known?.epoch && each.last !== undefined)
    if (isOlder && from <= to)
      diverged?.({ epoch, from, to, reason: 'the database has the position of an earlier epoch' })
  }

  /**
   * Compares the messages beyond the confirmed position with the queue, in order, and reports those as stored whose id is at its
   * place. Sequences have no holes when they are written, so a match also proves the deleted messages before it. Anything else begins
   * a new epoch: appending a transaction again is harmless, losing one is not.
   */
  async #compare({ firstSequence, lastSequence: to, messages }: StreamState): Promise<void> {
    const generation = this.#generation
    const from = Math.max(this.#stored + 1, firstSequence)
    const hasHoles = messages < to - firstSequence + 1
    const tail = new StoredTail(this.#options, { from, to, epoch: this.#epoch, hasHoles })
    try {
      for (let next = from; this.#stored < to; next = this.#stored + 1) {
        // An older database has no part for this message: then nothing needs to be read.
        const isExpected = next <= to && (await this.#isQueued(next))
        const message = isExpected && generation === this.#generation ? await tail.next() : undefined
        const isQueued = message && (await this.#isQueued(message.sequence))
        if (generation !== this.#generation) return
        const reason = isQueued
          ? this.#mismatch(message)
          : `the outbox does not have the messages ${this.#stored + 1} to ${to}`
        if (reason !== undefined) {
          this.#divergence = reason
          return this.#fail(new MeshError('wrong_sequence', reason))
        }
        while (this.#stored < message!.sequence) this.#reportStored()
      }
      this.#sendQueued()
    } catch (error) {
      if (generation === this.#generation) this.#fail(error as MeshError)
    } finally {
      tail.close()
    }
  }

  #mismatch({ sequence, id }: StoredMessage): string | undefined {
    const expected = this.#queue.at(sequence - this.#stored - 1)!.id
    return id === expected ? undefined : `the stream has ${id} at ${sequence} where ${expected} was expected`
  }

  /** Waits for the part that belongs at this sequence. False when the outbox does not show it, and after an interruption. */
  async #isQueued(sequence: number): Promise<boolean> {
    const generation = this.#generation
    const isMissing = () => generation === this.#generation && this.queued < sequence - this.#stored
    while (isMissing() && this.#options.mayShowMore(this.queued))
      await new Promise<void>((resolve) => {
        this.#onQueued = resolve
      })
    return generation === this.#generation && !isMissing()
  }

  #wakeComparison(): void {
    this.#onQueued?.()
    this.#onQueued = undefined
  }

  /**
   * Continues in an epoch that the stream's description already names. The host stores its position before any message is
   * appended in it: after a crash in between, no message counts as stored that is not.
   */
  async #startEpoch(epoch: string, sequence: number): Promise<void> {
    await this.#options.savePosition({ epoch, sequence })
    this.#resume(epoch, sequence, sequence)
  }

  #resume(epoch: string, stored: number, last: number): void {
    this.#epoch = epoch
    this.#stored = stored
    this.#last = last
  }

  /**
   * Purges between two messages. The description names the purged range before the purge: otherwise a subscriber would report
   * those messages as expired.
   */
  purge(options: { keep?: number; before?: number }): Promise<void> {
    return this.#runExclusive(async () => {
      const { mesh, table, node, requestTimeout: timeout } = this.#options
      const state = await mesh.streamState({ node, ...table }, { timeout })
      if (!state) return
      const { firstSequence, lastSequence } = state
      const end = options.before === undefined ? lastSequence - (options.keep ?? 0) : options.before - 1
      const metadata = parseStreamMetadata(state.description)
      const purged = withPurge(metadata, firstSequence, Math.min(end, lastSequence))
      if (purged === metadata) return
      await mesh.describeStream(table, formatStreamMetadata(table, purged))
      await mesh.purgeStream(table, options)
      // The comparison may wait for a message that was purged.
      if (this.#stored < this.#last) this.#fail(new MeshError('reader_lost', 'the stream was purged'))
    })
  }

  /** Runs `work` with nothing in flight, one call at a time. */
  #runExclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#exclusive.run(async () => {
      this.#paused = true
      try {
        if (this.#sent > 0)
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

  /** The client writes to its socket once in each turn of the event loop, so everything pushed in one turn is sent together. */
  #scheduleSend(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#sendQueued()
    })
  }

  #sendQueued(): void {
    const { mesh, table, window } = this.#options
    // While messages are compared, it is not known which part is next.
    if (this.#stored < this.#last) return
    while (this.#ready && !this.#paused && this.#sent < Math.min(window, this.queued)) {
      const part = this.#queue.at(this.#sent)!
      const sequence = this.#stored + this.#sent
      // Without the id, a foreign message at that sequence would pass for the one in flight.
      const ahead = this.#sent > 0 ? this.#queue.at(this.#sent - 1) : undefined
      const expected = ahead ? { sequence, id: ahead.id } : { sequence }
      this.#sent++
      mesh.append(table, { data: part.data, headers: part.headers(this.#epoch) }, expected, this.#onAcknowledgement)
    }
  }

  /** For appends of the current generation only. */
  #createAcknowledgementHandler(): (error: MeshError | undefined, sequence: number) => void {
    const generation = this.#generation
    return (error, sequence) => {
      if (generation !== this.#generation) return
      if (error || sequence !== this.#stored + 1) return this.#fail(error)
      this.#last = sequence
      this.#sent--
      this.#reportStored()
      if (this.#sent === 0) this.#notifyDrained()
      this.#sendQueued()
    }
  }

  /** The stream has stored the first part of the queue. */
  #reportStored(): void {
    const part = this.#queue.shift()!
    this.#stored++
    part.stored({ epoch: this.#epoch, sequence: this.#stored })
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
    this.#sent = 0
    this.#wakeComparison()
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
