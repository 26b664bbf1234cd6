// Transactions that were read and are not applied yet: one transaction of the database.

import type { Checkpoint, RemoteTransaction } from '../../host/host.ts'
import type { Frame } from '../wire/frame.ts'
import { type Position, positionOf } from './checkpoint-parts.ts'
import type { QuarantinedContent } from './quarantine.ts'

/** What was read, and the position after it. `transaction` is absent when it is unreadable. */
export type ReadPart = {
  content: QuarantinedContent
  position: Position
  transaction?: RemoteTransaction | undefined
}

export class PendingBatch {
  readonly transactions: RemoteTransaction[] = []
  bytes = 0
  /** The position before the first transaction. */
  #start: Position
  /** The message of each transaction, and its offset there. */
  readonly #frames: Frame[] = []
  readonly #offsets: number[] = []
  #isMoved = false

  constructor(checkpoint: Checkpoint) {
    this.#start = positionOf(checkpoint)
  }

  get length(): number {
    return this.transactions.length
  }

  /** The checkpoint is to be stored again: there are transactions, or messages were skipped. */
  get isMoved(): boolean {
    return this.#isMoved
  }

  /** The position after the last transaction. */
  get position(): Position {
    return this.length === 0 ? this.#start : this.#positionAt(this.length - 1)
  }

  /** The transaction at this offset of a message. */
  add(frame: Frame, offset: number, transaction: RemoteTransaction): void {
    this.transactions.push(transaction)
    this.#frames.push(frame)
    this.#offsets.push(offset)
    this.bytes += frame.bytesAt(offset)
    this.#isMoved = true
  }

  /** What was added at this place of the batch. */
  partAt(place: number): ReadPart {
    const transaction = this.transactions[place]!
    return this.read(this.#frames[place]!, this.#offsets[place]!, transaction)
  }

  /** The transaction at this offset of a message, with its undecoded bytes. */
  read(frame: Frame, offset: number, transaction?: RemoteTransaction): ReadPart {
    return {
      content: { ...frame.part(offset), count: 1 },
      position: this.#positionBehind(frame, offset, transaction),
      transaction,
    }
  }

  /** The position with another place in the stream. */
  moved(to: Pick<Position, 'epoch' | 'sequence' | 'index' | 'partial' | 'lastId'>): Position {
    const { startTime, replayUntil } = this.#start
    return { ...to, ...(startTime !== undefined && { startTime }), ...(replayUntil !== undefined && { replayUntil }) }
  }

  /** Messages have other running numbers than was assumed. Only while it is empty. */
  renumber(epoch: string, index: number | undefined): void {
    const { sequence } = this.#start
    this.#start = this.moved({ epoch, sequence, ...(index !== undefined && { index }) })
  }

  /** All transactions of this message are at or before the position. Only while the batch is empty. */
  skip(sequence: number): void {
    this.#start = { ...this.#start, sequence }
    this.#isMoved = true
  }

  /** See `Checkpoint.unverified`. Only while the batch is empty. */
  setUnverified(isUnverified: boolean): void {
    const { unverified: _, ...position } = this.#start
    this.#start = { ...position, ...(isUnverified && { unverified: true }) }
    // Otherwise it is stored with the message that holds the transaction, never without it.
    this.#isMoved ||= isUnverified
  }

  #positionAt(place: number): Position {
    return this.#positionBehind(this.#frames[place]!, this.#offsets[place]!, this.transactions[place])
  }

  #positionBehind(frame: Frame, offset: number, transaction?: RemoteTransaction): Position {
    const { epoch, sequence, first, count } = frame
    const isLast = offset === count - 1
    const lastId = frame.idAt(offset, transaction)
    return this.moved({
      epoch,
      sequence: isLast ? sequence : sequence - 1,
      index: first! + offset,
      ...(!isLast && { partial: true }),
      ...(lastId !== '' && { lastId }),
    })
  }
}
