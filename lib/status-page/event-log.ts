// The last events of a manager as lines of text: a bounded list in which repetitions are counted instead of repeated.

export type EventLevel = 'info' | 'good' | 'warning' | 'error'

/** What an event says. `node`, `database` and `table` as far as it concerns them. */
export type EventLine = { level: EventLevel; text: string; node?: string; database?: string; table?: string }

export type EventRecord = EventLine & {
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
/** Repetitions within this time are one record. */
const REPETITION_MS = 10_000
/** Among so many last records, repetitions are searched. */
const REPETITION_RECORDS = 20

const shorten = (text: string) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text)

export class EventLog {
  readonly #records: EventRecord[] = []
  #lastId = 0

  add(event: string, line: EventLine, time: number): void {
    const id = ++this.#lastId
    const previous = this.#repeated(event, line, time)
    const count = previous ? (previous.count ?? 1) + 1 : undefined
    if (previous) this.#records.splice(this.#records.indexOf(previous), 1)
    this.#records.push({ id, event, time, ...line, text: shorten(line.text), ...(count !== undefined && { count }) })
    if (this.#records.length > MAX_RECORDS) this.#records.shift()
  }

  #repeated(event: string, line: EventLine, time: number): EventRecord | undefined {
    return this.#records
      .slice(-REPETITION_RECORDS)
      .findLast(
        (each) =>
          each.event === event &&
          each.level === line.level &&
          each.node === line.node &&
          each.database === line.database &&
          each.table === line.table &&
          time - each.time < REPETITION_MS,
      )
  }

  /** Newest first. */
  newest(): EventRecord[] {
    return this.#records.toReversed()
  }
}
