// The database of the reference host: atomic commits, the outbox, and values that are preserved.

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Batch, DeleteWrite, RecordWrite, RemoteTransaction, Transaction, Write } from '../../lib/host/host.ts'
import { HybridClock, makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { Database } from '../host/database.ts'
import type { HostError } from '../host/errors.ts'
import { MAX_KEY_BYTES, rowKey } from '../host/keys.ts'
import { LmdbHost } from '../host/lmdb-host.ts'
import fc from '../support/properties.ts'
import { recordsOf } from '../support/writes.ts'

const dog = { database: 'dev', table: 'dog', primaryKey: 'id', attributes: ['id'] }
const source = { node: 'node2', database: 'dev', table: 'dog' }

async function openIn(directory: string): Promise<{ database: Database; host: LmdbHost; published: Transaction[] }> {
  const database = await Database.open(directory)
  const clock = new HybridClock('node1', 300_000)
  const published: Transaction[] = []
  database.timestamp = () => clock.timestamp()
  database.publish = async (transaction) => void published.push(transaction)
  return { database, host: new LmdbHost(database, '1.0.0'), published }
}

async function open(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'host-'))
  const opened = await openIn(directory)
  t.after(async () => {
    await opened.database.close()
    await rm(directory, { recursive: true })
  })
  await opened.database.createTable(dog)
  return { ...opened, directory }
}

const outbox = async (host: LmdbHost, after?: Transaction) => {
  const found: Transaction[] = []
  for await (const transaction of host.readOutbox(after)) found.push(transaction)
  return found
}
const ids = (transactions: Transaction[]) => transactions.map(({ id }) => id)

/** Without an operation: an upsert. Without a table: dev.dog. */
type PartialWrite = (Partial<RecordWrite> & Pick<RecordWrite, 'records'>) | Pick<DeleteWrite, 'ids'>

const remote = (sequence: number, time: number, ...writes: PartialWrite[]): RemoteTransaction => ({
  id: `remote-${sequence}`,
  timestamp: makeTimestamp(time, 0, 'node2'),
  origin: { node: 'node2', epoch: 'e1', index: sequence, relayedBy: [] },
  sequence,
  index: sequence,
  writes: writes.map(
    (write): Write =>
      'ids' in write
        ? { operation: 'delete', database: 'dev', table: 'dog', ...write }
        : { operation: 'upsert', database: 'dev', table: 'dog', ...write },
  ),
})
const batch = (sequence: number, transactions: RemoteTransaction[], relay?: Transaction[]): Batch => ({
  source,
  transactions,
  checkpoint: { epoch: 'e1', sequence },
  ...(relay && { relay }),
})

test('a local transaction over two tables is committed, queued and published as one', async (t) => {
  const { database, host, published } = await open(t)
  await database.createTable({ ...dog, table: 'cat' })
  const result = await database.transact('admin', (write) => {
    write.insert('dev', 'cat', [{ id: 1, name: 'Mia' }])
    return write.insert('dev', 'dog', [{ id: 1, name: 'Rex' }, { name: 'Bello' }])
  })
  assert.equal(result.done.length, 2)
  const [transaction, ...others] = await outbox(host)
  assert.deepEqual(others, [])
  assert.deepEqual(published, [transaction])
  assert.equal(transaction!.user, 'admin')
  assert.deepEqual(
    transaction!.writes.map((write) => [write.operation, write.table, recordsOf(write).length]),
    [
      ['insert', 'cat', 1],
      ['insert', 'dog', 2],
    ],
  )
  assert.equal(await host.lastTimestamp(), transaction!.timestamp)
})

test('only writes that had an effect are recorded', async (t) => {
  const { database, host } = await open(t)
  await database.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 1, a: 1, b: 1 }]))
  const result = await database.transact('admin', (write) => {
    write.insert('dev', 'dog', [{ id: 1 }, { id: 2 }])
    write.update('dev', 'dog', [
      { id: 1, a: 2 },
      { id: 9, a: 2 },
    ])
    return write.delete('dev', 'dog', [2, 9])
  })
  assert.deepEqual(result, { done: [2], skipped: [9] })
  await database.transact('admin', (write) => write.delete('dev', 'dog', [9]))
  const [, second, ...others] = await outbox(host)
  assert.deepEqual(others, [])
  assert.deepEqual(second!.writes, [
    { operation: 'insert', database: 'dev', table: 'dog', records: [{ id: 2 }] },
    { operation: 'update', database: 'dev', table: 'dog', records: [{ id: 1, a: 2 }] },
    { operation: 'delete', database: 'dev', table: 'dog', ids: [2] },
  ])
  assert.deepEqual(database.get('dev', 'dog', 1), { id: 1, a: 2, b: 1 })
})

