// Contenders measured in turn, round by round, and each figure of ours beside what limits it.

import { median } from './measure.ts'
import type { PartOptions, Row } from './report.ts'

/** By name; `cpu` is microseconds of this process's processor time for each transaction. */
export type Figures = Readonly<Record<string, number>>

export type Contender = { readonly name: string; run(): Promise<Figures> }

export type Target = { readonly text: string; met(ratio: number): boolean }
export const atLeast = (bound: number): Target => ({ text: `>= ${bound}`, met: (ratio) => ratio >= bound })
export const atMax = (bound: number): Target => ({ text: `<= ${bound}`, met: (ratio) => ratio <= bound })
export const below = (bound: number): Target => ({ text: `< ${bound}`, met: (value) => value < bound })

/** One figure of one contender beside the same of another. */
export type Comparison = {
  readonly what: string
  readonly figure: string
  readonly enmesh: string
  readonly limit: string
  readonly target?: Target
}

/** A database server is long past them: until the compiler has settled, whoever runs more code seems slower. */
const WARM_UP_ROUNDS = 3

type Found = { readonly rounds: Figures[]; failed?: string }

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** A contender that fails is measured no further; the others are. */
async function inTurn(contenders: readonly Contender[], options: PartOptions): Promise<Map<string, Found>> {
  const found = new Map<string, Found>(contenders.map(({ name }) => [name, { rounds: [] }]))
  const uncounted = options.warmUp > 0 ? WARM_UP_ROUNDS : 0
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

/** The ratio is the median of the rounds' ratios: what disturbs a round disturbs both. */
function compared({ figure, enmesh, limit, target }: Comparison, found: ReadonlyMap<string, Found>): Row['figures'] {
  const of = (name: string) => {
    const { rounds = [], failed } = found.get(name) ?? {}
    if (failed !== undefined) throw new Error(`${name}: ${failed}`)
    return rounds
  }
  const [mine, remote] = [of(enmesh), of(limit)]
  const middle = (rounds: Figures[], name: string) => median(rounds.map((each) => each[name]!))
  const ratio = median(mine.map((each, round) => each[figure]! / remote[round]![figure]!))
  const hasCpu = mine.every(({ cpu }) => cpu !== undefined) && remote.every(({ cpu }) => cpu !== undefined)
  return {
    enmesh: middle(mine, figure),
    limit: middle(remote, figure),
    ratio,
    ...judged(ratio, target),
    ...(hasCpu ? { 'ours cpu us': middle(mine, 'cpu'), 'limit cpu us': middle(remote, 'cpu') } : {}),
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
    const { what, limit } = comparison
    return rowOf({ what, on, list: limit, entries }, () => compared(comparison, found))
  })
}

/** A row of what `figures` gives, or of why it gives none. */
export function rowOf(identity: Omit<Row, 'figures' | 'failed'>, figures: () => Row['figures']): Row {
  try {
    return { ...identity, figures: figures() }
  } catch (error) {
    return { ...identity, figures: {}, failed: reasonOf(error) }
  }
}

/** A figure that has a bound of its own, beside the same without what is measured. */
export const bounded = (enmesh: number, without?: number, target?: Target): Row['figures'] => ({
  enmesh,
  without: without ?? '-',
  ...judged(enmesh, target),
})
