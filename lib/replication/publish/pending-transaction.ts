// A transaction on its way from the outbox to the streams: one part for each table, and a count of the parts not yet stored.

import type { PublishedPosition, Transaction } from '../../host/host.ts'
import type { TableName } from '../../mesh/mesh.ts'
import type { StreamPart } from './frame-queue.ts'
import type { PublishCall } from './publish-calls.ts'
import { positionIn, type StoredFrame } from './stored-frame.ts'

/** Notified of each stored part, and of each transaction whose parts are all stored. */
export interface PartListener {
  readonly node: string
  partStored(part: OutgoingPart): void
  transactionStored(pending: PendingTransaction): void
}

export class PendingTransaction {
  readonly id: string
  readonly timestamp: string
  /** The call of `publish` that waits for this transaction. */
  call: PublishCall | undefined
  /**
   * One part for each table. A list by reference, not an array: V8 creates arrays that survive in the old heap, where after the end of
   * the transaction they keep its parts alive until the next major garbage collection.
   */
  firstPart: OutgoingPart | undefined
  bytes = 0
  unstoredParts = 0
  /** It can never be published. */
  isRejected = false

  /** Does not keep the transaction itself: thousands may be in flight, and the garbage collector copies each twice. */
  constructor({ id, timestamp }: Transaction, call?: PublishCall) {
    this.id = id
    this.timestamp = timestamp
    this.call = call
  }

  /** Called once, with all parts. */
  setParts(parts: readonly OutgoingPart[]): void {
    for (let at = parts.length - 1; at >= 0; at--) {
      const part = parts[at]!
      this.bytes += part.data.byteLength
      part.next = this.firstPart
      this.firstPart = part
    }
    this.unstoredParts = parts.length
  }

  /** The positions of all parts, once they are stored. */
  get publishedPositions(): PublishedPosition[] {
    const positions: PublishedPosition[] = []
    for (let part = this.firstPart; part; part = part.next) positions.push(part.publishedPosition)
    return positions
  }
}

export class OutgoingPart implements StreamPart {
  readonly data: Uint8Array
  readonly table: TableName
  /** Of the same transaction. */
  next: OutgoingPart | undefined
  readonly #listener: PartListener
  readonly #transaction: PendingTransaction
  #frame: StoredFrame | undefined
  #index = 0

  constructor(listener: PartListener, transaction: PendingTransaction, table: TableName, data: Uint8Array) {
    this.#listener = listener
    this.#transaction = transaction
    this.table = table
    this.data = data
  }

  get id(): string {
    return this.#transaction.id
  }

  stored(frame: StoredFrame, index: number): void {
    this.#frame = frame
    this.#index = index
    this.#listener.partStored(this)
    if (--this.#transaction.unstoredParts === 0) this.#listener.transactionStored(this.#transaction)
  }

  /** Only once it is stored. */
  get publishedPosition(): PublishedPosition {
    return { ...this.table, ...positionIn(this.#frame!, this.#index), id: this.id }
  }
}
