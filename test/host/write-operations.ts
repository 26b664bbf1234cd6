// insert, update, upsert, delete: each request is one transaction. The answers have HarperDB's fields, and `timestamp`, which
// shows which of several acknowledged writes of a row wins.

import type { Operations } from './operations.ts'
import { readDatabase, readIds, readRecords, readTable } from './request.ts'

export const writeOperations: Operations = {
  async insert(database, body, { username, onCommit }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, skipped, timestamp } = await database.transact(
      username,
      (write) => ({
        ...write.insert(name, table, records),
        timestamp: write.timestamp,
      }),
      onCommit,
    )
    const message = `inserted ${done.length} of ${records.length} records`
    return { message, inserted_hashes: done, skipped_hashes: skipped, timestamp }
  },

  async update(database, body, { username, onCommit }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, skipped, timestamp } = await database.transact(
      username,
      (write) => ({
        ...write.update(name, table, records),
        timestamp: write.timestamp,
      }),
      onCommit,
    )
    const message = `updated ${done.length} of ${records.length} records`
    return { message, update_hashes: done, skipped_hashes: skipped, timestamp }
  },

  async upsert(database, body, { username, onCommit }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, timestamp } = await database.transact(
      username,
      (write) => ({
        ...write.upsert(name, table, records),
        timestamp: write.timestamp,
      }),
      onCommit,
    )
    return { message: `upserted ${done.length} of ${records.length} records`, upserted_hashes: done, timestamp }
  },

  async delete(database, body, { username, onCommit }) {
    const [name, table, ids] = [readDatabase(body), readTable(body), readIds(body)]
    const { done, skipped, timestamp } = await database.transact(
      username,
      (write) => ({
        ...write.delete(name, table, ids),
        timestamp: write.timestamp,
      }),
      onCommit,
    )
    const message = `${done.length} of ${ids.length} record${ids.length === 1 ? '' : 's'} successfully deleted`
    return { message, deleted_hashes: done, skipped_hashes: skipped, timestamp }
  },
}
