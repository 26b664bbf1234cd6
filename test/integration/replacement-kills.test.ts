// A node is killed while a table of it is replaced by a copy: before the table is emptied, after that, and in the middle of the copy.
// In the end the table equals that of the source, and neither node has lost a write, published or not.

import assert from 'node:assert/strict'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Database } from '../host/database.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { EMPTIED_FILE, HOLD_FILE, KILLED_AFTER, PLACE_FILE, type Place } from '../support/killed-node-places.ts'
import { canonical, NodeProcess } from '../support/node-process.ts'

const ROWS = 2 * KILLED_AFTER
const dog = { database: 'dev', table: 'dog' }
const both = { ...dog, publish: true, subscribe: true }
/** Rows that the node commits before the first kill; its outbox holds them until the table was emptied. */
const OWN = Array.from({ length: 20 }, (_, index) => ({ id: `own ${index}`, index }))

let directory: string
let remove: () => Promise<void>
let source: NodeProcess
let target: NodeProcess

before(async () => {
  ;[directory, remove] = await temporaryDirectory()
  source = await NodeProcess.create(directory, 'source')
  target = await NodeProcess.create(directory, 'target')
  target.program = 'support/killed-node.ts'
  await Promise.all([source.start(), target.start()])
})

after(async () => {
  await Promise.all([source.end(), target.end()])
  await remove()
})

const insert = (node: NodeProcess, records: object[]) => node.operation({ operation: 'insert', ...dog, records })

async function connect(): Promise<void> {
  const route = { host: '127.0.0.1', port: source.ports.cluster }
  await target.operation({ operation: 'cluster_set_routes', server: 'hub', routes: [route] })
  await source.operation({ operation: 'create_database', database: 'dev' })
  await source.operation({ operation: 'create_table', ...dog, primary_key: 'id' })
  await insert(
    source,
    Array.from({ length: ROWS }, (_, id) => ({ id, name: `dog ${id}` })),
  )
  const body = { operation: 'add_node', node_name: 'source', subscriptions: [both] }
  await eventually('the nodes are connected', async () => (await target.request(body)).status === 200)
  await eventually(
    'the rows are copied',
    async () => (await target.count('dev', 'dog').catch(() => 0)) === ROWS,
    30_000,
  )
}

/** The subscription of the target in `cluster_status`, which shows a state and a reason while it is not live. */
async function subscription(): Promise<{ state?: string; reason?: string }> {
  const status = await target.operation<{ node_name: string; connections: { subscriptions: never[] }[] }>({
    operation: 'cluster_status',
  })
  return status.connections[0]!.subscriptions[0]!
}

const setPlace = (place: Place | '') => writeFile(join(target.directory, PLACE_FILE), place)

async function killed(): Promise<void> {
  await eventually('the process has killed itself', () => !target.running, 30_000)
}

/** Keys in the table of the killed node, and the number of transactions in its outbox. */
async function stored(): Promise<{ keys: Set<unknown>; outbox: number }> {
  const database = await Database.open(join(target.directory, 'database'), silentLogger)
  try {
    const rows = database.readRows(dog, { limit: 2 * ROWS })
    let outbox = 0
    for await (const _ of database.outbox.read()) outbox++
    return { keys: new Set(rows.flatMap(({ key, row }) => (row.record ? [key] : []))), outbox }
  } finally {
    await database.close()
  }
}

test('a process that is killed three times while a table is replaced loses nothing', { timeout: 120_000 }, async () => {
  await connect()
  await writeFile(join(target.directory, HOLD_FILE), '')
  for (const record of OWN) await insert(target, [record])
  await target.operation({ operation: 'update', ...dog, records: [{ id: 1, name: 'changed at the target' }] })
  await target.operation({ operation: 'delete', ...dog, ids: [2] })

  await setPlace('before the table is emptied')
  const replaced = { ...both, copy: true, replace: true }
  // The process may end before it answers.
  await target.operation({ operation: 'update_node', node_name: 'source', subscriptions: [replaced] }).catch(() => {})
  await killed()
  const first = await stored()
  assert.deepEqual([first.keys.size, first.outbox], [ROWS + OWN.length - 1, OWN.length + 2])
  await insert(source, [{ id: 'at the source', meanwhile: 1 }])

  await setPlace('table emptied')
  await target.start().catch(() => {})
  await killed()
  const second = await stored()
  assert.deepEqual([second.keys.size, second.outbox], [0, OWN.length + 2])
  await source.operation({ operation: 'update', ...dog, records: [{ id: 3, name: 'changed at the source' }] })

  await setPlace('rows copied')
  await target.start()
  await eventually(
    'the copy waits',
    async () => (await subscription()).reason === 'target has transactions that it has not published',
  )
  await insert(target, [{ id: 'while it waits' }])
  await rm(join(target.directory, HOLD_FILE))
  await killed()
  const third = await stored()
  assert.ok(third.keys.size >= KILLED_AFTER && third.keys.size < ROWS, `${third.keys.size} rows`)

  await setPlace('')
  await target.start()
  await insert(target, [{ id: 'at the end' }])
  let tables: string[][] = []
  await eventually(
    () => `the tables are equal: ${tables.map(({ length }) => length)}`,
    async () => {
      tables = await Promise.all(
        [source, target].map(async (node) => (await node.rows('dev', 'dog')).map(canonical).sort()),
      )
      return tables[0]!.length === ROWS + OWN.length + 2 && tables[0]!.join('\n') === tables[1]!.join('\n')
    },
    30_000,
  )
  await eventually('the copy has ended', async () => (await subscription()).state === undefined)
  const rows = new Map((await target.rows('dev', 'dog')).map((row) => [row.id, row]))
  for (const { id, index } of OWN) assert.equal(rows.get(id)?.index, index)
  assert.equal(rows.get(1)?.name, 'changed at the target')
  assert.equal(rows.get(3)?.name, 'changed at the source')
  assert.equal(rows.has(2), false)
  for (const id of ['at the source', 'while it waits', 'at the end']) assert.ok(rows.has(id), id)
  assert.equal(await readFile(join(target.directory, EMPTIED_FILE), 'utf8'), 'dog\n', 'the table was emptied once')
})
