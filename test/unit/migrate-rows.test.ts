// The rows of HarperDB arrive with their times, below the outbox: in pages, after interruptions, with odd keys, and again after changes.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import { HarperApi } from '../../lib/migrate/harper-api.ts'
import { importTable } from '../../lib/migrate/import-table.ts'
import { importedRow } from '../../lib/migrate/imported-row.ts'
import type { KeyedTable } from '../../lib/migrate/record-pages.ts'
import { decodeSingleMessage } from '../../lib/replication/wire/single-message.ts'
import { MemoryHost } from '../../lib/testing.ts'
import { HarperHttp, type HarperHttpOptions, harperLogin } from '../support/harper-http.ts'
import { harperPack, harperTransaction } from '../support/harper-messages.ts'
import { dogs, ROW_TIME } from '../support/harper-site.ts'

type Test = { after(work: () => unknown): void }

async function scene(test: Test, options: Partial<HarperHttpOptions> = {}, patience = 300) {
  const harper = await HarperHttp.start(test, { name: 'node1', tables: [dogs], ...options })
  const host = new MemoryHost()
  const api = new HarperApi({ ...harperLogin, url: harper.url, patience })
  const rows = harper.tables[0]!
  const run = async (now = Date.now) => {
    const [described] = await api.tables()
    const table = described as KeyedTable
    await host.createTable({ ...table, attributes: [] })
    return importTable({ api, host, table, now })
  }
  return { harper, host, api, rows, run }
}

const stored = async (host: MemoryHost) =>
  (await host.readRows({ database: 'dev', table: 'dog' }, { limit: 100_000 })).filter(({ row }) => row.record)

