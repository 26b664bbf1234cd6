// The reference host drops old tombstones from time to time: in slices, each with its horizon in one transaction of the database.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Database } from '../host/database.ts'
import { startNode } from '../host/node.ts'
import { dropTombstonesRegularly } from '../host/tombstones.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'

const dog = { database: 'dev', table: 'dog' }
const at = (time: number) => `${time.toString(16).padStart(12, '0')}-000000-node1`
const source = { node: 'node2', ...dog }

async function directoryOf(t: TestContext): Promise<string> {
  const [directory, remove] = await temporaryDirectory()
  t.after(remove)
  return directory
}

/** With rows 0 to `count` - 1, of which the even ones were deleted at their number of ms. */
async function databaseOf(t: TestContext, count: number): Promise<Database> {
  const directory = await directoryOf(t)
  const database = await Database.open(directory)
  t.after(() => database.close())
  await database.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
  const transactions = Array.from({ length: count }, (_, id) => ({
    id: `tx${id}`,
    timestamp: at(id),
    sequence: id + 1,
    index: id + 1,
    origin: { node: 'node2', relayedBy: [] },
    writes: [
      id % 2 === 0
        ? { operation: 'delete' as const, ...dog, ids: [id] }
        : { operation: 'insert' as const, ...dog, records: [{ id }] },
    ],
  }))
  await database.apply({ source, transactions, checkpoint: { epoch: 'e', sequence: count } })
  return database
}

const tombstonesOf = (database: Database) =>
  database.readRows(dog, { limit: 100_000 }).filter(({ row }) => row.record === undefined).length

test('only tombstones below the limit are dropped, whatever their number, and the horizon is the highest of them', async (t) => {
  const database = await databaseOf(t, 5_000)
  assert.equal(await database.dropTombstones('dev', 'dog', at(4_001)), 2_001)
  assert.equal(database.horizon(dog), at(4_000))
  assert.equal(tombstonesOf(database), 499)
  assert.equal([...database.scan('dev', 'dog')].length, 2_500)
  assert.equal(await database.dropTombstones('dev', 'dog', at(4_001)), 0)
})

test('rows that are written between two slices stay', async (t) => {
  const database = await databaseOf(t, 5_000)
  database.timestamp = () => at(10_000)
  const dropping = database.dropTombstones('dev', 'dog', at(4_001))
  const put = database.transact(undefined, (transaction) =>
    transaction.upsert('dev', 'dog', [{ id: 3_000, name: 'Rex' }]),
  )
  await Promise.all([dropping, put])
  assert.deepEqual(database.get('dev', 'dog', 3_000), { id: 3_000, name: 'Rex' })
  assert.ok((await dropping) >= 2_000)
})

test('a table that is dropped meanwhile gets no horizon', async (t) => {
  const database = await databaseOf(t, 5_000)
  const dropping = database.dropTombstones('dev', 'dog', at(4_001))
  await Promise.all([dropping, database.dropTable('dev', 'dog')])
  assert.equal(database.horizon(dog), undefined)
})

test('nothing is dropped without a limit, and nothing after the end', async (t) => {
  const database = await databaseOf(t, 100)
  let limit: string | undefined
  const options = { database, cluster: { tombstoneLimit: () => limit }, interval: 5, logger: silentLogger }
  const stop = dropTombstonesRegularly(options)
  await delay(30)
  assert.equal(tombstonesOf(database), 50)
  limit = at(50)
  await eventually('the old ones are dropped', () => tombstonesOf(database) === 25)
  await stop()
  limit = at(100)
  await delay(30)
  assert.equal(tombstonesOf(database), 25)
})

test('a running node drops its old tombstones, and a late write does not bring the row back, also after a restart', async (t) => {
  const directory = await directoryOf(t)
  const file = join(directory, 'config.yaml')
  await writeFile(
    file,
    `rootPath: data
operationsApi: { network: { port: 0 } }
users: [{ username: admin, password: secret, role: super_user }]
clustering: { enabled: false, nodeName: node1, user: admin }
`,
  )
  const options = { tombstoneAge: 60_000, tombstoneInterval: 10 }
  let node = await startNode(file, silentLogger, options)
  t.after(() => node.close())
  const { database } = node
  await database.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
  const old = at(Date.now() - 120_000)
  database.timestamp = () => at(Date.now() - 119_000)
  await database.transact(undefined, (transaction) => transaction.upsert('dev', 'dog', [{ id: 1 }]))
  await database.transact(undefined, (transaction) => transaction.delete('dev', 'dog', [1]))
  await eventually('the tombstone is dropped', () => database.readRows(dog, { keys: [1] }).length === 0)
  await node.close()
  node = await startNode(file, silentLogger, options)
  const writes = [{ operation: 'insert' as const, ...dog, records: [{ id: 1, name: 'late' }] }]
  const late = { id: 'late', timestamp: old, sequence: 1, index: 0, origin: { node: 'node2', relayedBy: [] }, writes }
  const checkpoint = { epoch: 'e', sequence: 1 }
  const { ignoredWrites } = await node.database.apply({ source, transactions: [late], checkpoint })
  assert.equal(ignoredWrites, 1)
  assert.equal(node.database.get('dev', 'dog', 1), undefined)
})
