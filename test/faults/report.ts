// The output of a run.

import type { Verdict } from './checker.ts'

const SHOWN = 20

export class Report {
  readonly #started = performance.now()
  readonly #faults = new Map<string, number>()
  readonly #longest = new Map<string, number>()
  #unjudged = 0
  #comparisons = 0
  #comparedRows = 0
  readonly violations: string[] = []

  say(text: string): void {
    process.stdout.write(`${text}\n`)
  }

  /** Prints the text with the time since the start. */
  event(text: string): void {
    const seconds = (performance.now() - this.#started) / 1_000
    this.say(`${seconds.toFixed(1).padStart(6)} s  ${text}`)
  }

  violation(text: string): void {
    this.violations.push(text)
    if (this.violations.length <= SHOWN) this.event(`VIOLATION ${text}`)
  }

  /** A violation that an overloaded machine may have caused. */
  unjudged(text: string): void {
    this.#unjudged++
    this.event(`NOT JUDGED ${text}`)
  }

  /** A table was compared between two nodes. */
  compared(rows: number): void {
    this.#comparisons++
    this.#comparedRows += rows
  }

  fault(kind: string): void {
    this.#faults.set(kind, (this.#faults.get(kind) ?? 0) + 1)
  }

  inflicted(kind: string): boolean {
    return this.#faults.has(kind)
  }

  stall(kind: string, ms: number): void {
    this.#longest.set(kind, Math.max(this.#longest.get(kind) ?? 0, ms))
  }

  summary(written: number, verdict: Verdict | undefined): void {
    const table = (title: string, counts: Map<string, string | number>) =>
      this.say(`${title.padEnd(16)}${[...counts].map(([name, count]) => `${name} ${count}`).join(', ') || 'none'}`)
    const row = (title: string, value: string | number) => this.say(`${title.padEnd(16)}${value}`)
    this.say('')
    table('faults', this.#faults)
    row('writes', `${written} acknowledged`)
    if (verdict) {
      row('applied', `${verdict.applied}, from ${verdict.messages} messages, at most ${verdict.largest} from one`)
      row('losses', `${verdict.lost}, with ${verdict.gaps} gaps reported, ${verdict.uncounted} of them uncounted`)
      row('duplicates', verdict.duplicates)
      row('disorder', verdict.disorder)
      row('quarantined', verdict.quarantined)
    }
    row('compared', `${this.#comparedRows} rows in ${this.#comparisons} comparisons of two nodes`)
    table('longest stall', new Map([...this.#longest].map(([kind, ms]) => [kind, `${(ms / 1_000).toFixed(1)} s`])))
    if (this.#unjudged > 0) row('not judged', `${this.#unjudged} stalls while the machine was overloaded`)
    row('violations', this.violations.length)
    const hidden = this.violations.length - SHOWN
    if (hidden > 0) this.say(`(${hidden} violations are not shown above)`)
  }
}
