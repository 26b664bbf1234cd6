// The outbox: transactions committed here that the cluster has not taken over yet, in the order of their commits.

import type { Transaction } from '../../lib/host/host.ts'
import type { Storage } from './storage.ts'

type Place = { id: string }

/**
 * Ordered by a position counted up inside the write transaction, not by stamp: what is republished keeps the stamp of its
 * origin, which may be older than much that stands before it, and must still come last.
 */
export class Outbox {
  readonly #storage: Storage

  constructor(storage: Storage) {
    this.#storage = storage
  }

  /** Inside a transaction of the storage: the one that commits the data. */
  add(transaction: Transaction): void {
    const position = this.#last() + 1
    this.#storage.state.put('outbox-position', position)
    this.#storage.outbox.put(position, transaction)
    this.#storage.outboxIds.put([transaction.id, position], true)
  }

  /** Oldest first; behind `after`, or from the beginning when that is no longer there: what was before it is gone as well. */
  async *read(after?: Place): AsyncGenerator<Transaction> {
    const end = this.#last() + 1
    let position = (after && this.#find(after)) ?? 0
    for (;;) {
      // Keys by the page and values one at a time: no read transaction stays open while the reader waits, and no more than
      // one transaction is in memory.
      const page = [...this.#storage.outbox.getKeys({ start: position + 1, end, limit: 1000 })]
      if (page.length === 0) return
      for (position of page) {
        const transaction = this.#storage.outbox.get(position)
        if (transaction) yield transaction // removed meanwhile if not there
      }
    }
  }

  /** Inside a transaction of the storage; `except` are ids that stay. Nothing happens when `through` is not there (any more). */
  removeThrough(through: Place, except: string[] = []): void {
    const position = this.#find(through)
    if (position === undefined) return
    for (const at of this.#storage.outbox.getKeys({ start: 0, end: position + 1 })) {
      const { id } = this.#storage.outbox.get(at)!
      if (except.includes(id)) continue
      this.#storage.outboxIds.remove([id, at])
      this.#storage.outbox.remove(at)
    }
  }

  #last(): number {
    return (this.#storage.state.get('outbox-position') as number | undefined) ?? 0
  }

  /** The first one: the parts of one transaction that came through several sources share their id. */
  #find({ id }: Place): number | undefined {
    for (const [, position] of this.#storage.outboxIds.getKeys({ start: [id], end: [id, Infinity], limit: 1 }))
      return position
    return undefined
  }
}
