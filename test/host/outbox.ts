// The outbox: committed transactions that are not yet confirmed as published, in commit order.

import type { Transaction } from '../../lib/host/host.ts'
import type { Storage } from './storage.ts'

/**
 * Ordered by a position that is incremented inside the write transaction, not by timestamp: a relayed transaction keeps its
 * original timestamp, which may be older than that of earlier entries.
 */
export class Outbox {
  readonly #storage: Storage

  constructor(storage: Storage) {
    this.#storage = storage
  }

  /** Must run inside the storage transaction that commits the data. */
  add(transaction: Transaction): void {
    const position = this.#last() + 1
    this.#storage.state.put('outbox-position', position)
    this.#storage.outbox.put(position, transaction)
    this.#storage.outboxIds.put([transaction.id, position], true)
  }

  /** Oldest first, starting after `after`. If `after` was removed, everything before it was removed as well, so reading starts at the beginning. */
  async *read(after?: { id: string }): AsyncGenerator<Transaction> {
    const end = this.#last() + 1
    let position = (after && this.#find(after)) ?? 0
    for (;;) {
      // Keys are read by the page, values one at a time: no read transaction stays open while the consumer waits, and only one
      // transaction is in memory.
      const page = [...this.#storage.outbox.getKeys({ start: position + 1, end, limit: 1000 })]
      if (page.length === 0) return
      for (position of page) {
        const transaction = this.#storage.outbox.get(position)
        if (transaction) yield transaction // undefined if removed in the meantime
      }
    }
  }

  /** Must run inside a storage transaction. The ids in `keep` stay. Does nothing if `upTo` is not in the outbox. */
  removeUpTo(upTo: { id: string }, keep: string[] = []): void {
    const position = this.#find(upTo)
    if (position === undefined) return
    for (const entry of this.#storage.outbox.getKeys({ start: 0, end: position + 1 })) {
      const { id } = this.#storage.outbox.get(entry)!
      if (keep.includes(id)) continue
      this.#storage.outboxIds.remove([id, entry])
      this.#storage.outbox.remove(entry)
    }
  }

  #last(): number {
    return (this.#storage.state.get('outbox-position') as number | undefined) ?? 0
  }

  /** The first position: parts of one transaction that arrived through several sources may share an id. */
  #find({ id }: { id: string }): number | undefined {
    for (const [, position] of this.#storage.outboxIds.getKeys({ start: [id], end: [id, Infinity], limit: 1 }))
      return position
    return undefined
  }
}
