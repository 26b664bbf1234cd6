// Transactions that were read and are not applied yet: one transaction of the database.

import type { Checkpoint, RemoteTransaction } from '../../host/host.ts'
import type { Entry } from '../../mesh/mesh.ts'
import { messageId } from '../wire.ts'
import { type Position, positionOf } from './checkpoint-parts.ts'

/** A message that was read, and the position after it. `transaction` is absent when the message is unreadable. */
export type ReadMessage = { entry: Entry; position: Position; transaction?: RemoteTransaction | undefined }

export class PendingBatch {
  readonly transactions: RemoteTransaction[] = []
  bytes = 0
  /** The position after the last transaction. */
  readonly position: Position
  readonly #entries: { entry: Entry; epoch: string }[] = []

  constructor(checkpoint: Checkpoint) {
    this.position = positionOf(checkpoint)
  }

  get length(): number {
    return this.transactions.length
  }

  add(transaction: RemoteTransaction, entry: Entry, epoch: string): void {
    this.transactions.push(transaction)
    this.#entries.push({ entry, epoch })
    this.bytes += entry.data.byteLength
    advance(this.position, entry, epoch)
  }

  /** The message at this index of the batch. */
  messageAt(index: number): ReadMessage {
    const { entry, epoch } = this.#entries[index]!
    return { entry, position: this.positionBehind(entry, epoch), transaction: this.transactions[index]! }
  }

  /** The position after this entry. */
  positionBehind(entry: Entry, epoch: string): Position {
    return advance({ ...this.position }, entry, epoch)
  }
}

function advance(position: Position, entry: Entry, epoch: string): Position {
  const id = messageId(entry)
  position.epoch = epoch
  position.sequence = entry.sequence
  if (id === '') delete position.lastId
  else position.lastId = id
  return position
}
