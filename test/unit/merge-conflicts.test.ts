// Row merging reports what concurrent writes lose; the reference host keeps the last of these conflicts.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { HybridClock, makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { type MergeConflict, mergeRow, type RowChange, type StoredRow } from '../../lib/index.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { eventually, MemoryNetwork } from '../../lib/testing.ts'
import { Database } from '../host/database.ts'
import { startNode } from '../host/node.ts'
import fc from '../support/properties.ts'
import { temporaryDirectory } from './store-fixture.ts'

type Attributes = Record<string, unknown>
const at = (time: number, node: string) => makeTimestamp(time, 0, node)
const put = (time: number, node: string, record: Attributes): RowChange => ({
  operation: 'put',
  timestamp: at(time, node),
  record: { id: 1, ...record },
})
const update = (time: number, node: string, record: Attributes): RowChange => ({
  operation: 'update',
  timestamp: at(time, node),
  record: { id: 1, ...record },
})
const remove = (time: number, node: string): RowChange => ({ operation: 'delete', timestamp: at(time, node) })

/** What the last of these changes loses: attribute, its value, the kept value and its time. */
function lostBy(...changes: RowChange[]) {
  const found: MergeConflict[] = []
  const last = changes.pop()!
  const stored = changes.reduce<StoredRow | undefined>((row, change) => mergeRow(row, change), undefined)
  const merged = mergeRow(stored, last, { onConflict: (conflict) => found.push(conflict) })
  assert.deepEqual(merged, mergeRow(stored, last), 'the callback changes nothing')
  for (const { lost } of found) assert.equal(lost.timestamp, last.timestamp)
  return found.map(({ attribute, lost, kept }) => [attribute, lost.value, kept.value, kept.timestamp])
}

test('a late write loses the attributes that a newer write of another node has set', () => {
  const [a5, b5] = [at(5, 'node1'), at(6, 'node2')]
  const base = put(1, 'node1', { a: 0, b: 0 })
  assert.deepEqual(lostBy(base, update(5, 'node1', { a: 5 }), update(4, 'node2', { a: 4, b: 4 })), [['a', 4, 5, a5]])
  assert.deepEqual(lostBy(base, update(5, 'node1', { a: 5 }), update(4, 'node2', { b: 4 })), [])
  assert.deepEqual(lostBy(base, put(6, 'node2', { a: 6 }), put(4, 'node1', { a: 4, c: 4 })), [
    ['a', 4, 6, b5],
    ['c', 4, undefined, b5],
  ])
  assert.deepEqual(lostBy(base, update(5, 'node1', { constructor: 5 }), update(4, 'node2', { constructor: 4 })), [
    ['constructor', 4, 5, a5],
  ])
  assert.deepEqual(lostBy(base, update(5, 'node1', { a: 5 }), put(4, 'node2', { b: 4 })), [['a', undefined, 5, a5]])
})

test('a delete loses against newer writes, and writes against a newer delete', () => {
  const [kept, deleted] = [at(5, 'node1'), at(5, 'node2')]
  assert.deepEqual(lostBy(put(5, 'node1', { a: 5 }), remove(4, 'node2')), [
    [undefined, undefined, { id: 1, a: 5 }, kept],
  ])
  assert.deepEqual(lostBy(remove(5, 'node2'), update(4, 'node1', { a: 4 })), [
    [undefined, { id: 1, a: 4 }, undefined, deleted],
  ])
  assert.deepEqual(lostBy(put(1, 'node1', {}), update(5, 'node1', { a: 5 }), remove(4, 'node2')), [
    [undefined, undefined, { id: 1, a: 5 }, kept],
  ])
  assert.deepEqual(lostBy(remove(5, 'node2'), remove(4, 'node1')), [])
})

test('newer writes, writes of one node, equal values and repetitions are no conflict', () => {
  const base = put(5, 'node1', { a: 5 })
  assert.deepEqual(lostBy(base), [])
  assert.deepEqual(lostBy(base, put(6, 'node2', { a: 6 })), [])
  assert.deepEqual(lostBy(base, put(4, 'node1', { a: 4 })), [])
  assert.deepEqual(lostBy(base, put(4, 'node2', { a: 5 })), [])
  assert.deepEqual(lostBy(base, base), [])
})

test('without the callback, a late write costs one comparison', () => {
  const stored = mergeRow(undefined, put(5, 'node1', { a: 5 }))
  let reads = 0
  const record = new Proxy({ id: 1, a: 4 }, { get: () => ++reads, ownKeys: () => [`${++reads}`] })
  const late: RowChange = { operation: 'put', timestamp: at(4, 'node2'), record }
  assert.equal(mergeRow(stored, late), stored)
  assert.equal(reads, 0)
})

type Step = { node: 0 | 1; isExchange: boolean }

test('of two nodes, the one that wrote the newer version reports every concurrent write, and no other', () => {
  const step: fc.Arbitrary<Step> = fc.record({
    node: fc.constantFrom(0 as const, 1 as const),
    isExchange: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      let now = 1
      const nodes = ['node1', 'node2'].map((name) => ({
        clock: new HybridClock(name, 1_000, () => now),
        row: undefined as StoredRow | undefined,
        sent: [] as RowChange[],
        reported: new Set<string>(),
      }))
      const expected = [new Set<string>(), new Set<string>()]
      for (const [value, { node, isExchange }] of steps.entries()) {
        now++
        const local = nodes[node]!
        if (!isExchange) {
          const change: RowChange = { operation: 'put', timestamp: local.clock.timestamp(), record: { id: 1, value } }
          local.row = mergeRow(local.row, change)
          local.sent.push(change)
          continue
        }
        // Everything that the other node has written and this one does not know yet.
        const arrived = nodes[1 - node]!.sent.splice(0)
        const newest = local.row?.timestamp ?? ''
        for (const change of arrived) {
          if (newest > change.timestamp && newest.endsWith(`node${node + 1}`)) expected[node]!.add(change.timestamp)
          local.clock.merge(change.timestamp)
          const onConflict = ({ lost }: MergeConflict) => local.reported.add(lost.timestamp)
          local.row = mergeRow(local.row, change, { onConflict })
        }
      }
      assert.deepEqual(
        nodes.map(({ reported }) => reported),
        expected,
      )
    }),
  )
})

