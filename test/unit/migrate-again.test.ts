// A migration that is repeated, or cannot write its files: what must not be reported as done.

import assert from 'node:assert/strict'
import { access, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { HarperApi } from '../../lib/migrate/harper-api.ts'
import { importTable } from '../../lib/migrate/import-table.ts'
import { compareNodes, type MigrationStep } from '../../lib/migrate.ts'
import { HarperHttp, harperLogin } from '../support/harper-http.ts'
import { dogs, harperSite, ROW_TIME } from '../support/harper-site.ts'

describe('a migration', { concurrency: true, timeout: 180_000 }, () => {
  it('writes no configuration when the times from which streams are read cannot be written', async (test) => {
    const { migrate, configFile, harper, options } = await harperSite(test)
    harper.connections = [
      {
        node_name: 'node2',
        subscriptions: [{ schema: 'dev', table: 'dog', publish: true, subscribe: true }],
        system_info: { hdb_version: '4.3.0' },
      },
    ]
    options.addresses = { node2: { host: '10.0.0.2', port: 9932 } }
    // In the way of the file.
    await mkdir(join(options.rootPath, 'clustering', 'revisions.json', 'x'), { recursive: true })
    await assert.rejects(migrate(), { code: 'config_unwritable' })
    await assert.rejects(access(configFile), { code: 'ENOENT' })
  })

  it('reads every row in its final pass, also after an earlier pass was interrupted', async (test) => {
    const { migrate, harper, host } = await harperSite(test)
    const rows = harper.tables[0]!
    for (let id = 1; id <= 1_000; id++) rows.put(id, { id, name: 'old' }, ROW_TIME)
    let pages = 0
    harper.beforeAnswer = ({ operation }) => {
      if (operation.startsWith('search_by') && ++pages > 2) throw new Error('power failure')
    }
    await assert.rejects(migrate(), { code: 'harperdb_unreachable' })
    harper.beforeAnswer = undefined
    // The last write of a program that stops then.
    rows.put(1, { id: 1, name: 'new' }, Date.now())
    const last = await migrate({ writersStopped: true })
    assert.equal(last.isComplete, true, JSON.stringify(last.steps))
    assert.equal(host.get('dev', 'dog', 1)!.name, 'new')
  })

  it('takes over what changed in a table without times', async (test) => {
    const { migrate, harper, host } = await harperSite(test, { tables: [{ ...dogs, hasTimes: false }] })
    const rows = harper.tables[0]!
    for (let id = 1; id <= 20; id++) rows.put(id, { id, name: 'old' }, ROW_TIME)
    await migrate()
    for (let id = 1; id <= 18; id++) rows.put(id, { id, name: `new ${id}` }, ROW_TIME + 1)
    rows.delete(19, ROW_TIME + 1)
    await migrate()
    rows.put(19, { id: 19, name: 'back' }, ROW_TIME + 2)
    const last = await migrate({ writersStopped: true })
    assert.deepEqual(
      host
        .records('dev', 'dog')
        .filter(({ name }) => name === 'old')
        .map(({ id }) => id),
      [20],
    )
    assert.equal(host.get('dev', 'dog', 19)?.name, 'back')
    assert.equal(last.isComplete, true, JSON.stringify(last.steps))
  })

  it('reports the rows of a page that are all refused, and goes on with the other tables', async (test) => {
    const { migrate, harper, host } = await harperSite(test, { tables: [dogs, { ...dogs, table: 'cat' }] })
    harper.tables[0]!.put('refused', { id: 'refused' }, ROW_TIME)
    harper.tables[1]!.put(1, { id: 1 }, ROW_TIME)
    host.beforeApply = ({ transactions }) => {
      if (transactions.some(({ id }) => id.endsWith('srefused'))) throw new Error('the key is too long')
    }
    const { isComplete, imported } = await migrate({ writersStopped: true })
    assert.deepEqual([isComplete, imported.map(({ refused }) => refused)], [false, [1, 0]])
    assert.equal(host.records('dev', 'cat').length, 1)
  })

  it('imports rows whose keys are big integers, and keeps them', async (test) => {
    const { harper, host } = await harperSite(test)
    await host.createTable({ database: 'dev', table: 'dog', primaryKey: 'id', attributes: [] })
    const table = { ...dogs, primaryKey: 'id', attributes: ['id'], rows: 3, updatedTime: 'time' }
    const keys = [2n ** 53n + 1n, 2n ** 53n + 2n, 2n ** 53n + 3n, 2n ** 53n + 4n, 2n ** 60n + 1n]
    const api = {
      url: harper.url,
      recordsAfter: async (_: unknown, after: number | undefined, limit: number) => {
        const all = keys.filter((key) => after === undefined || key > after)
        return { records: all.slice(0, Math.min(limit, 200)).map((id) => ({ id, time: ROW_TIME })), limit }
      },
      // As HarperDB finds them: JSON has them as numbers.
      keysOf: async (_: unknown, asked: (number | bigint)[]) =>
        keys.filter((key) => asked.some((each) => BigInt(Number(each)) === key)),
    } as never as HarperApi
    const result = await importTable({ api, host, table })
    assert.deepEqual([result.deleted, host.records('dev', 'dog').length], [0, keys.length])
  })
})

it('a comparison of nodes reports tables that only one of them has', async (test) => {
  const here = await HarperHttp.start(test, { name: 'node1', tables: [dogs] })
  const there = await HarperHttp.start(test, { name: 'node2', tables: [] })
  here.tables[0]!.put(1, { id: 1 }, ROW_TIME)
  const steps: MigrationStep[] = []
  await compareNodes({
    here: { ...harperLogin, url: here.url },
    there: { ...harperLogin, url: there.url },
    onStep: (step) => steps.push(step),
  })
  assert.match(steps.map(({ message }) => message).join('\n'), /dev\.dog/)
})
