// Processes the messages that a subscription reads: finds the place of each in the stream, and collects their transactions into batches.

import { type Entry, MeshError, type StreamState } from '../../mesh/mesh.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import { Frame } from '../wire/frame.ts'
import type { BatchApplier } from './batch-applier.ts'
import type { Position } from './checkpoint-parts.ts'
import type { Cursor, ResumedPosition } from './cursor.ts'
import type { Lag } from './lag.ts'
import type { ExtrasHandler } from './message-extras.ts'
import { type PartDecoder, SpecialPart } from './part-decoder.ts'
import { PendingBatch } from './pending-batch.ts'

export type FrameProcessorContext = {
  counters: ReplicationCounters
  /** Maximum number of transactions, and of their bytes, in one transaction of the database. */
  maxBatch: number
  maxBatchBytes: number
}

export type FrameProcessorOptions = {
  cursor: Cursor
  decoder: PartDecoder
  extras: ExtrasHandler
  batchApplier: BatchApplier
  lag: Lag
  /** The stream has the transaction at the position, as far as it can tell. */
  onCompared(): void
}

type Decoded = ReturnType<PartDecoder['decodeAt']>

const noBatch = new PendingBatch({ epoch: '', sequence: 0 })

export class FrameProcessor {
  readonly #context: FrameProcessorContext
  readonly #options: FrameProcessorOptions
  /** Of the stream, when the reader began; and the end of the attempt. */
  #state!: StreamState
  #signal!: AbortSignal
  /** Delivery number of the last message from the reader. */
  #delivery = 0
  #isCompared = false
  #batch!: PendingBatch

  constructor(context: FrameProcessorContext, options: FrameProcessorOptions) {
    this.#context = context
    this.#options = options
  }

  /** A new reader begins. `signal`: the end of the attempt. */
  begin({ state, isCompared }: ResumedPosition, signal: AbortSignal): void {
    this.#state = state
    this.#signal = signal
    this.#delivery = 0
    this.#isCompared = isCompared
    if (this.#isCompared) this.#options.onCompared()
  }

  /**
   * The consumer numbers its deliveries. A jump of that number is a loss on the way: the consumer is created again. A jump of the
   * sequence alone is a hole in the stream: those transactions are gone. Rejects with reader_lost when reading must begin again, and
   * with MessageVersionError at a message of a later version and MissingTableError, after the ones before it are applied.
   */
  async process(entries: readonly Entry[]): Promise<void> {
    const { lag, cursor } = this.#options
    lag.observeLast(entries.at(-1)!, cursor.checkpoint)
    this.#startBatch()
    for (const entry of entries) {
      if (entry.delivery !== this.#delivery + 1) {
        await this.#flush()
        throw new MeshError('reader_lost', 'messages were lost on the way')
      }
      this.#delivery = entry.delivery
      await this.#processFrame(await this.#read(entry))
    }
    if (this.#batch.isMoved) await this.#options.batchApplier.apply(this.#batch)
    // The next call starts the next batch; until then nothing keeps the transactions.
    this.#batch = noBatch
  }

  async #read(entry: Entry): Promise<Frame> {
    try {
      return Frame.read(entry)
    } catch (error) {
      await this.#flush()
      throw error
    }
  }

  async #processFrame(frame: Frame): Promise<void> {
    const { lag, cursor } = this.#options
    const { counters } = this.#context
    const { first, fault } = frame
    const isNew = await this.#reach(frame)
    if (!this.#isCompared && !this.#batch.position.unverified) {
      this.#isCompared = true
      this.#options.onCompared()
    }
    if (!isNew) return
    counters.bytes += frame.entry.data.byteLength
    if (fault !== undefined) return this.#quarantineMessage(frame, fault)
    if (this.#batch.length === 0) lag.setOldest(frame.entry.time)
    lag.observeLast({ sequence: frame.sequence, index: frame.last }, cursor.checkpoint)
    const passed = this.#batch.position.index! - first! + 1
    await this.#processParts(frame, passed)
    if (passed >= frame.count) await this.#skip(frame.sequence)
  }

  /** The transactions of a message from this offset on. */
  async #processParts(frame: Frame, from: number): Promise<void> {
    const { maxBatch, maxBatchBytes } = this.#context
    for (let offset = from; offset < frame.count; offset++) {
      const decoded = this.#decode(frame, offset)
      const part = decoded instanceof Promise ? await decoded : decoded
      if (part instanceof SpecialPart) await this.#processSpecial(frame, offset, part)
      else this.#batch.add(frame, offset, part)
      if (this.#batch.length >= maxBatch || this.#batch.bytes >= maxBatchBytes) await this.#flush()
    }
  }

  /** Without waiting, unless the transaction writes a table that is not known to exist here. */
  #decode(frame: Frame, offset: number): Decoded | Promise<Decoded> {
    const { decoder } = this.#options
    try {
      return decoder.decodeAt(frame, offset)
    } catch {
      return this.#flush().then(() => decoder.decodeAgain(frame, offset))
    }
  }

