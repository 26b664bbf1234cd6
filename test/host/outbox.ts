// The outbox: committed transactions that are not yet confirmed as published, in commit order.

import type { Transaction } from '../../lib/host/host.ts'
import type { Storage } from './storage.ts'

/** Keys that are read at once. */
const PAGE = 1_000

/**
 * Ordered by a position that increases, not by timestamp: a relayed transaction keeps its original timestamp, which may be older than
 * that of earlier entries. Positions are those of this process; nothing else stores them.
 */
export class Outbox {
  readonly #storage: Storage
  #last: number
  /** Positions of the entries that were read and not removed, by id, and the reverse: as many as the cluster has in flight. */
  readonly #positions = new Map<string, number>()
  readonly #ids = new Map<number, string>()
  /** Up to where entries were removed last. */
  #removed: string | undefined

  constructor(storage: Storage) {
    this.#storage = storage
    const [last = 0] = storage.outbox.getKeys({ reverse: true, limit: 1 })
    this.#last = last
  }

  /** Must run inside the storage transaction that commits the data. */
  add(transaction: Transaction): void {
    // A position that is lost by a rollback is a gap, which is harmless.
    this.#storage.outbox.put(++this.#last, transaction)
  }

  /** Oldest first, starting after `after`. If `after` was removed, everything before it was removed as well, so reading starts at the beginning. */
  async *read(after?: { id: string }): AsyncGenerator<Transaction> {
    const end = this.#last + 1
    let position = after && after.id !== this.#removed ? (this.#find(after) ?? 0) : 0
    for (;;) {
      // Keys are read by the page, values one at a time: no read transaction stays open while the consumer waits, and only one
      // transaction is in memory.
      const page = [...this.#storage.outbox.getKeys({ start: position + 1, end, limit: PAGE })]
      if (page.length === 0) return
      for (position of page) {
        const transaction = this.#storage.outbox.get(position)
        if (!transaction) continue // removed in the meantime
        this.#remember(transaction.id, position)
        yield transaction
      }
    }
  }

  /** Must run inside a storage transaction. The ids in `keep` stay. Does nothing if `upTo` is not in the outbox. */
  removeUpTo(upTo: { id: string }, keep: string[] = []): void {
    const position = this.#find(upTo)
    if (position === undefined) return
    for (const entry of this.#storage.outbox.getKeys({ start: 0, end: position + 1 })) {
      const id = this.#ids.get(entry) ?? (keep.length > 0 ? this.#storage.outbox.get(entry)!.id : undefined)
      if (id !== undefined && keep.includes(id)) continue
      this.#storage.outbox.remove(entry)
      if (id !== undefined) this.#forget(id, entry)
    }
    this.#removed = upTo.id
  }

  #remember(id: string, position: number): void {
    this.#ids.set(position, id)
    // Parts of one transaction that arrived through several sources may share an id: the first position counts.
    if (!this.#positions.has(id)) this.#positions.set(id, position)
  }

  #forget(id: string, position: number): void {
    this.#ids.delete(position)
    if (this.#positions.get(id) === position) this.#positions.delete(id)
  }

  #find({ id }: { id: string }): number | undefined {
    const known = this.#positions.get(id)
    if (known !== undefined) return known
    // Not read by this process yet, or removed.
    for (const { key, value } of this.#storage.outbox.getRange({})) if (value.id === id) return key
    return undefined
  }
}
