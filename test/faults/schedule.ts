// The faults of a run, all from its seed: one after the other, or two that overlap on different nodes.

import { randomNumbers } from '../support/random.ts'
import type { FaultKind } from './faults.ts'

/** One fault, as planned; times in ms. */
export type Planned = { kind: FaultKind; node: number; after: number; lasts: number }
/** What happens at about the same time, and the rest that follows. */
export type Blow = { faults: Planned[]; rest: number }

const TWO_AT_ONCE = 0.3

export function* schedule(seed: number, nodes: number, kinds: readonly FaultKind[]): Generator<Blow, never> {
  const random = randomNumbers(seed)
  const below = (limit: number) => Math.trunc(random() * limit)
  /** Every kind in its turn, in an order of its own each time round: a short run has most of them. */
  let bag: FaultKind[] = []
  const draw = (): FaultKind => {
    if (bag.length === 0) bag = [...kinds]
    return bag.splice(below(bag.length), 1)[0]!
  }
  const plan = (node: number, after: number): Planned => {
    const kind = draw()
    const [least, most] = kind.lasts
    // Short ones more often than long ones.
    return { kind, node, after, lasts: Math.round(least + random() ** 2 * (most - least)) }
  }
  for (;;) {
    const node = below(nodes)
    const faults = [plan(node, 0)]
    if (nodes > 1 && random() < TWO_AT_ONCE) faults.push(plan((node + 1 + below(nodes - 1)) % nodes, below(1_000)))
    yield { faults, rest: 200 + below(1_500) }
  }
}
