// The reference host with a journal: it records every applied transaction in the same LMDB transaction. The journal shows that each was
// applied once and in order, which the rows alone do not. Copied rows are no transactions: a copy says nothing about order or number.

import type { ApplyResult, Batch, RemoteTransaction, Restamp, TableDescription, Write } from '../../lib/host/host.ts'
import { isChangeMarker } from '../../lib/replication/copy/change-marker.ts'
import type { Database } from '../host/database.ts'
import { LmdbHost } from '../host/lmdb-host.ts'
import { recordsOf } from '../support/writes.ts'
import { firstName } from './names.ts'
import { isOwn, type Marker, type Restamped } from './writes.ts'

/** An ordinary table that is not replicated. */
const JOURNAL: TableDescription = { database: 'journal', table: 'applied', primaryKey: 'id', attributes: [] }

/** An applied transaction. */
export type Entry = {
  /** Sorts in the order of application. */
  id: string
  /** First name of the source. */
  node: string
  table: string
  epoch: string
  sequence: number
  /** Running number in the epoch. */
  index: number
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

export type JournalOptions = {
  /** Number of this start of the node. */
  start: number
  /** The system's time. */
  now(): number
  /** Called after each commit that applied transactions. */
  applied(last: Entry): void
  /** Called before a change marker is stored in the outbox. */
  announcing(marker: Marker): void
  /** The key of a transaction that begins now. */
  nextKey(): string
}

export class JournalHost extends LmdbHost {
  readonly #start: number
  readonly #now: () => number
  readonly #applied: (last: Entry) => void
  readonly #announcing: (marker: Marker) => void
  readonly #nextKey: () => string
  #count = 0
  /** All restamps that changed something. */
  readonly restamps: Restamped[] = []

  constructor(database: Database, { start, now, applied, announcing, nextKey }: JournalOptions) {
    super(database, '1.0.0')
    this.#start = start
    this.#now = now
    this.#applied = applied
    this.#announcing = announcing
    this.#nextKey = nextKey
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
    for (const { id, timestamp, writes } of batch.relay?.filter(isChangeMarker) ?? [])
      this.#announcing({ id: this.#nextKey(), tx: id, timestamp, table: writes[0]!.table })
    if (batch.isCopy) return super.apply(batch)
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

  override async restamp(restamp: Restamp): Promise<void> {
    const restamped: Restamped = { key: this.#nextKey(), transactions: [] }
    await super.restamp({
      limit: restamp.limit,
      begin() {
        const pass = restamp.begin()
        const finish = () => {
          const result = pass.finish()
          restamped.transactions = result.transactions
          return result
        }
        return { add: (row) => pass.add(row), finish }
      },
    })
    if (restamped.transactions.length > 0) this.restamps.push(restamped)
  }

  #entry({ source, checkpoint }: Batch, { id, timestamp, origin, sequence, index, writes }: RemoteTransaction): Entry {
    const key = writes.flatMap((write) => recordsOf(write).map((record) => record.id)).find(isOwn)
    return {
      id: this.#next(),
      node: firstName(source.node),
      table: source.table,
      epoch: origin.epoch ?? checkpoint.epoch,
      sequence,
      index,
      tx: id,
      timestamp,
      key: key ?? '',
      at: this.#now(),
    }
  }
}
