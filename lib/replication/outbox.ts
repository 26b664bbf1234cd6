// Where the publisher reads what is to be sent: the host's outbox, or memory for a host that keeps none.

import type { Host, Published, Transaction } from '../host.ts'

export interface Outbox {
  unpublished(after?: { id: string; stamp: string }): AsyncIterable<Transaction> | Iterable<Transaction>
  published(progress: Published[], through?: { id: string; stamp: string }, except?: string[]): Promise<void>
  publishedUpTo(database: string, table: string): Promise<Published | undefined>
  /** Hands over what was just committed; a host's outbox has it already. */
  add(transaction: Transaction): void
  /** Gives up what has not been read yet, where nothing else keeps it. */
  drop(id: string): void
}

/** What dies with the process is lost: the README says so. */
class MemoryOutbox implements Outbox {
  #transactions = new Map<string, Transaction>()

  add(transaction: Transaction): void {
    this.#transactions.set(transaction.id, transaction)
  }

  *unpublished(): Iterable<Transaction> {
    for (const [id, transaction] of this.#transactions) {
      this.#transactions.delete(id)
      yield transaction
    }
  }

  drop(id: string): void {
    this.#transactions.delete(id)
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
