// The README's host keeps the contract, replicates, and has lost nothing after a restart.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type HostUnderTest, hostContract, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { LmdbHost } from '../examples/lmdb-host.ts'
import { eventually, temporaryFolder } from '../support/cluster.ts'

const dog = { database: 'dev', table: 'dog' }

describe('the host on LMDB', () => {
  const create = async (): Promise<HostUnderTest> => {
    const [folder, remove] = await temporaryFolder()
    let host = new LmdbHost(folder)
    return {
      host,
      read: (database, table, key) => host.get(database, table, key),
      commit: (writes, stamp) => host.commit(writes, () => stamp),
      reopen: async () => {
        await host.close()
        host = new LmdbHost(folder)
        return host
      },
      close: async () => {
        await host.close()
        await remove()
      },
    }
  }
  for (const { name, run } of hostContract(create)) it(name, run)

  it('replicates from one node to another', async (t) => {
    const removals: (() => Promise<void>)[] = []
    t.after(async () => {
      for (const remove of removals) await remove()
    })
    const host = async () => {
      const [folder, remove] = await temporaryFolder()
      const host = new LmdbHost(folder)
      await host.createTable({ ...dog, primaryKey: 'id', attributes: ['id', 'name'] })
      removals.push(
        () => host.close(),
        () => remove(),
      )
      return host
    }
    const cluster = await startCluster(2, { network: new MemoryNetwork(), tables: [dog], host })
    removals.unshift(() => cluster.close())
    const [one, two] = cluster.nodes
    for (const { host, cluster: manager } of cluster.nodes) host.cluster = manager
    for (let id = 0; id < 2_500; id++)
      void one!.host.commit([{ operation: 'insert', ...dog, records: [{ id, name: `dog ${id}` }] }])
    await eventually('the last one has arrived', () => two!.host.get('dev', 'dog', 2_499) !== undefined)
    await two!.host.commit([{ operation: 'update', ...dog, records: [{ id: 7, name: 'Rex' }] }])
    await cluster.settled()
    for (const { host } of cluster.nodes) assert.deepEqual(host.get('dev', 'dog', 7), { id: 7, name: 'Rex' })
    for (let id = 0; id < 2_500; id += 100) assert.ok(two!.host.get('dev', 'dog', id))
  })
})
