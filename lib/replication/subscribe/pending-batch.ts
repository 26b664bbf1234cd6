// Transactions that were read and are not applied yet: one transaction of the database.

import type { Checkpoint, RemoteTransaction } from '../../host/host.ts'
import type { Entry } from '../../mesh/mesh.ts'
import { messageId } from '../wire.ts'
import type { Position } from './applier.ts'

export class PendingBatch {
  readonly transactions: RemoteTransaction[] = []
  bytes = 0
  /** The position after the last transaction. */
  readonly position: Position

  constructor({ applied: _, quarantined: __, gaps: ___, voided: ____, ...position }: Checkpoint) {
    this.position = position
  }

  add(transaction: RemoteTransaction, entry: Entry, epoch: string): void {
    this.transactions.push(transaction)
    this.bytes += entry.data.byteLength
    advance(this.position, entry, epoch)
  }

  /** The position after this entry, which is not part of the batch. */
  positionBehind(entry: Entry, epoch: string): Position {
    return advance({ ...this.position }, entry, epoch)
  }
}

function advance(position: Position, entry: Entry, epoch: string): Position {
  const id = messageId(entry)
  position.epoch = epoch
  position.sequence = entry.sequence
  if (id === '') delete position.lastMessageId
  else position.lastMessageId = id
  return position
}
