// The example of a host on SQL keeps the contract of hosts, and reads and updates rows that a table had before clustering. Node 24 and
// later has a `node:sqlite` for that.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type HostUnderTest, hostContract, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import type { SqliteHost } from '../examples/sqlite-host.ts'
import { temporaryDirectory } from '../support/cluster.ts'

const dog = { database: 'dev', table: 'dog' }

/** Earlier ones have no `node:sqlite`, or one that cuts texts at null characters. */
const MIN_NODE = 24
const isSupported = Number.parseInt(process.versions.node, 10) >= MIN_NODE
const sqlite = isSupported ? await import('node:sqlite') : undefined
const skip = isSupported
  ? false
  : `node:sqlite of Node ${process.versions.node} is missing, or cuts texts at null characters`

async function create(): Promise<HostUnderTest & { host: SqliteHost; path: string }> {
  const { SqliteHost } = await import('../examples/sqlite-host.ts')
  const [directory, remove] = await temporaryDirectory()
  const path = join(directory, 'database.sqlite')
  let host = new SqliteHost(path)
  return {
    host,
    path,
    read: (database, table, key) => host.get(database, table, key),
    commit: (writes, timestamp) => host.commit(writes, () => timestamp),
    commitUnrecorded: (writes, timestamp) => {
      host.cluster = { manifest: { enabled: false }, publish: async () => {} } as never
      host.commit(writes, () => timestamp)
      host.cluster = undefined
    },
    reopen: () => {
      host.close()
      host = new SqliteHost(path)
      return host
    },
    dropTable: (database, table) => host.dropTable(database, table),
    dropTombstones: (database, table, limit) => host.dropTombstones(database, table, limit),
    storeExisting: (database, table, record) => insertPlain(path, `${database}.${table}`, record),
    close: async () => {
      host.close()
      await remove()
    },
  }
}

/** As a program inserts a row that knows nothing of a cluster. */
function insertPlain(path: string, table: string, record: Record<string, unknown>): void {
  const database = new sqlite!.DatabaseSync(path)
  const known = database.prepare(`SELECT * FROM pragma_table_info('${table}')`).all()
  const columns = Object.keys(record)
  for (const each of columns)
    if (!known.some(({ name }) => name === each)) database.exec(`ALTER TABLE "${table}" ADD COLUMN ${each}`)
  const values = columns.map(() => '?')
  database.prepare(`INSERT INTO "${table}" (${columns}) VALUES (${values})`).run(...(Object.values(record) as string[]))
  database.close()
}

describe('the host on SQL', { skip }, () => {
  if (sqlite) for (const { name, run } of hostContract(create)) it(name, run)

  it('takes tables as they are, with types and an order of columns', async (test) => {
    const { host, path, close } = await create()
    test.after(close)
    const database = new sqlite!.DatabaseSync(path)
    database.exec('CREATE TABLE "dev.dog" (name TEXT NOT NULL, age INTEGER, id INTEGER PRIMARY KEY)')
    database.exec(`INSERT INTO "dev.dog" VALUES ('Rex', 3, 1), ('Ida', NULL, 2)`)
    database.close()
    assert.deepEqual(await host.describe(), [{ ...dog, primaryKey: 'id', attributes: ['name', 'age', 'id'] }])
    host.setBaseTimestamp('000000000000-000000-node1')
    assert.deepEqual(await host.readRows(dog, { limit: 10 }), [
      { key: 1, row: { timestamp: '000000000000-000000-node1', record: { name: 'Rex', age: 3, id: 1 } } },
      { key: 2, row: { timestamp: '000000000000-000000-node1', record: { name: 'Ida', id: 2 } } },
    ])
    host.commit([{ operation: 'update', ...dog, records: [{ id: 2, age: 4 }] }], () => '018bcfe56801-000000-node1')
    assert.deepEqual(host.get('dev', 'dog', 2), { id: 2, name: 'Ida', age: 4 })
  })

  it('replicates from one node to another, and restarts', async (test) => {
    const subjects = new Map<string, Awaited<ReturnType<typeof create>>>()
    const cluster = await startCluster(2, {
      network: new MemoryNetwork(),
      tables: [dog],
      host: async (name) => {
        const subject = await create()
        subjects.set(name, subject)
        await subject.host.createTable({ ...dog, primaryKey: 'id', attributes: ['id', 'name'] })
        return subject.host
      },
    })
    test.after(async () => {
      await cluster.close()
      for (const { close } of subjects.values()) await close!()
    })
    const [one, two] = cluster.nodes
    for (const { host, cluster: manager } of cluster.nodes) host.cluster = manager
    for (let id = 0; id < 500; id++)
      one!.host.commit([{ operation: 'insert', ...dog, records: [{ id, name: `dog ${id}` }] }])
    await cluster.converged()
    two!.host.commit([{ operation: 'update', ...dog, records: [{ id: 7, born: new Date(0) }] }])
    two!.host.commit([{ operation: 'delete', ...dog, ids: [8] }])
    await cluster.converged()
    await two!.stop()
    one!.host.commit([{ operation: 'insert', ...dog, records: [{ id: 500, name: 'Rex' }] }])
    await two!.start()
    await cluster.converged()
    for (const { host } of cluster.nodes) {
      assert.deepEqual(host.get('dev', 'dog', 7), { id: 7, name: 'dog 7', born: new Date(0) })
      assert.equal(host.get('dev', 'dog', 8), undefined)
      assert.equal((await host.readRows(dog, { limit: 1_000 })).length, 501)
    }
  })
})
