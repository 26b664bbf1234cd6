// A transaction on its way from the outbox to the streams: one part a table, and when all of them are there.

import type { Published, Transaction } from '../host.ts'
import type { Headers, TableName } from '../mesh/mesh.ts'
import type { Part, Position } from './table-log.ts'
import { encodeHeaders } from './wire.ts'

/** Who is told: of each part that is stored, and of each transaction when it was the last. */
export interface Sender {
  readonly node: string
  partStored(part: OutgoingPart): void
  allStored(ticket: Ticket): void
}

export class Ticket {
  readonly id: string
  readonly stamp: string
  readonly parts: OutgoingPart[] = []
  bytes = 0
  /** Parts that are not yet stored. */
  open = 0

  constructor({ id, stamp }: Transaction) {
    this.id = id
    this.stamp = stamp
  }

  add(sender: Sender, transaction: Transaction, table: TableName, data: Uint8Array): OutgoingPart {
    const part = new OutgoingPart(sender, this, transaction, table, data)
    this.parts.push(part)
    this.bytes += data.byteLength
    this.open++
    return part
  }
}

export class OutgoingPart implements Part {
  readonly data: Uint8Array
  readonly table: TableName
  readonly #sender: Sender
  readonly #ticket: Ticket
  readonly #transaction: Transaction
  #position: Position | undefined

  constructor(sender: Sender, ticket: Ticket, transaction: Transaction, table: TableName, data: Uint8Array) {
    this.#sender = sender
    this.#ticket = ticket
    this.#transaction = transaction
    this.table = table
    this.data = data
  }

  get id(): string {
    return this.#ticket.id
  }

  headers(epoch: string): Headers {
    return encodeHeaders(this.#transaction, this.#sender.node, epoch)
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
