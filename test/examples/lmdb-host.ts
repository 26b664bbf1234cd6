// The host of the README: a complete database on LMDB with rows, checkpoints and an outbox. Tests compile it and run the contract of hosts on it.

import { randomUUID } from 'node:crypto'
import { type Key, open } from 'lmdb'
import {
  type Batch,
  type Checkpoint,
  type ClusterManager,
  type EmptiedTable,
  type Host,
  type KeyedRow,
  mergeRow,
  type PrimaryKey,
  type PublishConfirmation,
  type PublishedPosition,
  type RemoteTable,
  type RowSelection,
  rowChanges,
  type StoredRow,
  type TableDescription,
  type TableName,
  type Timestamp,
  type Transaction,
  type Write,
} from '../../lib/index.ts'

export class LmdbHost implements Host {
  /** Set after `ClusterManager.open`: local commits take their timestamps from it. */
  cluster: Pick<ClusterManager, 'timestamp' | 'publish' | 'tombstoneLimit' | 'manifest'> | undefined
  readonly #root
  readonly #tables // [database, table]: TableDescription
  readonly #rows // [database, table, key]: StoredRow, tombstones included
  readonly #outbox // 1, 2, 3...: Transaction
  readonly #state // ['checkpoint' or 'published', ...]: unchanged; ['horizon' or 'unrecorded', ...] and 'timestamp': the highest
  readonly #positions = new Map<string, number>() // in the outbox, by id of a transaction that was read

  constructor(path: string) {
    this.#root = open({ path })
    this.#tables = this.#root.openDB<TableDescription, string[]>('tables', {})
    this.#rows = this.#root.openDB<StoredRow, Key[]>('rows', {})
    this.#outbox = this.#root.openDB<Transaction, number>('outbox', {})
    this.#state = this.#root.openDB<unknown, string | string[]>('state', {})
  }

  get = (database: string, table: string, key: unknown) => this.#rows.get([database, table, key as Key])?.record

