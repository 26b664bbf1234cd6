// What a benchmark found: rows of figures, as JSON or as tables for people.

export type Figure = number | string | boolean

/** One measurement. The names of the figures say their units; a failed measurement has a reason instead of figures. */
export type Row = {
  /** The environment: `disabled`, `memory mesh`, ... */
  readonly on: string
  /** What was measured, on how many entries of what. */
  readonly list: string
  readonly entries: number
  readonly what: string
  readonly figures: Readonly<Record<string, Figure>>
  readonly failed?: string
  /** The target is one for the figure of enmesh, although there is a ratio. */
  readonly isAbsolute?: boolean
}

/** What can be named on the command line. */
export type Part = {
  readonly name: string
  /** Explains the terms of the tables. */
  readonly legend: readonly string[]
  /** Heads of the columns `what`, `on`, `list` and `entries`. */
  readonly columns: readonly [string, string, string, string]
  run(options: PartOptions): AsyncIterable<Row>
}

export type PartOptions = {
  /** How many entries, each in turn. */
  readonly entries: readonly number[]
  /** Only what runs on something of such a name. */
  readonly on: string
  /** Measured after the warm-up; the figures are their medians. */
  readonly rounds: number
  /** ms of rounds before those that count, at least one round. */
  readonly warmUp: number
  /** The same where contenders are compared: rounds, if `warmUp` is not 0. */
  readonly warmUpRounds?: number
  /** For how long each round of a flow of transactions is fed. */
  readonly seconds: number
  /** Transactions of each round that go alone, one after the other. */
  readonly samples: number
  /** Transactions that lie in a stream before it is caught up with. */
  readonly backlog: number
  /** Rows of a table that is copied or compared. */
  readonly rows: number
  /** Tables that are subscribed to and idle. */
  readonly subscriptions: number
}

const numberText = (value: number): string =>
  value.toLocaleString('en-US', { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 })

const figureText = (figure: Figure): string =>
  typeof figure === 'number' ? numberText(figure) : typeof figure === 'string' ? figure : figure ? 'yes' : 'NO'

const cells = (identity: readonly string[], figures: readonly string[]) =>
  [
    ...identity.map((text, column) => text.padEnd([38, 18, 25][column] ?? 0)),
    ...figures.map((text) => text.padStart(15)),
  ]
    .join('')
    .trimEnd()

/** Lines of a table, each as soon as there is its row; a head wherever the rows begin to have other figures. */
export function tableWriter(columns: Part['columns'], write: (line: string) => void): (row: Row) => void {
  const [operation, place, kind, number] = columns
  let titles = ''
  return ({ what, on, list, entries, figures, failed }) => {
    const names = Object.keys(figures)
    const identity = [what, on, list]
    if (failed !== undefined) return write(cells(identity, [numberText(entries), ` failed: ${failed}`]))
    if (titles !== names.join()) write(`\n${cells([operation, place, kind], [number, ...names])}`)
    titles = names.join()
    write(cells(identity, [entries, ...Object.values(figures)].map(figureText)))
  }
}

/** One line for a row with a target: met or missed, and by what figure. */
export function targetLine(part: string, { what, on, list, figures, isAbsolute = false }: Row): string {
  const { ratio, enmesh, target, met } = figures
  const value = isAbsolute || ratio === undefined ? enmesh! : ratio
  const where = [part, what, on, list].filter((text) => text !== '-').join(', ')
  return `  ${(met === true ? 'met' : 'missed').padEnd(8)}${`${figureText(value)} (${target})`.padEnd(22)}${where}`
}

export const toJson = (part: string, { figures, isAbsolute: _, ...row }: Row): object => ({ part, ...row, ...figures })