describe('an import', { concurrency: true, timeout: 30_000 }, () => {
  it('brings all rows with their times, and nothing into the outbox', async (test) => {
    const { host, rows, run } = await scene(test)
    for (let id = 1; id <= 1_000; id++) rows.put(id, { id, name: `dog ${id}` }, ROW_TIME + id)
    rows.put('rex', { id: 'rex', owner: null, tag: { color: 'red' } }, ROW_TIME + 0.5)
    const result = await run()
    assert.deepEqual([result.rows, result.changed, result.refused, result.untimed], [1_001, 1_001, 0, 0])
    const found = await stored(host)
    assert.equal(found.length, 1_001)
    for (const { key, row } of found)
      assert.equal(wallTimeOf(row.timestamp), key === 'rex' ? ROW_TIME : ROW_TIME + Number(key))
    assert.deepEqual(host.outbox, [])
    const { __createdtime__: _, __updatedtime__: time, ...rex } = host.get('dev', 'dog', 'rex')!
    assert.deepEqual([rex, time], [{ id: 'rex', tag: { color: 'red' } }, ROW_TIME + 0.5])
    assert.deepEqual([...host.checkpoints], [], 'no position is left')
  })

  it('keeps dates and binary values, which MessagePack has', async (test) => {
    const { host, rows, run } = await scene(test)
    rows.put(1, { id: 1, at: new Date(5), data: Buffer.from([0, 255]) }, ROW_TIME)
    await run()
    const { at, data } = host.get('dev', 'dog', 1)!
    assert.deepEqual([at, Buffer.from(data as Uint8Array)], [new Date(5), Buffer.from([0, 255])])
  })

  it('reads JSON where there is no MessagePack, and empty tables in both', async (test) => {
    for (const hasMessagePack of [true, false]) {
      const { host, rows, run } = await scene(test, { hasMessagePack })
      assert.equal((await run()).rows, 0)
      rows.put(1, { id: 1 }, ROW_TIME)
      assert.equal((await run()).rows, 1)
      assert.equal((await stored(host)).length, 1)
    }
  })

  it('has the same timestamp for the same row everywhere, and different ones for different rows of one time', () => {
    const table = { primaryKey: 'id', updatedTime: 't' }
    const timestampOf = (record: Record<string, unknown>) =>
      importedRow(table, { t: ROW_TIME, ...record }, 1, Date.now()).row.row.timestamp
    assert.equal(timestampOf({ id: 1, a: 1, b: null }), timestampOf({ b: undefined, a: 1, id: 1 }))
    assert.notEqual(timestampOf({ id: 1, a: 1 }), timestampOf({ id: 1, a: 2 }))
  })

  it('has the time that the same write has in a message of HarperDB', () => {
    const time = ROW_TIME + 0.87
    const { row } = importedRow({ primaryKey: 'id', updatedTime: 't' }, { id: 1, t: time }, 1, Date.now())
    const write = { operation: 'upsert' as const, table: 'dog', id: 1, record: { id: 1 } }
    const data = harperPack(harperTransaction('dev', { node: 'node1', timestamp: time }, write))
    const source = { node: 'node1', database: 'dev', table: 'dog' }
    const { timestamp } = decodeSingleMessage(source, { data, headers: {}, sequence: 1, delivery: 1, time: 0 } as never)
    assert.equal(row.row.timestamp.slice(0, 19), timestamp.slice(0, 19))
  })

  it('loses to what was written here or arrived meanwhile, and wins over older writes', async (test) => {
    const { host, rows, run } = await scene(test)
    await host.createTable({ database: 'dev', table: 'dog', primaryKey: 'id', attributes: [] })
    const write = (id: number, time: number) => ({
      id: `w${id}`,
      timestamp: `${time.toString(16).padStart(12, '0')}-000000-node2`,
      writes: [{ operation: 'upsert' as const, database: 'dev', table: 'dog', records: [{ id, name: 'here' }] }],
      origin: { node: 'node2', relayedBy: [] },
      sequence: id,
      index: id,
    })
    const source = { node: 'node2', database: 'dev', table: 'dog' }
    const transactions = [write(1, ROW_TIME + 5), write(2, ROW_TIME - 5)]
    await host.apply({ source, transactions, checkpoint: { epoch: '', sequence: 2 } })
    for (const id of [1, 2]) rows.put(id, { id, name: 'harper' }, ROW_TIME)
    await run()
    assert.deepEqual([host.get('dev', 'dog', 1)!.name, host.get('dev', 'dog', 2)!.name], ['here', 'harper'])
  })

  it('continues where it stopped when HarperDB was away', async (test) => {
    const { harper, host, rows, run } = await scene(test)
    for (let id = 1; id <= 1_000; id++) rows.put(id, { id }, ROW_TIME)
    harper.beforeAnswer = (_, number) => {
      if (number >= 4) throw new Error('power failure')
    }
    await assert.rejects(run(), { code: 'harperdb_unreachable', retryable: true })
    const before = (await stored(host)).length
    assert.ok(before > 0 && before < 1_000, `${before} rows`)
    harper.beforeAnswer = undefined
    const result = await run()
    assert.deepEqual([result.continuedAfter, result.rows + before], [before, 1_000])
    assert.equal((await stored(host)).length, 1_000)
  })

  it('waits for a HarperDB that restarts', async (test) => {
    const { harper, rows, run } = await scene(test, {}, 5_000)
    rows.put(1, { id: 1 }, ROW_TIME)
    let failures = 0
    harper.beforeAnswer = () => {
      if (failures++ < 2) throw new Error('restarts')
    }
    assert.equal((await run()).rows, 1)
  })

  it('takes over what changed since the last pass: inserts, updates and deletes', async (test) => {
    const { host, rows, run } = await scene(test)
    for (const id of [1, 2, 3]) rows.put(id, { id, name: 'old' }, ROW_TIME)
    await run()
    rows.put(2, { id: 2, name: 'new' }, ROW_TIME + 1)
    rows.delete(3, ROW_TIME + 2)
    rows.put(4, { id: 4 }, ROW_TIME + 3)
    const result = await run()
    assert.deepEqual([result.changed, result.deleted], [3, 1])
    assert.deepEqual(
      host.records('dev', 'dog').map(({ id, name }) => [id, name]),
      [
        [1, 'old'],
        [2, 'new'],
        [4, undefined],
      ],
    )
    const again = await run()
    assert.deepEqual([again.changed, again.deleted], [0, 0])
    rows.put(3, { id: 3, name: 'back' }, ROW_TIME + 4)
    await run()
    assert.equal(host.get('dev', 'dog', 3)!.name, 'back')
  })

  it('keeps rows that are not in HarperDB and were not imported', async (test) => {
    const { host, rows, run } = await scene(test)
    rows.put(1, { id: 1 }, ROW_TIME)
    await run()
    const timestamp = `${(ROW_TIME + 9).toString(16).padStart(12, '0')}-000000-node2`
    const writes = [{ operation: 'upsert' as const, database: 'dev', table: 'dog', records: [{ id: 9 }] }]
    const transaction = { id: 'w', timestamp, writes, origin: { node: 'node2', relayedBy: [] }, sequence: 1, index: 1 }
    const source = { node: 'node2', database: 'dev', table: 'dog' }
    await host.apply({ source, transactions: [transaction], checkpoint: { epoch: '', sequence: 1 } })
    assert.equal((await run()).deleted, 0)
    assert.ok(host.get('dev', 'dog', 9))
  })

  it('misses no row although rows come and go while it reads', async (test) => {
    const { harper, host, rows, run } = await scene(test)
    for (let id = 1; id <= 800; id++) rows.put(id, { id }, ROW_TIME)
    harper.beforeAnswer = ({ conditions }, number) => {
      // A page, and no look for a row that is missing.
      if (!JSON.stringify(conditions ?? []).includes('greater_than')) return
      rows.delete(number, ROW_TIME + number)
      rows.put(2_000 + number, { id: 2_000 + number }, ROW_TIME + number)
    }
    await run()
    const kept = new Set((await stored(host)).map(({ key }) => key))
    for (const record of rows.all()) assert.ok(kept.has(record.id as number), `${record.id}`)
  })

  it('reports rows without a time, in the future, with a key that no host has, and those that the host refuses', async (test) => {
    const { host, rows, run } = await scene(test)
    rows.put(1, { id: 1 }, Date.now() + 3_600_000)
    rows.put(['a', 1], { id: ['a', 1] }, ROW_TIME)
    for (const id of ['x', 'refused', 'y']) rows.put(id, { id }, ROW_TIME)
    host.beforeApply = ({ transactions }) => {
      if (transactions.some(({ id }) => id.endsWith('srefused'))) throw new Error('the key is too long')
    }
    const result = await run()
    assert.deepEqual([result.rows, result.future, result.refused], [5, 1, 2])
    assert.deepEqual(result.examples, [
      { key: '["a",1]', reason: 'the primary key is neither a string nor a number' },
      { key: '"refused"', reason: 'the key is too long' },
    ])
    const found = await stored(host)
    assert.deepEqual(found.map(({ key }) => key).sort(), [1, 'x', 'y'])
    assert.ok(found.every(({ row }) => wallTimeOf(row.timestamp) <= Date.now()))

    const untimed = await scene(test, { tables: [{ ...dogs, hasTimes: false }] })
    untimed.rows.put(1, { id: 1 }, ROW_TIME)
    assert.equal((await untimed.run()).untimed, 1)
    assert.equal(wallTimeOf((await stored(untimed.host))[0]!.row.timestamp), 0)
  })

  it('rejects, and keeps its position, when the host refuses everything', async (test) => {
    const { host, rows, run } = await scene(test)
    rows.put(1, { id: 1 }, ROW_TIME)
    host.beforeApply = () => {
      throw new Error('disk full')
    }
    await assert.rejects(run(), /disk full/)
    host.beforeApply = undefined
    assert.equal((await run()).rows, 1)
  })

  it('rejects a wrong password and another server with the reason', async (test) => {
    const { harper } = await scene(test)
    const wrong = new HarperApi({ ...harperLogin, url: harper.url, password: 'wrong' })
    await assert.rejects(wrong.status(), { code: 'harperdb_rejected', message: /cluster_status.*401, Login failed/ })
    harper.beforeAnswer = (body) => {
      body.operation = 'describe_all'
    }
    const api = new HarperApi({ ...harperLogin, url: harper.url })
    await assert.rejects(api.network(), { code: 'harperdb_rejected', message: /another form/ })
  })
})
