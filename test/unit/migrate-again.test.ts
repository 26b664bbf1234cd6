// A migration that is repeated, or cannot write its files: what must not be reported as done.

import assert from 'node:assert/strict'
import { access, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { harperSite } from '../support/harper-site.ts'

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
})
