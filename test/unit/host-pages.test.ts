// Pages of rows in the order of their keys, and answers as MessagePack: what a migration reads from a migrated node.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { HybridClock } from '../../lib/host/hybrid-clock.ts'
import { HarperApi } from '../../lib/migrate/harper-api.ts'
import { type KeyedTable, recordPages } from '../../lib/migrate/record-pages.ts'
import { Database } from '../host/database.ts'
import { createServer } from '../host/server.ts'
import { Users } from '../host/users.ts'
import { temporaryDirectory } from '../support/cluster.ts'

const login = { username: 'admin', password: 'secret' }

async function scene(test: { after(work: () => unknown): void }) {
  const [directory, remove] = await temporaryDirectory()
  const database = await Database.open(directory)
  const clock = new HybridClock('node1', 300_000)
  database.timestamp = () => clock.timestamp()
  const logger = { debug() {}, info() {}, warn() {}, error() {} }
  const cluster = {
    ...{ replicated: async () => {}, token: async () => '', caughtUp: async () => {} },
    health: () => ({ ready: true, degraded: [] }),
    execute: async () => ({}),
  }
  const server = createServer({ database, cluster, users: new Users([{ ...login, role: 'super_user' }]), logger })
  test.after(async () => {
    await server.close()
    await database.close()
    await remove()
  })
  const url = await server.listen({ host: '127.0.0.1', port: 0 })
  await database.createTable({ database: 'dev', table: 'dog', primaryKey: 'id', attributes: [] })
  const write = (...records: Record<string, unknown>[]) =>
    database.transact('admin', (transaction) => void transaction.upsert('dev', 'dog', records))
  const search = async (body: object) => {
    const authorization = `Basic ${Buffer.from('admin:secret').toString('base64')}`
    const text = JSON.stringify({ database: 'dev', table: 'dog', get_attributes: ['id'], ...body })
    const headers = { 'content-type': 'application/json', authorization }
    const response = await fetch(url, { method: 'POST', headers, body: text })
    return { status: response.status, body: await response.json() }
  }
  return { database, url, write, search, api: new HarperApi({ ...login, url }) }
}

describe('the reference host', { timeout: 30_000 }, () => {
  it('answers pages after a key, without tombstones, in the order of the keys', async (test) => {
    const { database, write, search } = await scene(test)
    await write({ id: 'b' }, { id: 10 }, { id: 2 }, { id: 'a' }, { id: 3 })
    await database.transact('admin', (transaction) => void transaction.delete('dev', 'dog', [3]))
    const after = (search_value: unknown, limit: number) =>
      search({
        operation: 'search_by_conditions',
        conditions: [{ search_attribute: 'id', search_type: 'greater_than', search_value }],
        limit,
      })
    assert.deepEqual((await after(2, 2)).body, [{ id: 10 }, { id: 'a' }])
    assert.deepEqual((await after('a', 5)).body, [{ id: 'b' }])
    assert.deepEqual((await after('b', 5)).body, [])
    const first = await search({ operation: 'search_by_value', attribute: 'id', value: '*', limit: 2 })
    assert.deepEqual(first.body, [{ id: 2 }, { id: 10 }])
  })

  it('refuses other conditions and limits', async (test) => {
    const { search } = await scene(test)
    for (const [body, message] of [
      [{ conditions: [] }, /'conditions' must be one 'greater_than' of the primary key 'id'/],
      [{ conditions: [{ search_attribute: 'id', search_type: 'equals', search_value: 1 }] }, /'conditions' must be/],
      [{ conditions: [{ search_attribute: 'id', search_type: 'greater_than' }] }, /search_value' must be a string or/],
      [
        { conditions: [{ search_attribute: 'id', search_type: 'greater_than', search_value: 1 }], limit: 0 },
        /'limit' must be an integer, 1 or more/,
      ],
    ] as const) {
      const answer = await search({ operation: 'search_by_conditions', ...body })
      assert.equal(answer.status, 400)
      assert.match((answer.body as { error: string }).error, message)
    }
  })

  it('is read like a HarperDB node, with dates and binary values', async (test) => {
    const { write, api } = await scene(test)
    await write(...Array.from({ length: 500 }, (_, id) => ({ id, at: new Date(id), data: Buffer.from([id % 256]) })))
    const [table] = await api.tables()
    const records = []
    for await (const page of recordPages(api, table as KeyedTable)) records.push(...page)
    assert.equal(records.length, 500)
    const { at, data } = records[300]!
    assert.deepEqual([at, Buffer.from(data as Uint8Array)], [new Date(300), Buffer.from([44])])
    const parts = []
    for await (const part of api.recordsOf(table as KeyedTable, [7, 5_000])) parts.push(part.map(({ id }) => id))
    assert.deepEqual(parts, [[7]])
    assert.deepEqual(await api.keysOf(table as KeyedTable, [8, 5_000]), [8])
    assert.equal(await api.countRows(table as KeyedTable), 500)
  })
})