const source = { node: 'node2', database: 'dev', table: 'dog' }

test('the reference host keeps the last 1,000 conflicts, and none unless it is asked to or for copied rows', async (t) => {
  const database = await Database.open(await temporaryDirectory(t))
  t.after(() => database.close())
  await database.createTable({ database: 'dev', table: 'dog', primaryKey: 'id', attributes: ['id'] })
  const apply = (first: number, count: number, time: number, node: string, isCopy = false) =>
    database.apply({
      source,
      isCopy,
      checkpoint: { epoch: 'e1', sequence: 1 },
      transactions: Array.from({ length: count }, (_, each) => ({
        id: `${node} ${first + each}`,
        timestamp: at(time, node),
        sequence: 1,
        index: 1,
        origin: { node, relayedBy: [] },
        writes: [{ operation: 'upsert', database: 'dev', table: 'dog', records: [{ id: first + each, from: node }] }],
      })),
    })
  await apply(0, 1_010, 5, 'node1')
  await apply(0, 5, 4, 'node2')
  database.logsConflicts = true
  await apply(0, 5, 4, 'node2', true)
  assert.deepEqual(database.conflicts(), [])
  await apply(0, 600, 4, 'node2')
  await apply(600, 410, 4, 'node2')
  const conflicts = database.conflicts()
  assert.deepEqual([conflicts.length, conflicts[0]!.key, conflicts.at(-1)!.key], [1_000, 1_009, 10])
  assert.deepEqual(database.conflicts(1), [
    {
      ...{ database: 'dev', table: 'dog', key: 1_009, attribute: 'from' },
      lost: { timestamp: at(4, 'node2'), value: 'node2' },
      kept: { timestamp: at(5, 'node1'), value: 'node1' },
    },
  ])
})

/** Two nodes of the reference host on a network in memory, both subscribed to dev.dog. */
async function startNodes(t: TestContext) {
  const network = new MemoryNetwork({ nodes: ['node1', 'node2'] })
  const open = async (name: string) => {
    const file = join(await temporaryDirectory(t), 'config.yaml')
    const text = `rootPath: data
logConflicts: true
operationsApi: { network: { port: 0 } }
users:
  - { username: admin, password: secret, role: super_user }
  - { username: mesh, password: mesh-secret, role: cluster_user }
clustering: { enabled: true, nodeName: ${name}, user: mesh }
`
    await writeFile(file, text)
    const node = await startNode(file, silentLogger, { mesh: network.mesh(name) })
    t.after(() => node.close())
    return node
  }
  const nodes = [await open('node1'), await open('node2')] as const
  await nodes[0].database.createTable({ database: 'dev', table: 'dog', primaryKey: 'id', attributes: ['id'] })
  const subscriptions = [{ database: 'dev', table: 'dog', publish: true, subscribe: true }]
  await eventually('node2 answers', () =>
    nodes[0].cluster.addNode({ node_name: 'node2', subscriptions }).then(
      () => true,
      () => false,
    ),
  )
  return { network, nodes }
}

async function ask(url: string, body: object, user = 'admin:secret'): Promise<{ status: number; body: unknown }> {
  const authorization = `Basic ${Buffer.from(user).toString('base64')}`
  const headers = { 'content-type': 'application/json', authorization }
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })
  return { status: response.status, body: await response.json() }
}

test('list_conflicts of the reference host shows what was lost in a partition', async (t) => {
  const { network, nodes } = await startNodes(t)
  const [one, two] = nodes
  const write = (node: typeof one, name: string) =>
    node.database.transact('admin', (transaction) => transaction.upsert('dev', 'dog', [{ id: 1, name }]))
  const name = (node: typeof one) => node.database.get('dev', 'dog', 1)?.name
  await write(one, 'Rex')
  await eventually('the row arrives', () => name(two) === 'Rex')
  network.cut('node1', 'node2')
  await write(one, 'Max')
  await write(two, 'Bello')
  network.heal()
  await eventually('both are equal', () => name(one) === name(two))
  const [winner, loser] = name(one) === 'Bello' ? [two, one] : [one, two]
  await eventually('the older write has arrived', () => winner.database.conflicts().length > 0)
  const { body } = (await ask(winner.url, { operation: 'list_conflicts', limit: 5 })) as { body: [MergeConflict] }
  assert.equal(body.length, 1)
  const [{ lost, kept, ...rest }] = body
  assert.deepEqual(rest, { database: 'dev', table: 'dog', key: 1, attribute: 'name' })
  assert.deepEqual([lost.value, kept.value], winner === two ? ['Max', 'Bello'] : ['Bello', 'Max'])
  assert.ok(lost.timestamp < kept.timestamp)
  assert.deepEqual(loser.database.conflicts(), [])
  const refused = await ask(winner.url, { operation: 'list_conflicts' }, 'mesh:mesh-secret')
  assert.equal(refused.status, 403)
  assert.equal((await ask(winner.url, { operation: 'list_conflicts', limit: 0 })).status, 400)
})
