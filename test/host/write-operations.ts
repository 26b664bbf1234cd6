// insert, update, upsert, delete: all that one request writes is one transaction. `stamp` in the answers is ours: it tells
// which of several acknowledged writes of a row is the one that stays.

import type { Operations } from './operations.ts'
import { readDatabase, readIds, readRecords, readTable } from './request.ts'

export const writeOperations: Operations = {
  async insert(database, body, { username }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, skipped, stamp } = await database.transact(username, (write) => ({
      ...write.insert(name, table, records),
      stamp: write.stamp,
    }))
    const message = `inserted ${done.length} of ${records.length} records`
    return { message, inserted_hashes: done, skipped_hashes: skipped, stamp }
  },

  async update(database, body, { username }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, skipped, stamp } = await database.transact(username, (write) => ({
      ...write.update(name, table, records),
      stamp: write.stamp,
    }))
    const message = `updated ${done.length} of ${records.length} records`
    return { message, update_hashes: done, skipped_hashes: skipped, stamp }
  },

  async upsert(database, body, { username }) {
    const [name, table, records] = [readDatabase(body), readTable(body), readRecords(body)]
    const { done, stamp } = await database.transact(username, (write) => ({
      ...write.upsert(name, table, records),
      stamp: write.stamp,
    }))
    return { message: `upserted ${done.length} of ${records.length} records`, upserted_hashes: done, stamp }
  },

  async delete(database, body, { username }) {
    const [name, table, ids] = [readDatabase(body), readTable(body), readIds(body)]
    const { done, skipped, stamp } = await database.transact(username, (write) => ({
      ...write.delete(name, table, ids),
      stamp: write.stamp,
    }))
    const message = `${done.length} of ${ids.length} record${ids.length === 1 ? '' : 's'} successfully deleted`
    return { message, deleted_hashes: done, skipped_hashes: skipped, stamp }
  },
}
