// The last events of a manager as lines of text: a bounded list in which repetitions are counted instead of repeated.

export type EventLevel = 'info' | 'good' | 'warning' | 'error'

/**
 * What an event says. `node`, `database` and `table` as far as it concerns them. `group`: events of several tables of a node that say the
 * same are one record. `isRecovery`: it is news only after a problem at the same place.
 */
export type EventLine = {
  level: EventLevel
  text: string
  node?: string
  database?: string
  table?: string
  group?: string
  isRecovery?: boolean
}

export type EventRecord = Omit<EventLine, 'group' | 'isRecovery'> & {
  /** Higher for each new event and each repetition. */
  id: number
  event: string
  /** ms since 1970: of the last repetition. */
  time: number
  /** 2 or more: so many events of this kind and place, within seconds of each other. */
  count?: number
}

const MAX_RECORDS = 200
const MAX_TEXT = 400
/** A recovery beyond is not shown. */
const MAX_PROBLEMS = 10_000
/** Repetitions within this time are one record. */
const REPETITION_MS = 10_000
/** Among so many last records, repetitions are searched. */
const REPETITION_RECORDS = 20

const shorten = (text: string) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text)

const isSamePlace = (one: EventLine, other: EventLine) =>
  one.node === other.node && one.database === other.database && one.table === other.table

type Entry = { line: EventLine; record: EventRecord }

export class EventLog {
  readonly #entries: Entry[] = []
  /** Events, by event and place, that report a problem and were not followed by a recovery yet. */
  readonly #problems = new Set<string>()
  #lastId = 0

  add(event: string, line: EventLine, time: number): void {
    if (!this.#isNews(event, line)) return
    const previous = this.#repeated(event, line, time)
    const { level, text, node, database, table } = line
    const record: EventRecord = { id: ++this.#lastId, event, time, level, text: shorten(text) }
    if (node !== undefined) record.node = node
    if (previous) {
      this.#entries.splice(this.#entries.indexOf(previous), 1)
      record.count = (previous.record.count ?? 1) + 1
    }
    const isOnePlace = !previous || (isSamePlace(previous.line, line) && previous.record.table === table)
    if (isOnePlace && database !== undefined && table !== undefined) Object.assign(record, { database, table })
    this.#entries.push({ line, record })
    if (this.#entries.length > MAX_RECORDS) this.#entries.shift()
  }

  #isNews(event: string, line: EventLine): boolean {
    const key = JSON.stringify([event, line.node, line.database, line.table])
    if (line.isRecovery) return this.#problems.delete(key)
    const isProblem = line.level === 'warning' || line.level === 'error'
    if (isProblem && this.#problems.size < MAX_PROBLEMS) this.#problems.add(key)
    return true
  }

  #repeated(event: string, line: EventLine, time: number): Entry | undefined {
    return this.#entries
      .slice(-REPETITION_RECORDS)
      .findLast(
        ({ line: other, record }) =>
          record.event === event &&
          other.level === line.level &&
          time - record.time < REPETITION_MS &&
          (isSamePlace(other, line) ||
            (line.group !== undefined && other.group === line.group && other.node === line.node)),
      )
  }

  /** Newest first. */
  newest(): EventRecord[] {
    return this.#entries.map(({ record }) => record).reverse()
  }
}
