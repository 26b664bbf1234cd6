// The Host port on this database: only translation. Start here to write a host of another database.

import type {
  ApplyResult,
  Batch,
  Checkpoint,
  EmptiedTable,
  Host,
  KeyedRow,
  NewAttributes,
  PublishConfirmation,
  PublishedPosition,
  RemoteTable,
  Restamp,
  RowSelection,
  TableDescription,
  TableName,
  Timestamp,
  Transaction,
} from '../../lib/host/host.ts'
import type { Database } from './database.ts'

export class LmdbHost implements Host {
  /** Set when the HTTP server listens. */
  operationsApiPort: number | undefined
  readonly #database: Database
  readonly #version: string

  constructor(database: Database, version: string) {
    this.#database = database
    this.#version = version
  }

  info(): { version: string; operationsApiPort?: number } {
    return {
      version: this.#version,
      ...(this.operationsApiPort !== undefined && { operationsApiPort: this.operationsApiPort }),
    }
  }

  async lastTimestamp(): Promise<Timestamp | undefined> {
    return this.#database.lastTimestamp()
  }

  async describe(): Promise<TableDescription[]> {
    return this.#database
      .tables()
      .map(({ database, table, primaryKey, attributes }) => ({ database, table, primaryKey, attributes }))
  }

  createTable(table: TableDescription): Promise<void> {
    return this.#database.createTable(table)
  }

  alterTable(table: NewAttributes): Promise<void> {
    return this.#database.addAttributes(table)
  }

  apply(batch: Batch): Promise<ApplyResult> {
    return this.#database.apply(batch)
  }

  emptyTable(emptied: EmptiedTable): Promise<void> {
    return this.#database.emptyTable(emptied)
  }

  async readRows(table: TableName, selection: RowSelection): Promise<KeyedRow[]> {
    return this.#database.readRows(table, selection)
  }

  async horizon(table: TableName): Promise<Timestamp | undefined> {
    return this.#database.horizon(table)
  }

  async lastUnrecorded(table: TableName): Promise<Timestamp | undefined> {
    return this.#database.lastUnrecorded(table)
  }

  restamp(restamp: Restamp): Promise<void> {
    return this.#database.restamp(restamp)
  }

  async loadCheckpoint(source: RemoteTable): Promise<Checkpoint | undefined> {
    return this.#database.loadCheckpoint(source)
  }

  deleteCheckpoint(source: RemoteTable): Promise<void> {
    return this.#database.deleteCheckpoint(source)
  }

  readOutbox(after?: { id: string; timestamp: Timestamp }): AsyncIterable<Transaction> {
    return this.#database.outbox.read(after)
  }

  confirmPublished(confirmation: PublishConfirmation): Promise<void> {
    return this.#database.confirmPublished(confirmation)
  }

  async publishedPosition(database: string, table: string): Promise<PublishedPosition | undefined> {
    return this.#database.publishedPosition(database, table)
  }
}
