// The host on SQL of a README: tables with columns, and beside them what the cluster needs. Tests compile it, and run the contract of hosts on it.

import { randomUUID } from 'node:crypto'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { deserialize, serialize } from 'node:v8'
import {
  type Batch,
  type Checkpoint,
  type ClusterManager,
  type EmptiedTable,
  type Host,
  type KeyedRow,
  LOWEST_TIMESTAMP,
  mergeRow,
  type NewAttributes,
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

/** A table with a dot in its name takes part: "dev.dog". A row of it without an entry in enmesh_rows was stored before clustering. */
const SCHEMA = `
  PRAGMA journal_mode = WAL;
  CREATE TABLE IF NOT EXISTS enmesh_rows (tbl, key, timestamp, updated, deleted, PRIMARY KEY (tbl, key)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS enmesh_outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, id, body);
  CREATE INDEX IF NOT EXISTS enmesh_outbox_id ON enmesh_outbox (id);
  CREATE TABLE IF NOT EXISTS enmesh_state (tbl, kind, node, value, PRIMARY KEY (tbl, kind, node)) WITHOUT ROWID`

export class SqliteHost implements Host {
  /** Set after `ClusterManager.open`: local commits take their timestamps from it. */
  cluster: Pick<ClusterManager, 'timestamp' | 'publish' | 'tombstoneLimit' | 'tableDropped' | 'manifest'> | undefined
  readonly #sqlite: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()
  #base: Timestamp = LOWEST_TIMESTAMP

  constructor(path: string) {
    this.#sqlite = new DatabaseSync(path)
    this.#sqlite.exec(SCHEMA)
  }

  /** A prepared statement. */
  #sql(text: string): StatementSync {
    const statement = this.#statements.get(text) ?? this.#sqlite.prepare(text)
    this.#statements.set(text, statement)
    statement.setReadBigInts(true)
    return statement
  }

  #transaction<Result>(work: () => Result): Result {
    this.#sqlite.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      this.#sqlite.exec('COMMIT')
      return result
    } finally {
      if (this.#sqlite.isTransaction) this.#sqlite.exec('ROLLBACK')
    }
  }

  /** All columns. Integers beyond 2^53 are bigints. */
  get(database: string, table: string, key: PrimaryKey): Record<string, unknown> | undefined {
    const { primaryKey } = this.#table({ database, table })
    const row = this.#sql(`SELECT * FROM ${quote(nameOf({ database, table }))} WHERE ${quote(primaryKey)} = ?`).get(key)
    return row && Object.fromEntries(Object.entries(row).map(([column, value]) => [column, fromColumn(value)]))
  }

  /** A local commit: rows and outbox entry in one transaction, then `publish`. */
  commit(writes: Write[], timestamp = () => this.cluster!.timestamp()): Transaction {
    const transaction = this.#transaction(() => {
      const transaction = { id: randomUUID(), timestamp: timestamp(), writes } // inside the transaction: timestamps follow commit order
      for (const write of writes) this.#write(transaction, write)
      if (this.cluster?.manifest.enabled !== false) return this.#append(transaction)
      for (const write of writes) this.#raise(transaction.timestamp, 'unrecorded', nameOf(write))
      return transaction
    })
    this.cluster?.publish(transaction).catch(() => {}) // it stays in the outbox until it is confirmed
    return transaction
  }

  dropTable(database: string, table: string): void {
    const name = nameOf({ database, table })
    this.#transaction(() => {
      this.#sqlite.exec(`DROP TABLE ${quote(name)}`)
      this.#sql('DELETE FROM enmesh_rows WHERE tbl = ?').run(name)
      this.#sql("DELETE FROM enmesh_state WHERE tbl = ? AND kind NOT IN ('published', 'unrecorded')").run(name) // the stream stays
    })
    this.cluster?.tableDropped({ database, table })
  }

  /** Drops old tombstones of a table; its horizon keeps the deletes from coming undone. Call it from time to time. */
  dropTombstones(database: string, table: string, limit = this.cluster?.tombstoneLimit()): void {
    const which = [nameOf({ database, table }), limit ?? ''] as const
    const old = 'FROM enmesh_rows WHERE tbl = ? AND deleted = 1 AND timestamp < ?'
    this.#transaction(() => {
      const { highest } = this.#sql(`SELECT max(timestamp) AS highest ${old}`).get(...which)!
      this.#raise((highest ?? '') as Timestamp, 'horizon', which[0])
      this.#sql(`DELETE ${old}`).run(...which)
    })
  }

  #table({ database, table }: TableName): TableDescription {
    const columns = this.#sql('SELECT name, pk FROM pragma_table_info(?)').all(nameOf({ database, table }))
    const primaryKey = columns.find(({ pk }) => pk === 1n)?.name as string | undefined
    if (primaryKey === undefined) throw new Error(`Table '${database}.${table}' does not exist, or has no primary key`)
    return { database, table, primaryKey, attributes: columns.map(({ name }) => name as string) }
  }

  #read(table: TableName, key: PrimaryKey): StoredRow | undefined {
    const stored = this.#sql('SELECT * FROM enmesh_rows WHERE tbl = ? AND key = ?').get(nameOf(table), key)
    const row = this.get(table.database, table.table, key)
    if (!stored && !row) return undefined
    const known = (stored?.timestamp ?? LOWEST_TIMESTAMP) as Timestamp
    const timestamp = known === LOWEST_TIMESTAMP ? this.#base : known
    const updated = JSON.parse((stored?.updated as string) ?? 'null') ?? undefined
    // NULL is no value, unless an update has set it.
    const values = Object.entries(row ?? {}).filter(([column, value]) => value !== null || updated?.[column])
    return { timestamp, ...(row && { record: Object.fromEntries(values) }), ...(updated && { updated }) }
  }

  #write({ timestamp, voids }: Transaction, write: Write, acceptOld = false, effect = noEffect()): void {
    const table = this.#table(write)
    const horizon = acceptOld ? undefined : this.#state<Timestamp>('horizon', nameOf(table))
    for (const { key, change } of rowChanges(write, timestamp, table.primaryKey)) {
      const before = this.#read(table, key)
      const after = mergeRow(before, change, { voids, horizon }) // the last writer wins
      if (!after) effect.ignoredWrites++
      if (!after || after === before) continue
      this.#store(table, key, after)
      effect.changed.add(`${nameOf(table)} ${typeof key} ${key}`)
    }
    this.#raise(timestamp, 'timestamp')
  }

  #store({ primaryKey, attributes, ...table }: TableDescription, key: PrimaryKey, row: StoredRow): void {
    const { timestamp, record, updated = null } = row
    const name = nameOf(table)
    const state = [timestamp, JSON.stringify(updated), record ? 0 : 1]
    this.#sql('REPLACE INTO enmesh_rows VALUES (?, ?, ?, ?, ?)').run(name, key, ...state)
    if (!record) return void this.#sql(`DELETE FROM ${quote(name)} WHERE ${quote(primaryKey)} = ?`).run(key)
    const columns = Object.keys({ ...record, [primaryKey]: key })
    this.#addColumns({ ...table, primaryKey, attributes }, columns)
    const text = `REPLACE INTO ${quote(name)} (${columns.map(quote)}) VALUES (${columns.map(() => '?')})`
    this.#sql(text).run(...columns.map((column) => (column === primaryKey ? key : toColumn(record[column]))))
  }

  #addColumns({ attributes, ...table }: TableDescription, columns: readonly string[]): void {
    const added = columns.filter((each) => !attributes.includes(each))
    for (const each of added) this.#sqlite.exec(`ALTER TABLE ${quote(nameOf(table))} ADD COLUMN ${quote(each)}`)
    attributes.push(...added)
  }

  #append(transaction: Transaction): Transaction {
    this.#sql('INSERT INTO enmesh_outbox (id, body) VALUES (?, ?)').run(transaction.id, serialize(transaction))
    return transaction
  }

  #state<Value>(kind: string, table = '', node = ''): Value | undefined {
    const find = this.#sql('SELECT value FROM enmesh_state WHERE tbl = ? AND kind = ? AND node = ?')
    return JSON.parse((find.get(table, kind, node)?.value as string) ?? 'null') ?? undefined
  }

  #setState(value: unknown, kind: string, table = '', node = ''): void {
    this.#sql('REPLACE INTO enmesh_state VALUES (?, ?, ?, ?)').run(table, kind, node, JSON.stringify(value))
  }

  #raise(timestamp: Timestamp, kind: 'horizon' | 'unrecorded' | 'timestamp', table?: string): void {
    if (timestamp > (this.#state<Timestamp>(kind, table) ?? '')) this.#setState(timestamp, kind, table)
  }

  // --- Host ---------------------------------------------------------------------------------------------------------------

  info = () => ({ version: '1.0.0' })
  lastTimestamp = async () => this.#state<Timestamp>('timestamp')
  horizon = async (table: TableName) => this.#state<Timestamp>('horizon', nameOf(table))
  lastUnrecorded = async (table: TableName) => this.#state<Timestamp>('unrecorded', nameOf(table))
  loadCheckpoint = async (source: RemoteTable) => this.#state<Checkpoint>('checkpoint', nameOf(source), source.node)
  alterTable = async (table: NewAttributes) => this.#addColumns(this.#table(table), table.attributes)
  publishedPosition = async (database: string, table: string) =>
    this.#state<PublishedPosition>('published', nameOf({ database, table }))

  setBaseTimestamp(timestamp: Timestamp): void {
    this.#base = timestamp
  }

  async describe() {
    const tables = this.#sql("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '%.%'").all()
    const names = tables.map(({ name }) => /^(.*?)\.(.*)$/s.exec(name as string)!)
    return names.map(([, database, table]) => this.#table({ database: database!, table: table! }))
  }

  async createTable({ database, table, primaryKey, attributes }: TableDescription) {
    const columns = attributes.filter((each) => each !== primaryKey).map((each) => `, ${quote(each)}`)
    const text = `(${quote(primaryKey)} PRIMARY KEY NOT NULL ${columns.join('')}) WITHOUT ROWID`
    this.#sqlite.exec(`CREATE TABLE IF NOT EXISTS ${quote(nameOf({ database, table }))} ${text}`)
  }

  apply = async (batch: Batch) => this.#transaction(() => this.#apply(batch))
  deleteCheckpoint = async (source: RemoteTable) => this.#setState(null, 'checkpoint', nameOf(source), source.node)

  async emptyTable(emptied: EmptiedTable) {
    this.#transaction(() => {
      this.#sqlite.exec(`DELETE FROM ${quote(nameOf(emptied.source))}`)
      this.#sql('DELETE FROM enmesh_rows WHERE tbl = ?').run(nameOf(emptied.source))
      this.#apply({ ...emptied, transactions: [] })
    })
  }

  /** Rows, checkpoint, horizon and relayed transactions, in one transaction of the database. */
  #apply({ source, transactions, checkpoint, relay = [], acceptOld, horizon = '' }: Batch) {
    const effect = noEffect()
    for (const each of transactions) for (const write of each.writes) this.#write(each, write, acceptOld, effect)
    this.#raise(horizon, 'horizon', nameOf(source))
    this.#setState(checkpoint, 'checkpoint', nameOf(source), source.node)
    for (const transaction of relay) this.#append(transaction)
    return { changedRows: effect.changed.size, ignoredWrites: effect.ignoredWrites }
  }

  /** In the order of the keys. */
  async readRows(table: TableName, selection: RowSelection): Promise<KeyedRow[]> {
    const rowsOf = (keys: readonly PrimaryKey[]) =>
      keys.map((key) => ({ key, row: this.#read(table, key)! })).filter(({ row }) => row)
    if (selection.keys) return rowsOf(selection.keys)
    const { after = Number.NEGATIVE_INFINITY, limit } = selection
    const key = quote(this.#table(table).primaryKey)
    const records = `SELECT ${key} AS key FROM ${quote(nameOf(table))} WHERE ${key} > ?1`
    const tombstones = 'SELECT key FROM enmesh_rows WHERE tbl = ?2 AND key > ?1 AND deleted = 1'
    const keys = this.#sql(`${records} UNION ${tombstones} ORDER BY key LIMIT ?3`).all(after, nameOf(table), limit)
    return rowsOf(keys.map(({ key }) => fromColumn(key) as PrimaryKey))
  }

  async *readOutbox(after?: { id: string }): AsyncGenerator<Transaction> {
    const start = this.#sql('SELECT position FROM enmesh_outbox WHERE id = ?').get(after?.id ?? '')?.position ?? 0
    const next = this.#sql('SELECT position, body FROM enmesh_outbox WHERE position > ? ORDER BY position LIMIT 1')
    for (let row = next.get(start); row; row = next.get(row.position!)) yield deserialize(row.body as Uint8Array)
  }

  async confirmPublished({ positions, upTo, keep = [] }: PublishConfirmation) {
    const upToId = 'position <= (SELECT min(position) FROM enmesh_outbox WHERE id = ?)'
    const kept = 'id NOT IN (SELECT value FROM json_each(?))'
    this.#transaction(() => {
      for (const each of positions) this.#setState(each, 'published', nameOf(each))
      if (upTo) this.#sql(`DELETE FROM enmesh_outbox WHERE ${upToId} AND ${kept}`).run(upTo.id, JSON.stringify(keep))
    })
  }

  close = () => this.#sqlite.close()
}

const noEffect = () => ({ changed: new Set<string>(), ignoredWrites: 0 })
const nameOf = ({ database, table }: TableName) => `${database}.${table}`
const quote = (name: string) => `"${name.replaceAll('"', '""')}"`
/** Dates, bytes, objects and booleans are blobs. */
const toColumn = (value: unknown) =>
  (value === null || ['string', 'number', 'bigint'].includes(typeof value) ? value : serialize(value)) as string

function fromColumn(value: unknown): unknown {
  if (value instanceof Uint8Array) return deserialize(value)
  return typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value
}
