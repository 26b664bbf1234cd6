// A database in memory that implements Host: tables, rows, an outbox, checkpoints. The last writer wins, attribute by attribute.

import { randomUUID } from 'node:crypto'
import type {
  ApplyOutcome,
  Batch,
  Checkpoint,
  EmptiedTable,
  Host,
  KeyedRow,
  NewAttributes,
  PrimaryKey,
  PublishConfirmation,
  PublishedPosition,
  RemoteTable,
  Restamp,
  RowSelection,
  TableDescription,
  TableName,
  Timestamp,
  Transaction,
  Write,
} from '../host/host.ts'
import { LOWEST_TIMESTAMP } from '../host/hybrid-clock.ts'
import { mergeRow, rowChanges, type StoredRow } from '../host/merge-row.ts'
import { illFormedString } from '../util/well-formed.ts'
import { cloneRow } from './clone-row.ts'
import { RowOrder } from './row-order.ts'

export type MemoryHostOptions = {
  /** Tables that exist from the start. Default primary key: `id`. */
  tables?: readonly { database: string; table: string; primaryKey?: string; attributes?: string[] }[]
  /** Default true. Without `readRows`, a host serves no copies: gaps stay. */
  readRows?: boolean
  /** Default true. A host without an outbox loses transactions that the local leaf has not acknowledged when its process dies. */
  outbox?: boolean
}

/** The part of the manager that a host uses to commit. */
export type ClusterHandle = {
  timestamp(): Timestamp
  publish(transaction: Transaction): Promise<void>
  /** While clustering is disabled, nothing is stored in the outbox. */
  manifest?: { enabled: boolean }
  tableDropped?(table: { database: string; table: string }): void
}

const keyOf = (...parts: unknown[]) =>
  JSON.stringify(parts, (_, value) => (typeof value === 'bigint' ? { bigint: String(value) } : value))

/** As `keyOf`, which takes several times as long. */
const rowKeyOf = (key: PrimaryKey): string => (typeof key === 'bigint' ? keyOf(key) : `[${JSON.stringify(key)}]`)

/** The last result: successive writes are mostly in one table. */
let lastTable = { database: '', table: '', key: '["",""]' }

function tableKeyOf(database: string, table: string): string {
  if (database !== lastTable.database || table !== lastTable.table)
    lastTable = { database, table, key: `[${JSON.stringify(database)},${JSON.stringify(table)}]` }
  return lastTable.key
}

const QUOTE = 0x22
const BRACE = 0x7b

/** The primary key in a key of `rows`. */
function toKey(text: string): PrimaryKey {
  const first = text.charCodeAt(1)
  if (first !== QUOTE && first !== BRACE) return Number(text.slice(1, -1))
  const [key] = JSON.parse(text) as [string | number | { bigint: string }]
  return typeof key === 'object' ? BigInt(key.bigint) : key
}

/**
 * It outlives its manager: attached to the next manager it is the same database after a restart. It copies the values that it receives
 * and returns, so callers may change theirs.
 */
export class MemoryHost implements Host {
  /** Ids of the remote transactions in the order in which they were applied, without copied rows. */
  readonly applied: string[] = []
  /** Local transactions that are not confirmed yet, oldest first. */
  outbox: Transaction[] = []
  /** Called before a batch is applied. When it throws or rejects, the batch is rejected. */
  beforeApply: ((batch: Batch) => void | Promise<void>) | undefined
  /** Keyed by names and primary keys as JSON, as are the maps below. */
  readonly tables = new Map<string, TableDescription>()
  readonly rows = new Map<string, Map<string, StoredRow>>()
  readonly checkpoints = new Map<string, Checkpoint>()
  readonly publishedPositions = new Map<string, PublishedPosition>()
  /** The highest timestamp of a dropped tombstone, of each table. */
  readonly horizons = new Map<string, Timestamp>()
  /** The last timestamp of each table that is not in the outbox, because clustering was disabled. */
  readonly unrecorded = new Map<string, Timestamp>()
  readonly #orders = new Map<string, RowOrder>()
  readonly #hasOutbox: boolean
  #highest: Timestamp = ''
  /** Of rows without a timestamp, which are stored with the lowest one. */
  #base: Timestamp = LOWEST_TIMESTAMP
  #cluster: ClusterHandle | undefined

