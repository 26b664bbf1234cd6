// The reference host with a journal: it records every applied transaction in the same LMDB transaction. The journal shows that each was
// applied once and in order, which the rows alone do not.

import type { ApplyResult, Batch, RemoteTransaction, TableDescription, Write } from '../../lib/host/host.ts'
import type { Database } from '../host/database.ts'
import { LmdbHost } from '../host/lmdb-host.ts'
import { recordsOf } from '../support/writes.ts'
import { isOwn } from './writes.ts'

/** An ordinary table that is not replicated. */
const JOURNAL: TableDescription = { database: 'journal', table: 'applied', primaryKey: 'id', attributes: [] }

/** An applied transaction. */
export type Entry = {
  /** Sorts in the order of application. */
  id: string
  node: string
  table: string
  epoch: string
  sequence: number
  tx: string
  timestamp: string
  /** Key of the row that only this transaction writes. */
  key: string
  /** The system's time, ms since 1970, without the node's clock fault. */
  at: number
}

export const createJournal = (database: Database) => database.createTable(JOURNAL)

/** All entries in the order of application. */
export const readJournal = (database: Database): Entry[] => [
  ...(database.scan(JOURNAL.database, JOURNAL.table) as Iterable<Entry>),
]

export class JournalHost extends LmdbHost {
  readonly #start: number
  readonly #now: () => number
  readonly #applied: (last: Entry) => void
  #count = 0

  /** `now` is the system's time. `applied` is called after each commit that applied transactions. */
  constructor(database: Database, start: number, now: () => number, applied: (last: Entry) => void) {
    super(database, '1.0.0')
    this.#start = start
    this.#now = now
    this.#applied = applied
  }

  /** Id of the last entry, which may not be committed yet. */
  get lastEntry(): string {
    return `${String(this.#start).padStart(6, '0')}.${String(this.#count).padStart(9, '0')}`
  }

  #next(): string {
    this.#count++
    return this.lastEntry
  }

  override async describe(): Promise<TableDescription[]> {
    return (await super.describe()).filter(({ database }) => database !== JOURNAL.database)
  }

  override async apply(batch: Batch): Promise<ApplyResult> {
    const records = batch.transactions.map((each) => this.#entry(batch, each))
    const last = records.at(-1)
    if (!last) return super.apply(batch)
    const note: Write = { operation: 'insert', database: JOURNAL.database, table: JOURNAL.table, records }
    const { changedRows = 0, ...result } = await super.apply({
      ...batch,
      transactions: [...batch.transactions, { ...batch.transactions.at(-1)!, writes: [note] }],
    })
    this.#applied(last)
    return { ...result, changedRows: changedRows - records.length }
  }

  #entry({ source, checkpoint }: Batch, { id, timestamp, origin, sequence, writes }: RemoteTransaction): Entry {
    const key = writes.flatMap((write) => recordsOf(write).map((record) => record.id)).find(isOwn)
    return {
      id: this.#next(),
      node: source.node,
      table: source.table,
      epoch: origin.epoch ?? checkpoint.epoch,
      sequence,
      tx: id,
      timestamp,
      key: key ?? '',
      at: this.#now(),
    }
  }
}
