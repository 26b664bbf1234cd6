// The port of the cluster module, on our database: nothing but translation. This is the file to imitate first.

import type {
  Batch,
  Checkpoint,
  Host,
  Published,
  Source,
  Stamp,
  TableDescription,
  Transaction,
} from '../../lib/host.ts'
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

  info(): { version: string; operationsApiPort?: number; stamp?: Stamp } {
    const stamp = this.#database.highestStamp()
    return {
      version: this.#version,
      ...(this.operationsApiPort !== undefined && { operationsApiPort: this.operationsApiPort }),
      ...(stamp !== undefined && { stamp }),
    }
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

  async checkpoint(source: Source): Promise<Checkpoint | undefined> {
    return this.#database.checkpoint(source)
  }

  forget(source: Source): Promise<void> {
    return this.#database.forget(source)
  }

  unpublished(after?: { id: string; stamp: Stamp }): AsyncIterable<Transaction> {
    return this.#database.outbox.read(after)
  }

  published(progress: Published[], through?: { id: string; stamp: Stamp }, except?: string[]): Promise<void> {
    return this.#database.published(progress, through, except)
  }

  async publishedUpTo(database: string, table: string): Promise<Published | undefined> {
    return this.#database.publishedUpTo(database, table)
  }
}
