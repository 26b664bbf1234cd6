// A write transaction of this node: does the writes, and notes what was actually done, for the outbox.

import { randomUUID } from 'node:crypto'
import type { PrimaryKey, Timestamp, Transaction, Write } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { badRequest } from './errors.ts'
import { isMissing } from './keys.ts'
import type { Rows } from './rows.ts'

/** Primary keys: of the records written, and of those passed over. */
export type Outcome = { done: PrimaryKey[]; skipped: PrimaryKey[] }

/** Lives only while the work of `Database.transact` runs. */
export class LocalTransaction {
  readonly id = randomUUID()
  readonly timestamp: Timestamp
  readonly #rows: Rows
  readonly #writes: Write[] = []

  constructor(rows: Rows, timestamp: Timestamp) {
    this.#rows = rows
    this.timestamp = timestamp
  }

  /** Records that exist already are skipped. One without a primary key gets a UUID. */
  insert(database: string, table: string, records: Attributes[]): Outcome {
    return this.#write('insert', database, table, records)
  }

  /** Sets the attributes given, of records that exist; the others are skipped. */
  update(database: string, table: string, records: Attributes[]): Outcome {
    return this.#write('update', database, table, records)
  }

  /** Inserts or replaces, as a whole: attributes that are not given are gone. */
  upsert(database: string, table: string, records: Attributes[]): Outcome {
    return this.#write('upsert', database, table, records)
  }

  delete(database: string, table: string, ids: PrimaryKey[]): Outcome {
    const editor = this.#rows.editor(database, table)
    const outcome: Outcome = { done: [], skipped: [] }
    for (const id of ids) {
      if (editor.has(id)) {
        editor.merge(id, { operation: 'delete', timestamp: this.timestamp })
        outcome.done.push(id)
      } else {
        outcome.skipped.push(id)
      }
    }
    editor.finish()
    if (outcome.done.length > 0) this.#writes.push({ operation: 'delete', database, table, ids: outcome.done })
    return outcome
  }

  /** As this transaction sees it, its own writes included. */
  get(database: string, table: string, key: PrimaryKey): Attributes | undefined {
    return this.#rows.get(database, table, key)
  }

  /** What is to be replicated; undefined when nothing was done. */
  committed(user: string | undefined): Transaction | undefined {
    if (this.#writes.length === 0) return undefined
    return { id: this.id, timestamp: this.timestamp, ...(user !== undefined && { user }), writes: this.#writes }
  }

  #write(operation: 'insert' | 'update' | 'upsert', database: string, table: string, given: Attributes[]): Outcome {
    const editor = this.#rows.editor(database, table)
    const outcome: Outcome = { done: [], skipped: [] }
    const records: Attributes[] = []
    for (const attributes of given) {
      const record = withKey(attributes, editor.table.primaryKey, operation)
      const key = record[editor.table.primaryKey] as PrimaryKey
      if (operation !== 'upsert' && editor.has(key) === (operation === 'insert')) {
        outcome.skipped.push(key)
        continue
      }
      editor.merge(key, { operation: operation === 'update' ? 'update' : 'put', timestamp: this.timestamp, record })
      outcome.done.push(key)
      records.push(record)
    }
    editor.finish()
    if (records.length > 0) this.#writes.push({ operation, database, table, records })
    return outcome
  }
}

function withKey(record: Attributes, primaryKey: string, operation: string): Attributes {
  if (typeof record !== 'object' || record === null || Array.isArray(record))
    throw badRequest('A record must be an object')
  if (!isMissing(record[primaryKey])) return record
  if (operation === 'update') throw badRequest('a valid hash attribute must be provided with update record')
  return { ...record, [primaryKey]: randomUUID() }
}
