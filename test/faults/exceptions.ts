// What the faults of a run did to databases, which the check at the end must know: commits that were undone, checkpoints that were lost.

import type { Commit } from './writes.ts'

export class Exceptions {
  readonly #undone = new Map<string, Map<string, Commit[]>>()
  readonly #forgetful = new Set<string>()
  readonly #repeated = new Set<string>()
  readonly #violation: (text: string) => void

  constructor(violation: (text: string) => void = () => {}) {
    this.#violation = violation
  }

  /** The database of this node no longer has these commits, by table. Other nodes may have applied them. */
  undone(node: string, commits: ReadonlyMap<string, readonly Commit[]>): void {
    const tables = this.#undone.get(node) ?? new Map<string, Commit[]>()
    for (const [table, more] of commits) tables.set(table, [...(tables.get(table) ?? []), ...more])
    this.#undone.set(node, tables)
  }

  /** Transactions may be applied again by this node. */
  checkpointsLost(node: string): void {
    this.#forgetful.add(node)
  }

  /** These transactions may be applied again by every node. */
  repeated(transactions: Iterable<string>): void {
    for (const id of transactions) this.#repeated.add(id)
  }

  violation(text: string): void {
    this.#violation(text)
  }

  undoneOf(node: string, table: string): readonly Commit[] {
    return this.#undone.get(node)?.get(table) ?? []
  }

  mayBeRepeated(transaction: string): boolean {
    return this.#repeated.has(transaction)
  }

  hasLostCheckpoints(node: string): boolean {
    return this.#forgetful.has(node)
  }
}
