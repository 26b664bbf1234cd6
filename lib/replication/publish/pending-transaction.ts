// A transaction on its way from the outbox to the streams: one part a table, and when all of them are there.

import type { ClusterError } from '../../errors.ts'
import type { Origin, PublishedPosition, Transaction } from '../../host/host.ts'
import { type TraceContext, traceContext } from '../../host/trace-context.ts'
import type { Headers, TableName } from '../../mesh/mesh.ts'
import { encodeHeaders } from '../wire.ts'
import type { StreamPart, StreamPosition } from './stream-writer.ts'

/** Who is told: of each part that is stored, and of each transaction when it was the last. */
export interface PartListener {
  readonly node: string
  partStored(part: OutgoingPart): void
  transactionStored(pending: PendingTransaction): void
}

/** A call of `publish` under way. */
export class PublishCall {
  readonly promise: Promise<void>
  readonly deadline: number
  /** A pass over the outbox that began after this one was asked for. */
  readonly readInPass: number
  resolve!: () => void
  reject!: (error: ClusterError) => void

  constructor(deadline: number, pass: number) {
    this.deadline = deadline
    this.readInPass = pass
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }
}

export class PendingTransaction {
  readonly id: string
  readonly timestamp: string
  readonly origin: Origin | undefined
  readonly trace: TraceContext | undefined
  /** Who is told when all of it is stored, or that it takes too long. */
  call: PublishCall | undefined
  parts: readonly OutgoingPart[] = []
  bytes = 0
  /** Parts that are not yet stored. */
  unstoredParts = 0

  /** The transaction itself is not kept: what is on its way may be much. */
  constructor({ id, timestamp, origin, trace }: Transaction, call?: PublishCall) {
    this.id = id
    this.timestamp = timestamp
    this.origin = origin
    this.trace = trace && traceContext(trace)
    this.call = call
  }

  /** All there are, once. */
  setParts(parts: readonly OutgoingPart[]): void {
    this.parts = parts
    for (const { data } of parts) this.bytes += data.byteLength
    this.unstoredParts = parts.length
  }
}

export class OutgoingPart implements StreamPart {
  readonly data: Uint8Array
  readonly table: TableName
  readonly #listener: PartListener
  readonly #transaction: PendingTransaction
  #position: StreamPosition | undefined

  constructor(listener: PartListener, transaction: PendingTransaction, table: TableName, data: Uint8Array) {
    this.#listener = listener
    this.#transaction = transaction
    this.table = table
    this.data = data
  }

  get id(): string {
    return this.#transaction.id
  }

  headers(epoch: string): Headers {
    return encodeHeaders(this.#transaction, this.#listener.node, epoch)
  }

  stored(position: StreamPosition): void {
    this.#position = position
    this.#listener.partStored(this)
    if (--this.#transaction.unstoredParts === 0) this.#listener.transactionStored(this.#transaction)
  }

  /** Where it is, once it is stored. */
  get publishedPosition(): PublishedPosition {
    return { ...this.table, ...this.#position!, id: this.id }
  }
}