test('an exception rolls back its transaction, and no other one of the same commit', async (t) => {
  const { database, host, published } = await open(t)
  const insert = (id: number) => database.transact('admin', (write) => write.insert('dev', 'dog', [{ id }]))
  const failing = database.transact('admin', (write) => {
    write.insert('dev', 'dog', [{ id: 2 }])
    throw new Error('no')
  })
  await Promise.all([insert(1), assert.rejects(failing, /no/), insert(3)])
  assert.deepEqual([...database.scan('dev', 'dog')], [{ id: 1 }, { id: 3 }])
  assert.equal(database.table('dev', 'dog').count, 2)
  assert.deepEqual(ids(await outbox(host)), ids(published))
  assert.equal(published.length, 2)
})

test('a value that cannot be stored fails only its own transaction', async (t) => {
  const { database } = await open(t)
  const cycle: Record<string, unknown> = { id: 1 }
  cycle.self = cycle
  await assert.rejects(database.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 2 }, cycle])))
  await database.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 3 }]))
  assert.deepEqual([...database.scan('dev', 'dog')], [{ id: 3 }])
})

test('timestamps, outbox and publishing follow commit order, and a rejected publish does not fail a write', async (t) => {
  const { database, host } = await open(t)
  const published: string[] = []
  database.publish = async ({ id }) => {
    published.push(id)
    throw new Error('the leaf is dead')
  }
  const writes = Array.from({ length: 300 }, (_, id) =>
    database.transact('admin', (write) => write.insert('dev', 'dog', [{ id }])),
  )
  await Promise.all(writes)
  const queued = await outbox(host)
  assert.deepEqual(published, ids(queued))
  const timestamps = queued.map(({ timestamp }) => timestamp)
  assert.deepEqual(timestamps, timestamps.toSorted())
  assert.deepEqual(
    queued.map(({ writes }) => recordsOf(writes[0])[0]!.id),
    Array.from({ length: 300 }, (_, id) => id),
  )
})

test('the outbox is read after `after`, and confirmPublished removes up to `upTo` except `keep`', async (t) => {
  const { database, host } = await open(t)
  for (let id = 0; id < 5; id++) {
    await database.transact('admin', (write) => write.insert('dev', 'dog', [{ id }]))
  }
  const all = await outbox(host)
  assert.deepEqual(await outbox(host, all[2]), all.slice(3))

  const position = { database: 'dev', table: 'dog', epoch: 'e1', sequence: 2, index: 3, id: all[2]!.id }
  assert.equal(await host.publishedPosition('dev', 'dog'), undefined)
  await host.confirmPublished({ positions: [position] })
  assert.equal((await outbox(host)).length, 5)
  await host.confirmPublished({ positions: [position], upTo: all[2], keep: [all[0]!.id] })
  assert.deepEqual(ids(await outbox(host)), ids([all[0]!, all[3]!, all[4]!]))
  assert.deepEqual(await host.publishedPosition('dev', 'dog'), position)

  // After a removed transaction: everything that is left. Confirming it again removes nothing.
  assert.equal((await outbox(host, all[1])).length, 3)
  await host.confirmPublished({ positions: [], upTo: all[2] })
  assert.equal((await outbox(host)).length, 3)
})

test('reading the outbox may overlap with commits and removals', async (t) => {
  const { database, host } = await open(t)
  const insert = (id: number) => database.transact('admin', (write) => write.insert('dev', 'dog', [{ id }]))
  for (let id = 0; id < 4; id++) await insert(id)
  const all = await outbox(host)
  const seen: string[] = []
  for await (const { id } of host.readOutbox()) {
    seen.push(id)
    if (seen.length > 1) continue
    await host.confirmPublished({ positions: [], upTo: all[1] })
    await insert(9)
  }
  assert.deepEqual(seen, ids([all[0]!, all[2]!, all[3]!]))
})

