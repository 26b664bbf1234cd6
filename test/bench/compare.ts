// Measures contenders in turn, round by round, and compares each figure of enmesh with its limit.

import { median } from './measure.ts'
import type { PartOptions, Row } from './report.ts'

/** Figures by name. `cpu`: processor time of this process for each transaction, in microseconds. */
export type Figures = Readonly<Record<string, number>>

export type Contender = { readonly name: string; run(): Promise<Figures> }

export type Target = { readonly text: string; met(ratio: number): boolean }
export const atLeast = (bound: number): Target => ({ text: `>= ${bound}`, met: (ratio) => ratio >= bound })
export const atMax = (bound: number): Target => ({ text: `<= ${bound}`, met: (ratio) => ratio <= bound })
export const below = (bound: number): Target => ({ text: `< ${bound}`, met: (value) => value < bound })

/** Compares one figure of two contenders. */
export type Comparison = {
  readonly what: string
  readonly figure: string
  readonly enmesh: string
  readonly limit: string
  readonly target?: Target
  /** The target is one for the figure of enmesh, not for the ratio. */
  readonly isAbsolute?: boolean
}

/** Rounds that are not counted: until the compiler has optimised everything, the contender with more code seems slower. */
const WARM_UP_ROUNDS = 2

type Found = { readonly rounds: Figures[]; failed?: string }

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** A contender that fails is not measured again; the others continue. */
async function inTurn(contenders: readonly Contender[], options: PartOptions): Promise<Map<string, Found>> {
  const found = new Map<string, Found>(contenders.map(({ name }) => [name, { rounds: [] }]))
  const uncounted = options.warmUp > 0 ? (options.warmUpRounds ?? WARM_UP_ROUNDS) : 0
  for (let round = 0; round < uncounted + options.rounds; round++)
    for (const { name, run } of contenders) {
      const its = found.get(name)!
      if (its.failed !== undefined) continue
      try {
        const figures = await run()
        if (round >= uncounted) its.rounds.push(figures)
      } catch (error) {
        its.failed = reasonOf(error)
      }
    }
  return found
}

const judged = (value: number, target: Target | undefined) => ({
  target: target?.text ?? '-',
  met: target ? target.met(value) : '-',
})

/** The ratio is the median of the rounds' ratios, because a disturbance of a round affects both contenders. */
function compared(
  { figure, enmesh, limit, target, isAbsolute }: Comparison,
  found: ReadonlyMap<string, Found>,
): Row['figures'] {
  const of = (name: string) => {
    const { rounds = [], failed } = found.get(name) ?? {}
    if (failed !== undefined) throw new Error(`${name}: ${failed}`)
    return rounds
  }
  const [mine, theirs] = [of(enmesh), of(limit)]
  const middle = (rounds: Figures[], name: string) => median(rounds.map((each) => each[name]!))
  const ratio = median(mine.map((each, round) => each[figure]! / theirs[round]![figure]!))
  const value = middle(mine, figure)
  const hasCpu = mine.every(({ cpu }) => cpu !== undefined) && theirs.every(({ cpu }) => cpu !== undefined)
  return {
    enmesh: value,
    limit: middle(theirs, figure),
    ratio,
    ...judged(isAbsolute ? value : ratio, target),
    ...(hasCpu ? { 'enmesh cpu us': middle(mine, 'cpu'), 'limit cpu us': middle(theirs, 'cpu') } : {}),
  }
}

/** Rows of all comparisons between contenders on the same servers. `on` and `entries` are the rows'. */
export async function compare(
  contenders: readonly Contender[],
  comparisons: readonly Comparison[],
  { on, entries }: Pick<Row, 'on' | 'entries'>,
  options: PartOptions,
): Promise<Row[]> {
  const found = await inTurn(contenders, options)
  return comparisons.map((comparison) => {
    const { what, limit, isAbsolute = false } = comparison
    return rowOf({ what, on, list: limit, entries, isAbsolute }, () => compared(comparison, found))
  })
}

/** A row with the result of `figures`, or with the reason of its failure. */
export function rowOf(identity: Omit<Row, 'figures' | 'failed'>, figures: () => Row['figures']): Row {
  try {
    return { ...identity, figures: figures() }
  } catch (error) {
    return { ...identity, figures: {}, failed: reasonOf(error) }
  }
}

/** A figure with a target, and optionally the same figure of the baseline. */
export const bounded = (enmesh: number, without?: number, target?: Target): Row['figures'] => ({
  enmesh,
  without: without ?? '-',
  ...judged(enmesh, target),
})