  constructor({ tables = [], outbox = true, readRows = true }: MemoryHostOptions = {}) {
    this.#hasOutbox = outbox
    for (const { database, table, primaryKey = 'id', attributes = [primaryKey] } of tables)
      this.tables.set(tableKeyOf(database, table), { database, table, primaryKey, attributes: [...attributes] })
    if (!readRows) Object.assign(this, { readRows: undefined, horizon: undefined, lastUnrecorded: undefined })
    if (!outbox)
      Object.assign(this, {
        readOutbox: undefined,
        confirmPublished: undefined,
        publishedPosition: undefined,
        lastUnrecorded: undefined,
      })
  }

  // --- for users of the database ----------------------------------------------------------------------------------------

  /** Sets the manager that commits are published to. */
  attach(cluster: ClusterHandle): this {
    this.#cluster = cluster
    return this
  }

  /** The record with this key; undefined when it does not exist. */
  get(database: string, table: string, key: PrimaryKey): Record<string, unknown> | undefined {
    const record = this.rows.get(tableKeyOf(database, table))?.get(rowKeyOf(key))?.record
    return record && structuredClone(record)
  }

  /** All records of a table, sorted by key. */
  records(database: string, table: string): Record<string, unknown>[] {
    const rows = [...(this.rows.get(tableKeyOf(database, table)) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
    return rows.flatMap(([, { record }]) => (record ? [structuredClone(record)] : []))
  }

  insert(database: string, table: string, ...records: Record<string, unknown>[]): Promise<void> {
    return this.commit({ operation: 'insert', database, table, records })
  }

  /** Sets these attributes; each record holds its primary key. */
  update(database: string, table: string, ...records: Record<string, unknown>[]): Promise<void> {
    return this.commit({ operation: 'update', database, table, records })
  }

  delete(database: string, table: string, ...ids: PrimaryKey[]): Promise<void> {
    return this.commit({ operation: 'delete', database, table, ids })
  }

  /**
   * Commits one transaction locally, then publishes it. Resolves when the local leaf has stored it. When `publish` of the manager
   * rejects, this rejects too and the local commit stays. Rejects without a commit for an invalid write or a missing table.
   */
  async commit(...writes: Write[]): Promise<void> {
    const cluster = this.#cluster
    if (!cluster) throw new Error('call attach(cluster) before the first commit')
    const transaction = { id: randomUUID(), timestamp: cluster.timestamp(), writes: structuredClone(writes) }
    this.commitAs(transaction)
    return cluster.publish(transaction)
  }

  /** Commits locally without publishing, with the caller's id and timestamp. */
  commitAs(transaction: Transaction): void {
    for (const write of transaction.writes) checkWrite(write, this.#tableOf(write))
    for (const write of transaction.writes) this.#write(transaction, write)
    if (this.#hasOutbox && this.#isRecording) this.outbox.push(transaction)
    else
      for (const { database, table } of transaction.writes)
        this.unrecorded.set(tableKeyOf(database, table), transaction.timestamp)
  }

  /** Without `lastUnrecorded` everything is recorded. */
  get #isRecording(): boolean {
    return this.lastUnrecorded === undefined || this.#cluster?.manifest?.enabled !== false
  }

  /**
   * Drops a table with its rows and the checkpoints of its sources. The published position stays, because the stream stays. Does
   * nothing when the table does not exist.
   */
  dropTable(database: string, table: string): void {
    const name = tableKeyOf(database, table)
    if (!this.tables.delete(name)) return
    for (const map of [this.rows, this.horizons, this.#orders]) map.delete(name)
    for (const key of [...this.checkpoints.keys()])
      if (keyOf(...JSON.parse(key).slice(1)) === tableKeyOf(database, table)) this.checkpoints.delete(key)
    this.#cluster?.tableDropped?.({ database, table })
  }

  /** Stores records without timestamps, as a database holds them that had no cluster: they are not in the outbox. */
  storeExisting(database: string, table: string, ...records: Record<string, unknown>[]): void {
    const name = tableKeyOf(database, table)
    const description = this.#tableOf({ database, table })
    checkWrite({ operation: 'insert', database, table, records }, description)
    for (const record of records) {
      addAttributes(description, record)
      this.#set(name, rowKeyOf(record[description.primaryKey] as PrimaryKey), {
        timestamp: LOWEST_TIMESTAMP,
        record: structuredClone(record),
      })
    }
  }

  /** Drops tombstones with lower timestamps. Returns their number. `limit`: from `cluster.tombstoneLimit()`. */
  dropTombstones(database: string, table: string, limit: Timestamp): number {
    const name = tableKeyOf(database, table)
    let dropped = 0
    for (const [key, { timestamp, record }] of this.rows.get(name) ?? []) {
      if (record || timestamp >= limit) continue
      this.rows.get(name)!.delete(key)
      this.#raiseHorizon(name, timestamp)
      dropped++
    }
    return dropped
  }

  // --- Host -------------------------------------------------------------------------------------------------------------

  info(): { version: string } {
    return { version: '1.0.0' }
  }

  async lastTimestamp(): Promise<Timestamp | undefined> {
    return this.#highest || undefined
  }

  async describe(): Promise<TableDescription[]> {
    return structuredClone([...this.tables.values()])
  }

  async createTable(table: TableDescription): Promise<void> {
    const key = tableKeyOf(table.database, table.table)
    if (!this.tables.has(key)) this.tables.set(key, structuredClone(table))
  }

  async alterTable({ attributes, ...table }: NewAttributes): Promise<void> {
    const description = this.#tableOf(table)
    for (const name of attributes) if (!description.attributes.includes(name)) description.attributes.push(name)
  }

  async apply(batch: Batch): Promise<ApplyOutcome> {
    await this.beforeApply?.(batch)
    const { source, transactions, checkpoint, relay = [], horizon } = batch
    const effect: Effect = { changed: new Set(), ignoredWrites: 0 }
    // Atomic: check everything before the first write.
    for (const { writes } of transactions) for (const write of writes) checkWrite(write, this.#tableOf(write))
    for (const transaction of transactions) {
      if (!batch.isCopy) this.applied.push(transaction.id)
      for (const write of transaction.writes) this.#write(transaction, write, batch.acceptOld, effect)
    }
    if (horizon !== undefined) this.#raiseHorizon(tableKeyOf(source.database, source.table), horizon)
    this.checkpoints.set(keyOf(source.node, source.database, source.table), structuredClone(checkpoint))
    if (this.#hasOutbox) this.outbox.push(...structuredClone(relay))
    return { changedRows: effect.changed.size, ignoredWrites: effect.ignoredWrites }
  }

  async emptyTable({ source, checkpoint, horizon }: EmptiedTable): Promise<void> {
    const { node, database, table } = source
    const name = keyOf(database, table)
    this.#tableOf(source)
    for (const map of [this.rows, this.#orders]) map.delete(name)
    if (horizon !== undefined) this.#raiseHorizon(name, horizon)
    this.checkpoints.set(keyOf(node, database, table), structuredClone(checkpoint))
  }

  async readRows({ database, table }: TableName, selection: RowSelection): Promise<KeyedRow[]> {
    const name = tableKeyOf(database, table)
    const rows = this.rows.get(name)
    if (!rows) return []
    const order = this.#orders.get(name) ?? new RowOrder()
    this.#orders.set(name, order)
    if (!selection.keys) {
      const { after, limit } = selection
      const found = order.next(rows, after === undefined ? undefined : rowKeyOf(after), limit)
      return found.map(([key, row]) => ({ key: toKey(key), row: cloneRow(this.#withBase(row)) }))
    }
    const keys = selection.keys.map((key) => rowKeyOf(key)).filter((key) => rows.has(key))
    return keys.map((key) => ({ key: toKey(key), row: cloneRow(this.#get(name, key)!) }))
  }

  setBaseTimestamp(timestamp: Timestamp): void {
    this.#base = timestamp
  }

  async horizon({ database, table }: TableName): Promise<Timestamp | undefined> {
    return this.horizons.get(tableKeyOf(database, table))
  }

  async loadCheckpoint({ node, database, table }: RemoteTable): Promise<Checkpoint | undefined> {
    return structuredClone(this.checkpoints.get(keyOf(node, database, table)))
  }

  async deleteCheckpoint({ node, database, table }: RemoteTable): Promise<void> {
    this.checkpoints.delete(keyOf(node, database, table))
  }

  async *readOutbox(after?: { id: string }): AsyncIterable<Transaction> {
    // The publisher reads on from near the end: search from there.
    const from = after ? this.outbox.findLastIndex(({ id }) => id === after.id) + 1 : 0
    yield* this.outbox.slice(from)
  }

  async confirmPublished({ positions, upTo, keep = [] }: PublishConfirmation): Promise<void> {
    for (const each of positions) this.publishedPositions.set(tableKeyOf(each.database, each.table), each)
    if (!upTo) return
    const end = this.outbox.findIndex(({ id }) => id === upTo.id) + 1
    const kept = this.outbox.slice(0, end).filter(({ id }) => keep.includes(id))
    this.outbox = [...kept, ...this.outbox.slice(end)]
  }

  async lastUnrecorded({ database, table }: TableName): Promise<Timestamp | undefined> {
    return this.unrecorded.get(tableKeyOf(database, table))
  }

  async publishedPosition(database: string, table: string): Promise<PublishedPosition | undefined> {
    return this.publishedPositions.get(tableKeyOf(database, table))
  }

  async restamp(restamp: Restamp): Promise<void> {
    const pass = restamp.begin()
    for (const { database, table, primaryKey } of this.tables.values())
      for (const [name, row] of this.rows.get(tableKeyOf(database, table)) ?? [])
        pass.add({ database, table, primaryKey, key: (row.record?.[primaryKey] as PrimaryKey) ?? toKey(name), row })
    const { rows, transactions, lastTimestamp } = pass.finish()
    for (const { database, table, key, row } of rows)
      this.rows.get(tableKeyOf(database, table))!.set(rowKeyOf(key), row)
    if (this.#hasOutbox) this.outbox.push(...structuredClone(transactions))
    this.#highest = lastTimestamp
  }

  /** Throws when the table does not exist. */
  #tableOf({ database, table }: TableName): TableDescription {
    const found = this.tables.get(tableKeyOf(database, table))
    if (!found) throw new Error(`Table '${database}.${table}' does not exist`)
    return found
  }

  #get(name: string, key: string): StoredRow | undefined {
    const row = this.rows.get(name)?.get(key)
    return row && this.#withBase(row)
  }

  #withBase(row: StoredRow): StoredRow {
    return row.timestamp === LOWEST_TIMESTAMP ? { ...row, timestamp: this.#base } : row
  }

  #set(name: string, key: string, row: StoredRow): void {
    const rows = this.rows.get(name) ?? new Map<string, StoredRow>()
    this.rows.set(name, rows)
    if (!rows.has(key)) this.#orders.get(name)?.add(key)
    rows.set(key, row)
  }

  #raiseHorizon(name: string, timestamp: Timestamp): void {
    if (timestamp > (this.horizons.get(name) ?? '')) this.horizons.set(name, timestamp)
  }

  #write({ timestamp, voids }: Transaction, write: Write, acceptOld = false, effect?: Effect): void {
    const description = this.#tableOf(write)
    if (timestamp > this.#highest) this.#highest = timestamp
    const name = tableKeyOf(write.database, write.table)
    for (const record of write.operation === 'delete' ? [] : write.records) addAttributes(description, record)
    const horizon = acceptOld ? undefined : this.horizons.get(name)
    for (const { key, change } of rowChanges(write, timestamp, description.primaryKey)) {
      const rowKey = rowKeyOf(key)
      const before = this.#get(name, rowKey)
      const after = mergeRow(before, change, { voids, horizon })
      if (after && after !== before) this.#set(name, rowKey, after)
      if (!effect) continue
      if (after !== before) effect.changed.add(name + rowKey)
      if (!after) effect.ignoredWrites++
    }
  }
}

/** Of one batch. `changed`: keys of rows. */
type Effect = { changed: Set<string>; ignoredWrites: number }

function addAttributes({ attributes }: TableDescription, record: Record<string, unknown>): void {
  for (const name of Object.keys(record)) if (!attributes.includes(name)) attributes.push(name)
}

/** Throws a TypeError. */
function checkWrite(write: Write, { table, primaryKey }: TableDescription): void {
  const {
    operation,
    records = [],
    ids = [],
  } = write as { operation: string; records?: Record<string, unknown>[]; ids?: unknown[] }
  const isKey = (value: unknown) => ['string', 'bigint'].includes(typeof value) || Number.isFinite(value)
  if (!['insert', 'update', 'upsert', 'delete'].includes(operation))
    throw new TypeError(`unknown operation '${operation}'`)
  if (!Array.isArray(records) || !records.every((record) => isKey(record?.[primaryKey])))
    throw new TypeError(`each record of '${table}' must be an object with its primary key '${primaryKey}'`)
  if (!Array.isArray(ids) || !ids.every(isKey)) throw new TypeError(`ids of '${table}' must be strings or numbers`)
  const text = illFormedString([records, ids])
  if (text !== undefined) throw new TypeError(`a string has half of a surrogate pair: ${JSON.stringify(text)}`)
}