test('rows, checkpoint and relayed transactions of a batch are one commit', async (t) => {
  const { database, host, published } = await open(t)
  await database.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 1 }]))
  const { sequence: _, ...relayed } = remote(7, 1000, { records: [{ id: 2 }] })
  await host.apply(batch(7, [remote(7, 1000, { records: [{ id: 2 }] })], [relayed]))
  assert.deepEqual(await host.loadCheckpoint(source), { epoch: 'e1', sequence: 7 })
  assert.deepEqual(database.get('dev', 'dog', 2), { id: 2 })
  // After the local transaction, although its timestamp is older. Removing the local one keeps it.
  const [local, last] = await outbox(host)
  assert.deepEqual(last, relayed)
  await host.confirmPublished({ positions: [], upTo: local })
  assert.deepEqual(await outbox(host), [relayed])
  assert.equal(published.length, 1)

  const bad = batch(9, [
    remote(8, 2000, { records: [{ id: 3 }] }),
    remote(9, 2001, { table: 'bird', records: [{ id: 1 }] }),
  ])
  await assert.rejects(host.apply({ ...bad, relay: [relayed] }), { message: "Table 'dev.bird' does not exist" })
  assert.equal(database.get('dev', 'dog', 3), undefined)
  assert.deepEqual(await host.loadCheckpoint(source), { epoch: 'e1', sequence: 7 })
  assert.equal((await outbox(host)).length, 1)
  assert.ok((await host.lastTimestamp())! > makeTimestamp(2000, 0, 'node2'))

  await host.apply(batch(10, []))
  assert.equal((await host.loadCheckpoint(source))?.sequence, 10)
  await host.deleteCheckpoint(source)
  await host.deleteCheckpoint(source)
  assert.equal(await host.loadCheckpoint(source), undefined)
})

test('applying twice changes nothing, and a delete of an absent row outranks older writes', async (t) => {
  const { database, host } = await open(t)
  const transactions = [
    remote(
      1,
      1000,
      { operation: 'insert', records: [{ id: 1, a: 1, b: 1 }] },
      { operation: 'update', records: [{ id: 1, a: 2 }] },
    ),
    remote(2, 2000, { ids: [5] }),
    remote(3, 3000, { operation: 'update', records: [{ id: 6, c: 3 }] }),
  ]
  for (let i = 0; i < 2; i++) await host.apply(batch(3, transactions))
  await host.apply(batch(4, [remote(4, 1500, { records: [{ id: 5 }] })]))
  assert.deepEqual(
    [...database.scan('dev', 'dog')],
    [
      { id: 1, a: 2, b: 1 },
      { id: 6, c: 3 },
    ],
  )
  assert.equal(database.table('dev', 'dog').count, 2)
  assert.equal(await host.lastTimestamp(), makeTimestamp(3000, 0, 'node2'))
  assert.deepEqual(await host.describe(), [{ ...dog, attributes: ['id', 'a', 'b', 'c'] }])
})

test('a restart preserves all data', async (t) => {
  const { database, host, directory } = await open(t)
  await database.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 1 }]))
  await host.apply(batch(4, [remote(4, 1000, { records: [{ id: 2 }] })]))
  const before = { outbox: await outbox(host), lastTimestamp: await host.lastTimestamp() }
  const unfinished = database.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 3 }]))
  await Promise.all([unfinished, database.close(), database.close()])
  await assert.rejects(
    database.transact('admin', () => {}),
    { statusCode: 503 },
  )

  const again = await openIn(directory)
  t.after(() => again.database.close())
  assert.deepEqual([...again.database.scan('dev', 'dog')], [{ id: 1 }, { id: 2 }, { id: 3 }])
  assert.deepEqual((await outbox(again.host)).slice(0, 1), before.outbox)
  assert.deepEqual((await again.host.loadCheckpoint(source))?.sequence, 4)
  assert.ok((await again.host.lastTimestamp())! > before.lastTimestamp!)
})

test('all types of values are preserved', async (t) => {
  const { database, host } = await open(t)
  const shared = { street: 'Elm' }
  const record = {
    id: 'exotic',
    nested: { list: [1, { deep: [null, true, ''] }], empty: {}, none: [] },
    long: 'x'.repeat(1024 * 1024),
    text: 'Grüße, 世界 😀 \0\u0001 e\u0301',
    date: new Date(1_234_567_890_123),
    early: new Date(-1),
    bytes: new Uint8Array([0, 1, 255]),
    buffer: Buffer.from('binary'),
    bigints: [5n, -5n, 2n ** 63n, -(2n ** 100n)],
    numbers: [0, 1.5, -1e300, 2 ** 53 - 1, 2 ** 40, Number.NaN, Number.POSITIVE_INFINITY],
    home: shared,
    work: shared,
    constructor: 1,
  }
  await database.transact('admin', (write) => write.insert('dev', 'dog', [record]))
  const stored = database.get('dev', 'dog', 'exotic')!
  assert.deepStrictEqual(stored, record)
  assert.ok(Buffer.isBuffer(stored.buffer) && !Buffer.isBuffer(stored.bytes))
  const [transaction] = await outbox(host)
  assert.deepStrictEqual(recordsOf(transaction!.writes[0]), [record])
})

