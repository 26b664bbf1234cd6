// The outbox that the publisher reads: the host's, or one in memory for a host without an outbox.

import { Fifo } from '../util/fifo.ts'
import type { Host, PublishConfirmation, PublishedPosition, Transaction } from './host.ts'

export interface Outbox {
  readOutbox(after?: { id: string; timestamp: string }): AsyncIterable<Transaction> | Iterable<Transaction>
  confirmPublished(confirmation: PublishConfirmation): Promise<void>
  publishedPosition(database: string, table: string): Promise<PublishedPosition | undefined>
  /** Adds a committed transaction. Has no effect with a host's outbox, which contains it already. */
  add(transaction: Transaction): void
  /** Removes an unread transaction from an outbox in memory. */
  discard(id: string): void
}

/** Its transactions are lost when the process ends, as the README says. */
class MemoryOutbox implements Outbox {
  readonly #transactions = new Fifo<Transaction>()
  /** Ids of discarded transactions that are still in the queue. */
  readonly #discarded = new Set<string>()

  add(transaction: Transaction): void {
    this.#transactions.push(transaction)
  }

  *readOutbox(): Iterable<Transaction> {
    for (;;) {
      const transaction = this.#transactions.shift()
      if (!transaction) return
      if (this.#discarded.size === 0 || !this.#discarded.delete(transaction.id)) yield transaction
    }
  }

  discard(id: string): void {
    this.#discarded.add(id)
  }

  async confirmPublished(): Promise<void> {}

  async publishedPosition(): Promise<undefined> {}
}

const noop = () => {}

export function createOutbox(host: Host): Outbox {
  if (!host.readOutbox || !host.confirmPublished || !host.publishedPosition) return new MemoryOutbox()
  return {
    readOutbox: host.readOutbox.bind(host),
    confirmPublished: host.confirmPublished.bind(host),
    publishedPosition: host.publishedPosition.bind(host),
    add: noop,
    discard: noop,
  }
}
