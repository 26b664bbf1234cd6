// Where the publisher reads what is to be sent: the host's outbox, or memory for a host that keeps none.

import { Fifo } from '../fifo.ts'
import type { Host, Published, Transaction } from '../host.ts'

export interface Outbox {
  unpublished(after?: { id: string; stamp: string }): AsyncIterable<Transaction> | Iterable<Transaction>
  published(progress: Published[], through?: { id: string; stamp: string }, except?: string[]): Promise<void>
  publishedUpTo(database: string, table: string): Promise<Published | undefined>
  /** Hands over what was just committed; a host's outbox has it already. */
  add(transaction: Transaction): void
  /** Gives up what was handed over and has not been read yet, where nothing else keeps it. */
  drop(id: string): void
}

/** What dies with the process is lost: the README says so. */
class MemoryOutbox implements Outbox {
  readonly #transactions = new Fifo<Transaction>()
  /** Ids of those among them that are given up. */
  readonly #dropped = new Set<string>()

  add(transaction: Transaction): void {
    this.#transactions.push(transaction)
  }

  *unpublished(): Iterable<Transaction> {
    for (;;) {
      const transaction = this.#transactions.shift()
      if (!transaction) return
      if (this.#dropped.size === 0 || !this.#dropped.delete(transaction.id)) yield transaction
    }
  }

  drop(id: string): void {
    this.#dropped.add(id)
  }

  async published(): Promise<void> {}

  async publishedUpTo(): Promise<undefined> {}
}

const nothing = () => {}

export function outboxOf(host: Host): Outbox {
  if (!host.unpublished || !host.published || !host.publishedUpTo) return new MemoryOutbox()
  return {
    unpublished: host.unpublished.bind(host),
    published: host.published.bind(host),
    publishedUpTo: host.publishedUpTo.bind(host),
    add: nothing,
    drop: nothing,
  }
}
