// Transactions that were read and are not applied yet: one transaction of the database.

import type { Checkpoint, RemoteTransaction } from '../../host/host.ts'
import { type StoredPart, storedId } from '../wire/frame.ts'
import { type Position, positionOf } from './checkpoint-parts.ts'
import type { QuarantinedContent } from './quarantine.ts'

/** What was read, and the position after it. `transaction` is absent when it is unreadable. */
export type ReadPart = {
  content: QuarantinedContent
  position: Position
  transaction?: RemoteTransaction | undefined
}

/** A transaction of a message that was read. `isLast`: the last one of its message. */
type AddedPart = { stored: StoredPart; isLast: boolean }

export class PendingBatch {
  readonly transactions: RemoteTransaction[] = []
  bytes = 0
  /** The position before the first transaction. */
  #start: Position
  readonly #parts: AddedPart[] = []
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

  add(stored: StoredPart, transaction: RemoteTransaction, isLast: boolean): void {
    this.transactions.push(transaction)
    this.#parts.push({ stored, isLast })
    this.bytes += stored.data.byteLength
    this.#isMoved = true
  }

  /** What was added at this offset. */
  partAt(offset: number): ReadPart {
    return {
      content: { ...this.#parts[offset]!.stored, count: 1 },
      position: this.#positionAt(offset),
      transaction: this.transactions[offset]!,
    }
  }

  /** The position after this transaction. */
  positionBehind(stored: StoredPart, isLast: boolean, transaction?: RemoteTransaction): Position {
    const { epoch, index, sequence } = stored
    const lastId = storedId(stored, transaction)
    return this.moved({
      epoch,
      sequence: isLast ? sequence : sequence - 1,
      index,
      ...(!isLast && { partial: true }),
      ...(lastId !== '' && { lastId }),
    })
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

  #positionAt(offset: number): Position {
    const { stored, isLast } = this.#parts[offset]!
    return this.positionBehind(stored, isLast, this.transactions[offset])
  }
}