  async #processSpecial(
    frame: Frame,
    offset: number,
    { transaction, extras, unsupported, fault }: SpecialPart,
  ): Promise<void> {
    const { extras: handler, batchApplier } = this.#options
    if (extras) handler.handle(extras)
    if (fault === undefined && unsupported === undefined) return this.#batch.add(frame, offset, transaction!)
    const part = this.#batch.read(frame, offset, transaction)
    await this.#moveCheckpoint(() =>
      fault !== undefined ? batchApplier.quarantine(part, fault) : batchApplier.applyPartly(part, unsupported!),
    )
  }

  /**
   * Moves the position to the message: over what is gone, or into its epoch. False when the message was read before. Otherwise it is the
   * next one, and if it is readable, the position is at the transaction before its first one, or behind that.
   */
  async #reach(frame: Frame): Promise<boolean> {
    const { cursor } = this.#options
    const { sequence, fault } = frame
    const epoch = this.#epochOf(frame)
    if (epoch !== this.#batch.position.epoch) await this.#changeEpoch(frame, epoch)
    const before = this.#batch.position
    if (sequence <= before.sequence) {
      if (sequence === before.sequence) await this.#checkEnd(frame, before)
      return false
    }
    const index = fault === undefined ? frame.first! - 1 : undefined
    if (sequence !== before.sequence + 1)
      await this.#moveCheckpoint(() => cursor.skipHole({ sequence: sequence - 1, index }, this.#signal))
    if (index !== undefined) await this.#align(frame, this.#batch.position, index)
    return true
  }

  /** The message at the position, which was read before: it still ends there. */
  async #checkEnd(frame: Frame, { index, lastId }: Position): Promise<void> {
    if (frame.fault !== undefined || index === undefined || lastId === undefined) return
    if (frame.last! < index) await this.#setUnverified(true)
    else if (frame.last !== index || frame.idAt(frame.count - 1) !== lastId) await this.#rewind()
  }

  /** The next message, which is readable. `before`: the index before its first one. */
  async #align(frame: Frame, position: Position, before: number): Promise<void> {
    const { index, lastId, partial, unverified, replayUntil = 0 } = position
    const isInside = index !== undefined && index > before && index <= frame.last!
    // A replay that found this would begin again and again.
    const isBack = index !== undefined && index > before && frame.sequence > replayUntil
    if (lastId !== undefined && (partial || unverified || isBack)) {
      const isOther = isInside ? frame.idAt(index - before - 1) !== lastId : partial
      if (isOther || (partial && index === frame.last)) await this.#rewind()
      // The next message ends before the position: the transaction there is in a later one.
      if (index! > before && isInside === (unverified === true)) await this.#setUnverified(!isInside)
    }
    // Without an id at the position its index may be wrong: that of an unreadable message.
    if (index === undefined || (lastId === undefined && index > before))
      await this.#renumber(this.#epochOf(frame), before)
    else if (index < before) await this.#moveCheckpoint(() => this.#options.cursor.skipIndexes(before))
  }

  /** That of an unreadable message is assumed to be the one before. */
  #epochOf({ epoch, fault }: Frame): string {
    return fault !== undefined && epoch === '' ? this.#batch.position.epoch : epoch
  }

  async #changeEpoch({ sequence, entry }: Frame, epoch: string): Promise<void> {
    const { cursor, lag } = this.#options
    const { position } = this.#batch
    if (epoch === '' || position.epoch === '') {
      // The message at the position was read in another epoch.
      if (sequence <= position.sequence) await this.#rewind()
      // Each writer without epochs, and each epoch, has its own running numbers. Before the first message it is 0.
      return this.#renumber(epoch, position.index === 0 && position.sequence === 0 ? 0 : undefined)
    }
    await this.#moveCheckpoint(() => cursor.enterEpoch(epoch, sequence, this.#signal))
    lag.setLast(entry.sequence)
    // The epoch may begin before the first sequence of this reader.
    if (sequence !== this.#batch.position.sequence + 1) throw new MeshError('reader_lost', 'another epoch began')
  }

  async #renumber(epoch: string, index: number | undefined): Promise<void> {
    await this.#flush()
    this.#batch.renumber(epoch, index)
  }

  async #rewind(): Promise<never> {
    await this.#moveCheckpoint(() => this.#options.cursor.rewind(this.#state, this.#signal))
    throw new MeshError('reader_lost', 'the stream was rewound')
  }

  /**
   * The whole message, as far as it is behind the position. What its headers say is not trusted: no gap is counted by it, and the next
   * message may have lower running numbers.
   */
  async #quarantineMessage(frame: Frame, fault: string): Promise<void> {
    const { sequence, count, entry } = frame
    const { index: before, unverified } = this.#batch.position
    const first = frame.first ?? (before === undefined ? undefined : before + 1)
    const last = first === undefined ? undefined : first + count - 1
    if (unverified && last !== undefined && last <= before!) return this.#skip(sequence)
    const index = first === undefined ? sequence : Math.max(first, (before ?? 0) + 1)
    const end = Math.max(index, last ?? 0)
    const epoch = this.#epochOf(frame)
    const { data, time, headers } = entry
    const node = headers.origin ?? ''
    const content = { format: 'message' as const, data, node, epoch, sequence, time, headers }
    const position = this.#batch.moved({ epoch, sequence, ...(first !== undefined && { index: end }) })
    const part = { content: { ...content, index, count: end - index + 1 }, position }
    await this.#moveCheckpoint(() => this.#options.batchApplier.quarantine(part, fault))
  }

  async #setUnverified(isUnverified: boolean): Promise<void> {
    await this.#flush()
    this.#batch.setUnverified(isUnverified)
  }

  /** The message has nothing new. */
  async #skip(sequence: number): Promise<void> {
    await this.#flush()
    this.#batch.skip(sequence)
  }

  #startBatch(): void {
    this.#batch = new PendingBatch(this.#options.cursor.checkpoint)
  }

  /** Applies the batch and starts the next one. */
  async #flush(): Promise<void> {
    if (!this.#batch.isMoved) return
    await this.#options.batchApplier.apply(this.#batch)
    this.#startBatch()
  }

  /** Applies the batch, then moves the checkpoint by `move`. */
  async #moveCheckpoint(move: () => Promise<void>): Promise<void> {
    await this.#flush()
    await move()
    this.#startBatch()
  }
}
