// Where the publisher reads what is to be sent: the host's outbox, or memory for a host that keeps none.

import { Fifo } from '../util/fifo.ts'
import type { Host, PublishConfirmation, PublishedPosition, Transaction } from './host.ts'

export interface Outbox {
  readOutbox(after?: { id: string; timestamp: string }): AsyncIterable<Transaction> | Iterable<Transaction>
  confirmPublished(confirmation: PublishConfirmation): Promise<void>
  publishedPosition(database: string, table: string): Promise<PublishedPosition | undefined>
  /** Hands over what was just committed; a host's outbox has it already. */
  add(transaction: Transaction): void
  /** Gives up what was handed over and has not been read yet, where nothing else keeps it. */
  discard(id: string): void
}

/** What dies with the process is lost: the README says so. */
class MemoryOutbox implements Outbox {
  readonly #transactions = new Fifo<Transaction>()
  /** Ids of those among them that are given up. */
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
