// A transaction on its way from the outbox to the streams: one part a table, and when all of them are there.

import type { ClusterError } from '../errors.ts'
import type { Origin, Published, Transaction } from '../host.ts'
import type { Headers, TableName } from '../mesh/mesh.ts'
import { type TraceContext, traceContext } from '../trace-context.ts'
import type { Part, Position } from './table-log.ts'
import { encodeHeaders } from './wire.ts'

/** Who is told: of each part that is stored, and of each transaction when it was the last. */
export interface Sender {
  readonly node: string
  partStored(part: OutgoingPart): void
  allStored(ticket: Ticket): void
}

/** A call of `publish` under way. */
export class Waiter {
  readonly promise: Promise<void>
  readonly deadline: number
  /** A pass over the outbox that began after this one was asked for. */
  readonly pass: number
  resolve!: () => void
  reject!: (error: ClusterError) => void

  constructor(deadline: number, pass: number) {
    this.deadline = deadline
    this.pass = pass
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }
}

export class Ticket {
  readonly id: string
  readonly stamp: string
  readonly origin: Origin | undefined
  readonly trace: TraceContext | undefined
  /** Who is told when all of it is stored, or that it takes too long. */
  waiter: Waiter | undefined
  parts: readonly OutgoingPart[] = []
  bytes = 0
  /** Parts that are not yet stored. */
  open = 0

  /** The transaction itself is not kept: what is on its way may be much. */
  constructor({ id, stamp, origin, trace }: Transaction, waiter?: Waiter) {
    this.id = id
    this.stamp = stamp
    this.origin = origin
    this.trace = trace && traceContext(trace)
    this.waiter = waiter
  }

  /** All there are, once. */
  hold(parts: readonly OutgoingPart[]): void {
    this.parts = parts
    for (const { data } of parts) this.bytes += data.byteLength
    this.open = parts.length
  }
}

export class OutgoingPart implements Part {
  readonly data: Uint8Array
  readonly table: TableName
  readonly #sender: Sender
  readonly #ticket: Ticket
  #position: Position | undefined

  constructor(sender: Sender, ticket: Ticket, table: TableName, data: Uint8Array) {
    this.#sender = sender
    this.#ticket = ticket
    this.table = table
    this.data = data
  }

  get id(): string {
    return this.#ticket.id
  }

  headers(epoch: string): Headers {
    return encodeHeaders(this.#ticket, this.#sender.node, epoch)
  }

  stored(position: Position): void {
    this.#position = position
    this.#sender.partStored(this)
    if (--this.#ticket.open === 0) this.#sender.allStored(this.#ticket)
  }

  /** Where it is, once it is stored. */
  get published(): Published {
    return { ...this.table, ...this.#position!, id: this.id }
  }
}
