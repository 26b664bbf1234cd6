// Records acknowledged writes independently of every node: the expected rows of a table.

type Entry = { timestamp: string; value: string | undefined }

export class Ledger {
  readonly #acknowledged = new Map<string, Entry>()
  /** Writes without an answer, because the node was killed: they may be committed or not. */
  readonly #unanswered = new Map<string, Set<string | undefined>>()
  acknowledged = 0

  /** With `value` undefined, a delete. */
  addAcknowledged(id: string, value: string | undefined, timestamp: string): void {
    this.acknowledged++
    const known = this.#acknowledged.get(id)
    if (!known || known.timestamp < timestamp) this.#acknowledged.set(id, { timestamp, value })
  }

  addUnanswered(id: string, value: string | undefined): void {
    const values = this.#unanswered.get(id) ?? new Set()
    this.#unanswered.set(id, values.add(value))
  }

  /** The differences between these rows and the acknowledged writes. */
  differences(rows: readonly Record<string, unknown>[]): string[] {
    const differences: string[] = []
    const found = new Map(rows.map(({ id, value }) => [String(id), String(value)]))
    for (const [id, { value }] of this.#acknowledged) {
      const actual = found.get(id)
      if (actual === value || this.#unanswered.get(id)?.has(actual)) continue
      differences.push(`${id} is ${actual}, acknowledged: ${value}`)
    }
    for (const [id, value] of found)
      if (!this.#acknowledged.has(id) && !this.#unanswered.get(id)?.has(value))
        differences.push(`${id} was never written`)
    return differences
  }
}