  /** A local commit: rows and outbox entry in one transaction, then `publish`. */
  async commit(writes: Write[], timestamp = () => this.cluster!.timestamp()): Promise<Transaction> {
    const transaction = await this.#root.childTransaction(() => {
      const transaction = { id: randomUUID(), timestamp: timestamp(), writes } // inside the transaction: timestamps follow commit order
      this.#write(transaction)
      if (this.cluster?.manifest.enabled !== false) return this.#append(transaction)
      for (const write of writes) this.#raise(stateKey('unrecorded', write), transaction.timestamp)
      return transaction
    })
    this.cluster?.publish(transaction).catch(() => {}) // it stays in the outbox until it is confirmed
    return transaction
  }

  /** Drops old tombstones of a table; its horizon keeps the deletes from coming undone. Call it from time to time. */
  async dropTombstones(database: string, table: string, limit = this.cluster?.tombstoneLimit()) {
    await this.#root.childTransaction(() => {
      for (const { key, value } of this.#rows.getRange(rangeOf({ database, table }))) {
        if (value.record || limit === undefined || value.timestamp >= limit) continue
        this.#rows.remove(key)
        this.#raise(stateKey('horizon', { database, table }), value.timestamp)
      }
    })
  }

  /** Returns the number of writes that the horizon excludes. */
  #write({ timestamp, writes, voids }: Transaction, acceptOld = false): number {
    let ignored = 0
    for (const write of writes) {
      const { database, table } = write
      const description = this.#tables.get([database, table])
      if (!description) throw new Error(`Table '${database}.${table}' does not exist`)
      const horizon = acceptOld ? undefined : this.#get<Timestamp>('horizon', write)
      for (const { key, change } of rowChanges(write, timestamp, description.primaryKey)) {
        const at = [database, table, key as Key]
        const row = mergeRow(this.#rows.get(at), change, { voids, horizon }) // the last writer wins
        if (row) this.#rows.put(at, row)
        else ignored++
      }
    }
    this.#raise('timestamp', timestamp)
    return ignored
  }

  #get<Value>(kind: string, table: TableName, node?: string) {
    return this.#state.get(stateKey(kind, table, node)) as Value | undefined
  }

  #raise(name: string | string[], timestamp: Timestamp): void {
    if (timestamp > ((this.#state.get(name) as string) ?? '')) this.#state.put(name, timestamp)
  }

  #append(transaction: Transaction): Transaction {
    const [last = 0] = this.#outbox.getKeys({ reverse: true, limit: 1 })
    this.#outbox.put(last + 1, transaction)
    return transaction
  }

  // --- Host ---------------------------------------------------------------------------------------------------------------

  info = () => ({ version: '1.0.0' })
  lastTimestamp = async () => this.#state.get('timestamp') as Timestamp | undefined
  horizon = async (table: TableName) => this.#get<Timestamp>('horizon', table)
  lastUnrecorded = async (table: TableName) => this.#get<Timestamp>('unrecorded', table)
  loadCheckpoint = async (source: RemoteTable) => this.#get<Checkpoint>('checkpoint', source, source.node)
  publishedPosition = async (database: string, table: string) =>
    this.#get<PublishedPosition>('published', { database, table })
  describe = async () => [...this.#tables.getRange()].map(({ value }) => value)

  async createTable(table: TableDescription) {
    const key = [table.database, table.table]
    if (!this.#tables.doesExist(key)) await this.#tables.put(key, table)
  }

  apply = (batch: Batch) => this.#root.childTransaction(() => this.#apply(batch))

  async emptyTable(emptied: EmptiedTable) {
    await this.#root.childTransaction(() => {
      for (const key of this.#rows.getKeys(rangeOf(emptied.source))) this.#rows.remove(key)
      this.#apply({ ...emptied, transactions: [] })
    })
  }

  /** In one transaction of the database; an error rolls back all of it. */
  #apply({ source, transactions, checkpoint, relay = [], acceptOld, horizon = '' }: Batch) {
    let ignoredWrites = 0
    for (const transaction of transactions) ignoredWrites += this.#write(transaction, acceptOld)
    this.#raise(stateKey('horizon', source), horizon)
    this.#state.put(stateKey('checkpoint', source, source.node), checkpoint)
    for (const transaction of relay) this.#append(transaction)
    return { ignoredWrites }
  }

  /** In the order of the keys. */
  async readRows({ database, table }: TableName, selection: RowSelection): Promise<KeyedRow[]> {
    if (selection.keys) {
      const rows = selection.keys.map((key) => ({ key, row: this.#rows.get([database, table, key as Key])! }))
      return rows.filter(({ row }) => row)
    }
    const { after, limit } = selection
    const range = { ...rangeOf({ database, table }, after), exclusiveStart: true, limit }
    return [...this.#rows.getRange(range)].map(({ key, value }) => ({ key: key[2] as PrimaryKey, row: value }))
  }

  async deleteCheckpoint(source: RemoteTable) {
    await this.#state.remove(stateKey('checkpoint', source, source.node))
  }

  async *readOutbox(after?: { id: string }) {
    const start = ((after && this.#positions.get(after.id)) ?? 0) + 1
    for (const position of [...this.#outbox.getKeys({ start })]) {
      const transaction = this.#outbox.get(position)
      if (!transaction) continue // removed in the meantime
      this.#positions.set(transaction.id, position)
      yield transaction
    }
  }

  async confirmPublished({ positions, upTo, keep = [] }: PublishConfirmation) {
    await this.#root.childTransaction(() => {
      for (const each of positions) this.#state.put(stateKey('published', each), each)
      const end = ((upTo && this.#positions.get(upTo.id)) ?? 0) + 1
      for (const { key, value } of this.#outbox.getRange({ start: 0, end }))
        if (!keep.includes(value.id) && this.#positions.delete(value.id)) this.#outbox.remove(key)
    })
  }

  close = () => this.#root.close()
}

const stateKey = (kind: string, { database, table }: TableName, node = '') => [kind, database, table, node]
const rangeOf = ({ database, table }: TableName, after?: PrimaryKey) => ({
  start: [database, table, ...(after === undefined ? [] : [after as Key])],
  end: [database, table, Buffer.of(0xff)], // after every key
})
