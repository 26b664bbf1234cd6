// The port of the cluster module, on our database: nothing but translation. This is the file to imitate first.

import type {
  Batch,
  Checkpoint,
  Host,
  PublishedPosition,
  RemoteTable,
  TableDescription,
  Timestamp,
  Transaction,
} from '../../lib/host/host.ts'
import type { Database } from './database.ts'

export class LmdbHost implements Host {
  /** Known when the HTTP server listens. */
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

  apply(batch: Batch): Promise<void> {
    return this.#database.apply(batch)
  }

  async loadCheckpoint(source: RemoteTable): Promise<Checkpoint | undefined> {
    return this.#database.checkpoint(source)
  }

  deleteCheckpoint(source: RemoteTable): Promise<void> {
    return this.#database.forget(source)
  }

  readOutbox(after?: { id: string; timestamp: Timestamp }): AsyncIterable<Transaction> {
    return this.#database.outbox.read(after)
  }

  confirmPublished(
    progress: PublishedPosition[],
    through?: { id: string; timestamp: Timestamp },
    except?: string[],
  ): Promise<void> {
    return this.#database.published(progress, through, except)
  }

  async publishedPosition(database: string, table: string): Promise<PublishedPosition | undefined> {
    return this.#database.publishedPosition(database, table)
  }
}
