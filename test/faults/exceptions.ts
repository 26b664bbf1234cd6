// What the faults of a run did to databases, which the check at the end must know: commits that were undone or restamped, checkpoints that
// were lost.

import { type Commit, type Restamped, type Rewrite, rewritesOf } from './writes.ts'

export class Exceptions {
  readonly #undone = new Map<string, Map<string, Commit[]>>()
  readonly #restamped = new Map<string, Restamped[]>()
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

  /** This node replaced the commits of a wrong clock. */
  restamped(node: string, restamped: Restamped): void {
    this.#restamped.set(node, [...(this.#restamped.get(node) ?? []), restamped])
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

  rewritesOf(node: string, table: string): readonly Rewrite[] {
    return (this.#restamped.get(node) ?? []).flatMap((restamped) => rewritesOf(restamped, table))
  }

  mayBeRepeated(transaction: string): boolean {
    return this.#repeated.has(transaction)
  }

  hasLostCheckpoints(node: string): boolean {
    return this.#forgetful.has(node)
  }
}
