// A local write transaction: executes the writes and records those that had an effect, for the outbox.

import { randomUUID } from 'node:crypto'
import type { PrimaryKey, Timestamp, Transaction, Write } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { badRequest } from './errors.ts'
import { isMissing } from './keys.ts'
import type { Rows } from './rows.ts'

/** Primary keys of the records that were written, and of those that were skipped. */
export type WriteResult = { done: PrimaryKey[]; skipped: PrimaryKey[] }

/** Valid only while the callback of `Database.transact` runs. */
export class LocalTransaction {
  readonly id = randomUUID()
  readonly timestamp: Timestamp
  readonly #rows: Rows
  readonly #writes: Write[] = []

  constructor(rows: Rows, timestamp: Timestamp) {
    this.#rows = rows
    this.timestamp = timestamp
  }

  /** Skips records that exist. A record without a primary key gets a UUID. */
  insert(database: string, table: string, records: Attributes[]): WriteResult {
    return this.#write('insert', database, table, records)
  }

  /** Sets the given attributes of existing records. Skips records that do not exist. */
  update(database: string, table: string, records: Attributes[]): WriteResult {
    return this.#write('update', database, table, records)
  }

  /** Inserts or replaces whole records: attributes that are not given are removed. */
  upsert(database: string, table: string, records: Attributes[]): WriteResult {
    return this.#write('upsert', database, table, records)
  }

  delete(database: string, table: string, ids: PrimaryKey[]): WriteResult {
    const editor = this.#rows.editor(database, table)
    const result: WriteResult = { done: [], skipped: [] }
    for (const id of ids) {
      if (editor.has(id)) {
        editor.merge(id, { operation: 'delete', timestamp: this.timestamp })
        result.done.push(id)
      } else {
        result.skipped.push(id)
      }
    }
    editor.finish()
    if (result.done.length > 0) this.#writes.push({ operation: 'delete', database, table, ids: result.done })
    return result
  }

  /** Reads a record, including the writes of this transaction. */
  get(database: string, table: string, key: PrimaryKey): Attributes | undefined {
    return this.#rows.get(database, table, key)
  }

  /** The transaction to replicate; undefined if nothing was written. */
  committed(user: string | undefined): Transaction | undefined {
    if (this.#writes.length === 0) return undefined
    return { id: this.id, timestamp: this.timestamp, ...(user !== undefined && { user }), writes: this.#writes }
  }

  #write(operation: 'insert' | 'update' | 'upsert', database: string, table: string, given: Attributes[]): WriteResult {
    const editor = this.#rows.editor(database, table)
    const result: WriteResult = { done: [], skipped: [] }
    const records: Attributes[] = []
    for (const attributes of given) {
      const record = withKey(attributes, editor.table.primaryKey, operation)
      const key = record[editor.table.primaryKey] as PrimaryKey
      if (operation !== 'upsert' && editor.has(key) === (operation === 'insert')) {
        result.skipped.push(key)
        continue
      }
      editor.merge(key, { operation: operation === 'update' ? 'update' : 'put', timestamp: this.timestamp, record })
      result.done.push(key)
      records.push(record)
    }
    editor.finish()
    if (records.length > 0) this.#writes.push({ operation, database, table, records })
    return result
  }
}

function withKey(record: Attributes, primaryKey: string, operation: string): Attributes {
  if (typeof record !== 'object' || record === null || Array.isArray(record))
    throw badRequest('A record must be an object')
  if (!isMissing(record[primaryKey])) return record
  if (operation === 'update') throw badRequest('a valid hash attribute must be provided with update record')
  return { ...record, [primaryKey]: randomUUID() }
}
