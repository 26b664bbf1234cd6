// The samples of the last ten minutes, of the node and of each remote table, in rings of fixed size. So a page that is opened later
// has them too.

/** Numbers per second, and what waits. `null` in an answer: there was no sample. */
export type NodeSample = {
  /** Transactions committed here that the local leaf has acknowledged; transactions of other nodes applied here; rows copied: per second. */
  committed: number
  applied: number
  copied: number
  /** Known transactions that are not applied here yet, and seconds for which the oldest of them has been waiting. */
  lag: number
  lagSeconds: number
}

/** Of a remote table. `sentLag`: local transactions that the remote node has not applied, by its last report. */
export type TableSample = { applied: number; lag: number; sent: number; sentLag: number }

export type Series<Sample> = { times: number[]; values: { [Name in keyof Sample]: (number | null)[] } }

export type NodeTotals = { committed: number; applied: number; copied: number; lag: number; lagSeconds: number }

/** `applied`: a counter. `sent`: the last index that the remote node has applied, in `sentEpoch`. */
export type TableTotals = {
  key: string
  applied: number
  lag: number
  sent?: number | undefined
  sentEpoch?: string | undefined
  sentLag?: number | undefined
}

/** ms between two samples. */
export const SAMPLE_INTERVAL_MS = 2_000
const CAPACITY = 300
/** Rates are averages over this number of samples: 10 s. */
const RATE_SAMPLES = 5
/** Each takes 5 KB. Tables beyond have no history; their rates are 0. */
const MAX_TABLES = 5_000

const NODE_COLUMNS = ['committed', 'applied', 'copied', 'lag', 'lagSeconds'] as const
const TABLE_COLUMNS = ['applied', 'lag', 'sent', 'sentLag'] as const

type Columns<Name extends string> = Record<Name, Float32Array>

const emptyColumns = <Name extends string>(names: readonly Name[]) =>
  Object.fromEntries(names.map((name) => [name, new Float32Array(CAPACITY).fill(Number.NaN)])) as Columns<Name>

type TableHistory = { columns: Columns<keyof TableSample>; last: TableTotals; recordedAt: number }

export class History {
  readonly #times = new Float64Array(CAPACITY)
  readonly #node = emptyColumns(NODE_COLUMNS)
  readonly #tables = new Map<string, TableHistory>()
  /** Number of samples so far; sample `n` is in slot `n % CAPACITY`. */
  #count = 0
  #last: { time: number; totals: NodeTotals } | undefined

  /** `time`: ms since 1970. Negative differences of counters count as 0: the manager was replaced. */
  record(time: number, totals: NodeTotals, tables: readonly TableTotals[]): void {
    const slot = this.#count % CAPACITY
    const seconds = this.#last ? Math.max(0.001, (time - this.#last.time) / 1_000) : Number.POSITIVE_INFINITY
    const previous = this.#last?.totals ?? totals
    const rate = (name: 'committed' | 'applied' | 'copied') => Math.max(0, totals[name] - previous[name]) / seconds
    this.#times[slot] = time
    this.#node.committed[slot] = rate('committed')
    this.#node.applied[slot] = rate('applied')
    this.#node.copied[slot] = rate('copied')
    this.#node.lag[slot] = totals.lag
    this.#node.lagSeconds[slot] = totals.lagSeconds
    for (const table of tables) this.#recordTable(table, slot, seconds)
    this.#last = { time, totals }
    this.#count++
    for (const [key, { columns, recordedAt }] of this.#tables) {
      // Removed from the manifest.
      if (this.#count - recordedAt >= CAPACITY) this.#tables.delete(key)
      else if (recordedAt < this.#count) for (const name of TABLE_COLUMNS) columns[name][slot] = Number.NaN
    }
  }

  #recordTable(table: TableTotals, slot: number, seconds: number): void {
    let history = this.#tables.get(table.key)
    if (!history) {
      if (this.#tables.size >= MAX_TABLES) return
      history = { columns: emptyColumns(TABLE_COLUMNS), last: table, recordedAt: 0 }
      this.#tables.set(table.key, history)
    }
    const { columns, last } = history
    const isSameEpoch = table.sentEpoch === last.sentEpoch
    const sent = isSameEpoch && table.sent !== undefined && last.sent !== undefined ? table.sent - last.sent : 0
    columns.applied[slot] = Math.max(0, table.applied - last.applied) / seconds
    columns.lag[slot] = table.lag
    columns.sent[slot] = Math.max(0, sent) / seconds
    columns.sentLag[slot] = table.sentLag ?? Number.NaN
    history.last = table
    history.recordedAt = this.#count + 1
  }

  /** Averages of the last 10 s, per second. */
  rates(key: string): { received: number; sent: number } {
    const columns = this.#tables.get(key)?.columns
    return columns
      ? { received: this.#mean(columns.applied), sent: this.#mean(columns.sent) }
      : { received: 0, sent: 0 }
  }

  #mean(column: Float32Array): number {
    const samples = Math.min(RATE_SAMPLES, this.#count)
    let sum = 0
    for (let back = 1; back <= samples; back++) {
      const value = column[(this.#count - back) % CAPACITY]!
      if (!Number.isNaN(value)) sum += value
    }
    return samples === 0 ? 0 : sum / samples
  }

  /** The newest sample; undefined before the first one. */
  lastSample(): (NodeSample & { time: number }) | undefined {
    if (this.#count === 0) return undefined
    const slot = (this.#count - 1) % CAPACITY
    const values = Object.fromEntries(NODE_COLUMNS.map((name) => [name, rounded(this.#node[name][slot]!) ?? 0]))
    return { time: this.#times[slot]!, ...(values as NodeSample) }
  }

  node(): Series<NodeSample> {
    return this.#series(NODE_COLUMNS, this.#node)
  }

  /** Undefined for a table that has no history. */
  table(key: string): Series<TableSample> | undefined {
    const columns = this.#tables.get(key)?.columns
    return columns && this.#series(TABLE_COLUMNS, columns)
  }

  #series<Name extends string>(names: readonly Name[], columns: Columns<Name>) {
    const slots = this.#slots()
    const valuesOf = (column: Float32Array) => slots.map((slot) => rounded(column[slot]!))
    return {
      times: slots.map((slot) => this.#times[slot]!),
      values: Object.fromEntries(names.map((name) => [name, valuesOf(columns[name])])) as Record<
        Name,
        (number | null)[]
      >,
    }
  }

  /** Oldest first. */
  #slots(): number[] {
    const length = Math.min(this.#count, CAPACITY)
    return Array.from({ length }, (_, index) => (this.#count - length + index) % CAPACITY)
  }
}

/** Three digits after the point are enough for a picture. JSON has no NaN. */
const rounded = (value: number): number | null => (Number.isNaN(value) ? null : Math.round(value * 1_000) / 1_000)
