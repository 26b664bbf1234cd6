// The README's example of the contract of hosts, so that `npm run check` compiles it; a unit test compares the texts.

import { mkdtemp } from 'node:fs/promises'
import { test } from 'node:test'
import type { Write } from '../../lib/index.ts'
import { hostContract } from '../../lib/testing.ts'
import { LmdbHost } from '../examples/lmdb-host.ts'

const create = async () => {
  const directory = await mkdtemp('host-')
  let host = new LmdbHost(directory)
  return {
    host,
    read: (database: string, table: string, key: unknown) => host.get(database, table, key),
    commit: (writes: Write[], timestamp: string) => host.commit(writes, () => timestamp),
    reopen: async () => {
      await host.close()
      host = new LmdbHost(directory)
      return host
    },
    close: () => host.close(),
  }
}
for (const { name, run } of hostContract(create)) test(name, run)
