// insert, update, upsert, delete: all that one request writes is one transaction.

import type { Operations } from './operations.ts'
import { readDatabase, readIds, readRecords, readTable } from './request.ts'

export const writeOperations: Operations = {
  async insert(database, body, { username }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, skipped } = await database.transact(username, (write) => write.insert(name, table, records))
    const message = `inserted ${done.length} of ${records.length} records`
    return { message, inserted_hashes: done, skipped_hashes: skipped }
  },

  async update(database, body, { username }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, skipped } = await database.transact(username, (write) => write.update(name, table, records))
    const message = `updated ${done.length} of ${records.length} records`
    return { message, update_hashes: done, skipped_hashes: skipped }
  },

  async upsert(database, body, { username }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done } = await database.transact(username, (write) => write.upsert(name, table, records))
    return { message: `upserted ${done.length} of ${records.length} records`, upserted_hashes: done }
  },

  async delete(database, body, { username }) {
    const [name, table, ids] = [readDatabase(body), readTable(body), readIds(body)]
    const { done, skipped } = await database.transact(username, (write) => write.delete(name, table, ids))
    const message = `${done.length} of ${ids.length} record${ids.length === 1 ? '' : 's'} successfully deleted`
    return { message, deleted_hashes: done, skipped_hashes: skipped }
  },
}
