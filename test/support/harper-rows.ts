// The rows of a table of a simulated HarperDB node: in the order of its keys, each with the time of its last write (a later one wins, an equal
// one loses), and what it answers to searches.

export type HarperRecord = Record<string, unknown>
export type HarperTableOptions = {
  database: string
  table: string
  /** Absent: a table that was created without one. */
  primaryKey?: string | undefined
  /** false: the table has no attributes with times. */
  hasTimes?: boolean
  attributes?: readonly string[]
}

export type HarperTableAnswer = Record<string, unknown> & {
  attributes: { attribute: string; is_primary_key?: boolean; indexed: boolean }[]
}

type Row = { key: unknown; record: HarperRecord; time: number }

const rank = (key: unknown): number => (typeof key === 'number' ? 1 : typeof key === 'string' ? 2 : 3)

/** Numbers before strings before lists. */
function compareKeys(a: unknown, b: unknown): number {
  if (rank(a) !== rank(b)) return rank(a) - rank(b)
  if (rank(a) < 3) return (a as string) < (b as string) ? -1 : a === b ? 0 : 1
  const [left, right] = [JSON.stringify(a), JSON.stringify(b)]
  return left < right ? -1 : left === right ? 0 : 1
}

export class HarperTableRows {
  readonly database: string
  readonly table: string
  readonly primaryKey: string | undefined
  readonly attributes: string[]
  readonly #hasTimes: boolean
  /** By key as JSON. */
  readonly #rows = new Map<string, Row>()
  /** By key; undefined after a row has come or gone. */
  #sorted: Row[] | undefined
  /** Times of deleted rows. */
  readonly #deleted = new Map<string, number>()

  constructor({ database, table, primaryKey, hasTimes = true, attributes = [] }: HarperTableOptions) {
    this.database = database
    this.table = table
    this.primaryKey = primaryKey
    this.#hasTimes = hasTimes
    this.attributes = primaryKey ? [primaryKey] : []
    this.define([...(hasTimes ? ['__createdtime__', '__updatedtime__'] : []), ...attributes])
  }

  get size(): number {
    return this.#rows.size
  }

  get #records(): readonly Row[] {
    this.#sorted ??= [...this.#rows.values()].sort((a, b) => compareKeys(a.key, b.key))
    return this.#sorted
  }

  define(attributes: readonly string[]): void {
    for (const name of attributes) if (!this.attributes.includes(name)) this.attributes.push(name)
  }

  #timeOf(name: string): number {
    return Math.max(this.#rows.get(name)?.time ?? 0, this.#deleted.get(name) ?? 0)
  }

  /** `time`: ms since 1970. An older write, and one at the same time, is dropped. `isPatch`: only these attributes are set. */
  put(key: unknown, values: HarperRecord, time: number, isPatch = false): boolean {
    const name = JSON.stringify(key)
    if (this.#timeOf(name) >= time) return false
    const known = this.#rows.get(name)
    const times = this.#hasTimes
      ? { __createdtime__: known?.record.__createdtime__ ?? time, __updatedtime__: time }
      : {}
    const kept = isPatch ? { ...(this.primaryKey && { [this.primaryKey]: key }), ...known?.record } : {}
    const record = { ...kept, ...values, ...times }
    this.define(Object.keys(record))
    if (known) Object.assign(known, { record, time })
    else {
      this.#rows.set(name, { key, record, time })
      this.#sorted = undefined
    }
    return true
  }

  delete(key: unknown, time: number): boolean {
    const name = JSON.stringify(key)
    if (this.#timeOf(name) >= time) return false
    this.#deleted.set(name, time)
    if (this.#rows.delete(name)) this.#sorted = undefined
    return true
  }

  get(key: unknown): HarperRecord | undefined {
    return this.#rows.get(JSON.stringify(key))?.record
  }

  /** As they were written, in the order of their keys. */
  contents(): HarperRecord[] {
    return this.#records.map(({ record }) => record)
  }

  /** All attributes that the table knows: null where the record has none. */
  all(): HarperRecord[] {
    return this.#records.map(({ record }) => this.#complete(record))
  }

  after(key: unknown, limit: number): HarperRecord[] {
    const found = key === undefined ? this.#records : this.#records.filter((each) => compareKeys(each.key, key) > 0)
    return found.slice(0, limit).map(({ record }) => this.#complete(record))
  }

  /** One entry for each key: undefined for an absent row. */
  some(keys: readonly unknown[]): (HarperRecord | undefined)[] {
    return keys.map((key) => {
      const record = this.get(key)
      return record && this.#complete(record)
    })
  }

  describe(): HarperTableAnswer {
    return {
      schema: this.database,
      name: this.table,
      ...(this.primaryKey && { hash_attribute: this.primaryKey }),
      audit: true,
      schema_defined: false,
      attributes: this.attributes.map((attribute) => ({
        attribute,
        ...(attribute === this.primaryKey && { is_primary_key: true }),
        indexed: true,
      })),
      record_count: this.size,
    }
  }

  #complete(record: HarperRecord): HarperRecord {
    return Object.fromEntries(this.attributes.map((name) => [name, record[name] ?? null]))
  }
}
