// Random cuts of links, which a seed repeats: their times, their pairs and how long they last follow from it.

import type { Timers } from '../../util/timers.ts'
import type { CutMode } from './wires.ts'

export type DisturbOptions = {
  /** ms between two cuts, on average. Default: 1,000. */
  every?: number
  /** ms that a cut lasts at most. Default: 2,000. */
  lasts?: number
  /** No node is notified. Default: every second cut, at random. */
  silent?: boolean
}

export type DisturbanceParts = {
  timers: Timers
  /** From 0 to below 1. */
  random(): number
  /** Links may be cut between any two of them. */
  nodes: readonly string[]
  cut(a: string, b: string, mode: CutMode): void
  heal(a: string, b: string): void
}

/** Returns a function that ends it and heals what it has cut. */
export function disturb(
  { timers, random, nodes, cut, heal }: DisturbanceParts,
  { every = 1_000, lasts = 2_000, silent }: DisturbOptions,
): () => void {
  const pairs = nodes.flatMap((a, index) => nodes.slice(index + 1).map((b) => [a, b] as const))
  if (pairs.length === 0) throw new Error('a disturbance needs two nodes: name them, or open them before')
  /** The pairs that are cut, each with the function that cancels its end. */
  const cuts = new Map<readonly [string, string], () => void>()
  let cancelNext = () => {}
  const end = (pair: readonly [string, string]) => {
    cuts.delete(pair)
    heal(...pair)
  }
  const next = () => {
    // Drawn whether they are used or not, so that one cut does not depend on the others.
    const [pair, ms, isSilent] = [pairs[Math.floor(random() * pairs.length)]!, random() * lasts, random() < 0.5]
    if (!cuts.has(pair)) {
      cut(...pair, (silent ?? isSilent) ? 'silent' : 'notified')
      cuts.set(
        pair,
        timers.after(ms, () => end(pair)),
      )
    }
    cancelNext = timers.after(2 * every * random(), next)
  }
  cancelNext = timers.after(2 * every * random(), next)
  return () => {
    cancelNext()
    for (const [pair, cancel] of [...cuts]) {
      cancel()
      end(pair)
    }
  }
}
