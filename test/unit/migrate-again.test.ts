// A migration that is repeated, or cannot write its files: what must not be reported as done.

import assert from 'node:assert/strict'
import { access, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { compareNodes, type MigrationStep } from '../../lib/migrate.ts'
import { HarperHttp, harperLogin } from '../support/harper-http.ts'
import { dogs, harperSite, ROW_TIME } from '../support/harper-site.ts'

describe('a migration', { concurrency: true, timeout: 30_000 }, () => {
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