test('any JSON value is preserved', async (t) => {
  const { database } = await open(t)
  const name = fc
    .string({ minLength: 1, maxLength: 20, unit: 'binary' })
    .filter((each) => each !== '__proto__' && each !== 'id')
  const value = fc.jsonValue({ stringUnit: 'binary' })
  await fc.assert(
    fc.asyncProperty(fc.dictionary(name, value), async (attributes) => {
      const record = { id: 1, ...JSON.parse(JSON.stringify(attributes).replaceAll('"__proto__"', '"proto"')) }
      await database.transact('admin', (write) => write.upsert('dev', 'dog', [record]))
      assert.deepStrictEqual(database.get('dev', 'dog', 1), record)
    }),
    { numRuns: 100 },
  )
})

test('primary keys of all types are distinct and sorted', async (t) => {
  const { database } = await open(t)
  const sorted = [-(2n ** 70n), -1.5, -1, 0, 0.5, 5, 2n ** 53n + 1n, 2n ** 70n, ' ', '\0', 'a', 'a\0', 'ab', 'é', '😀']
  const byText = (keys: unknown[]) => [
    ...keys.filter((key) => typeof key !== 'string'),
    ...keys.filter((key) => typeof key === 'string').sort(),
  ]
  await database.transact('admin', (write) =>
    write.insert(
      'dev',
      'dog',
      sorted.toReversed().map((id) => ({ id })),
    ),
  )
  assert.deepEqual(
    Array.from(database.scan('dev', 'dog'), ({ id }) => id),
    byText(sorted),
  )
  assert.deepEqual(database.get('dev', 'dog', 5n), { id: 5 })
  assert.deepEqual(database.get('dev', 'dog', -0), { id: 0 })
})

test('row keys sort like numbers', () => {
  const number = fc.double({ noNaN: true, noDefaultInfinity: true })
  fc.assert(
    fc.property(number, number, (a, b) => {
      assert.equal(Math.sign(Buffer.compare(rowKey('d', 't', a), rowKey('d', 't', b))), Math.sign(a - b) + 0)
    }),
  )
})

test('an invalid primary key is rejected before anything is written', async (t) => {
  const { database } = await open(t)
  const maxLength = MAX_KEY_BYTES - 'dev\0dog\0'.length - 1
  const insert = (id: unknown) => database.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 1 }, { id }]))
  const rejected = (id: unknown) => assert.rejects(insert(id), (error: HostError) => error.statusCode === 400)
  await rejected('k'.repeat(maxLength + 1))
  await rejected(Number.NaN)
  await rejected({})
  await rejected('\ud800')
  assert.deepEqual([...database.scan('dev', 'dog')], [])
  await insert('k'.repeat(maxLength))
  assert.equal(database.table('dev', 'dog').count, 2)
})

test('a write before the cluster is open is rejected', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'host-'))
  const fresh = await Database.open(directory)
  t.after(async () => {
    await fresh.close()
    await rm(directory, { recursive: true })
  })
  await fresh.createTable(dog)
  await assert.rejects(
    fresh.transact('admin', (write) => write.insert('dev', 'dog', [{ id: 1 }])),
    /the cluster is not open/,
  )
})

test('creating a table is idempotent and adds attributes; dropping it deletes rows and tombstones', async (t) => {
  const { database, host } = await open(t)
  await host.createTable({ ...dog, attributes: ['name'] })
  await host.createTable(dog)
  assert.deepEqual(database.table('dev', 'dog').attributes, ['id', 'name'])
  await assert.rejects(host.createTable({ ...dog, primaryKey: 'name' }), { statusCode: 409 })
  await database.createTable({ ...dog, table: 'dog2' })
  await database.transact('admin', (write) => {
    write.insert('dev', 'dog', [{ id: 1 }, { id: 2 }])
    write.insert('dev', 'dog2', [{ id: 1 }])
    write.delete('dev', 'dog', [2])
  })
  await database.dropTable('dev', 'dog')
  await database.createTable(dog)
  assert.deepEqual([...database.scan('dev', 'dog')], [])
  assert.deepEqual([...database.scan('dev', 'dog2')], [{ id: 1 }])
  await host.apply(batch(1, [remote(1, 1, { records: [{ id: 2 }] })]))
  assert.deepEqual(database.get('dev', 'dog', 2), { id: 2 })
  await database.dropDatabase('dev')
  assert.deepEqual(database.databases(), [])
})

test('10,000 rows are one transaction with one write', async (t) => {
  const { database, host } = await open(t)
  const records = Array.from({ length: 10_000 }, (_, id) => ({ id, name: `dog ${id}` }))
  await database.transact('admin', (write) => write.insert('dev', 'dog', records))
  const [transaction, ...others] = await outbox(host)
  assert.equal(others.length, 0)
  assert.equal(transaction!.writes.length, 1)
  assert.equal(recordsOf(transaction!.writes[0]).length, 10_000)
  assert.equal(database.table('dev', 'dog').count, 10_000)
})
