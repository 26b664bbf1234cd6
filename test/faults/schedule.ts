// The schedule of a run, derived from its seed: single faults, or two that overlap on different nodes.

import { randomNumbers } from '../support/random.ts'
import type { FaultKind } from './faults.ts'

/** A planned fault; times in ms. `other`: a second node that some faults need. */
export type Planned = { kind: FaultKind; node: number; other: number; after: number; lasts: number; chance: number }
/** Faults that overlap, and the pause after them. */
export type Blow = { faults: Planned[]; rest: number }

const TWO_AT_ONCE = 0.3

export function* schedule(seed: number, nodes: number, kinds: readonly FaultKind[]): Generator<Blow, never> {
  const random = randomNumbers(seed)
  const below = (limit: number) => Math.trunc(random() * limit)
  /** Each round has every kind once, in a new order, so that a short run has many kinds. */
  let bag: FaultKind[] = []
  const draw = (): FaultKind => {
    if (bag.length === 0) bag = [...kinds]
    return bag.splice(below(bag.length), 1)[0]!
  }
  const plan = (node: number, other: number, after: number): Planned => {
    const kind = draw()
    const [least, max] = kind.lasts
    // Prefers short durations.
    const lasts = Math.round(least + random() ** 2 * (max - least))
    return { kind, node, other, after, lasts, chance: random() }
  }
  for (;;) {
    const node = below(nodes)
    const other = (node + 1 + below(nodes - 1)) % nodes
    const faults = [plan(node, other, 0)]
    if (random() < TWO_AT_ONCE) {
      const second = plan(other, node, below(1_000))
      if (faults[0]!.kind.alone || second.kind.alone) bag.push(second.kind)
      else faults.push(second)
    }
    yield { faults, rest: 200 + below(1_500) }
  }
}
