// The examples of the documentation work: a host, a plugin, observability, a test of a cluster.

import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import pino from 'pino'
import {
  type HostUnderTest,
  hostContract,
  MemoryHost,
  MemoryNetwork,
  startCluster,
  TestClock,
} from '../../lib/testing.ts'
import '../examples/cluster.test.ts'
import { LmdbHost } from '../examples/lmdb-host.ts'
import { openDatabase } from '../examples/map-host.ts'
import { openObserved } from '../examples/observing.ts'
import { alerts } from '../examples/plugin.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'

const dog = { database: 'dev', table: 'dog' }

describe('the host on LMDB', () => {
  const create = async (): Promise<HostUnderTest> => {
    const [directory, remove] = await temporaryDirectory()
    let host = new LmdbHost(directory)
    return {
      host,
      read: (database, table, key) => host.get(database, table, key),
      commit: (writes, timestamp) => host.commit(writes, () => timestamp),
      commitUnrecorded: async (writes, timestamp) => {
        host.cluster = { manifest: { enabled: false }, publish: async () => {} } as never
        await host.commit(writes, () => timestamp)
        host.cluster = undefined
      },
      dropTombstones: (database, table, limit) => host.dropTombstones(database, table, limit),
      reopen: async () => {
        await host.close()
        host = new LmdbHost(directory)
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
      const [directory, remove] = await temporaryDirectory()
      const host = new LmdbHost(directory)
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
    await cluster.converged()
    for (const { host } of cluster.nodes) assert.deepEqual(host.get('dev', 'dog', 7), { id: 7, name: 'Rex' })
    for (let id = 0; id < 2_500; id += 100) assert.ok(two!.host.get('dev', 'dog', id))
  })
})

describe('the smallest host', () => {
  it('replicates between two nodes that a configuration file connects', async (t) => {
    const [directory, remove] = await temporaryDirectory()
    const network = new MemoryNetwork()
    const open = async (name: string, nodes: object[]) => {
      const configFile = join(directory, name, 'config.yaml')
      await mkdir(join(directory, name))
      await writeFile(
        configFile,
        JSON.stringify({ clustering: { enabled: true, nodeName: name, user: 'user', nodes } }),
      )
      return openDatabase({ configFile, mesh: network.mesh(), password: 'secret' })
    }
    const one = await open('one', [{ name: 'two', subscriptions: [{ ...dog, publish: true, subscribe: true }] }])
    const two = await open('two', [])
    t.after(async () => {
      await Promise.all([one.cluster.close(), two.cluster.close()])
      await network.close()
      await remove()
    })
    for (const { host } of [one, two]) await host.createTable({ ...dog, primaryKey: 'id', attributes: ['id', 'name'] })
    await eventually('both nodes subscribe', () =>
      [one, two].every(({ cluster }) => cluster.subscriptions()[0]?.state === 'live'),
    )
    await one.commit({ operation: 'insert', ...dog, records: [{ id: 1, name: 'Rex' }] })
    await eventually('the insert arrives', () => two.host.records().length === 1)
    await two.commit({ operation: 'update', ...dog, records: [{ id: 1, name: 'Max' }] })
    await eventually('the update arrives', () => one.host.records()[0]?.name === 'Max')
    await one.commit({ operation: 'delete', ...dog, ids: [1] })
    await eventually('the delete arrives', () => two.host.records().length === 0)
  })
})

describe('the plugin', () => {
  it('reports a node that is down, a database that rejects, and a gap, until its signal aborts', async (t) => {
    const clock = new TestClock()
    const network = new MemoryNetwork({ clock })
    const cluster = await startCluster(2, { network, tables: [dog] })
    const stopping = new AbortController()
    t.after(async () => {
      stopping.abort()
      await cluster.close()
    })
    const [one, two] = cluster.nodes
    const reported: string[] = []
    alerts(two!.cluster.view, (text) => void reported.push(text), stopping.signal)
    two!.host.beforeApply = () => {
      throw new Error('out of order')
    }
    await one!.host.insert('dev', 'dog', { id: 1 })
    await eventually('it stalls', () => reported.includes('dog of node1 is stalled: out of order'))
    two!.host.beforeApply = undefined
    await cluster.converged()
    network.cut('node1', 'node2')
    await one!.host.insert('dev', 'dog', { id: 2 })
    await one!.cluster.purgeStream({ database: 'dev', table: 'dog' })
    network.heal()
    await eventually('the gap is reported', () => reported.includes('dog: 2 to 2 are lost'))
    await one!.stop()
    await clock.advance(10_000)
    await eventually('the node is down', () => reported.includes('node1 is down'))
    stopping.abort()
    const { length } = reported
    await one!.start()
    await one!.stop()
    assert.equal(reported.length, length)
  })
})

describe('observability', () => {
  it('opens a manager that is logged, metered and traced', async (t) => {
    const [directory, remove] = await temporaryDirectory()
    const lines: { msg: string }[] = []
    const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line)) })
    const network = new MemoryNetwork()
    const cluster = await startCluster(1, { network })
    const configFile = join(directory, 'config.yaml')
    await writeFile(configFile, 'clustering: { enabled: true, nodeName: observed, user: cluster_user }\n')
    const host = new MemoryHost({ tables: [dog] })
    const manager = await openObserved({ configFile, host, mesh: network.mesh() }, log)
    t.after(async () => {
      await manager.close()
      await cluster.close()
      await remove()
    })
    assert.ok(lines.some(({ msg }) => msg === 'open'))
    const [one] = cluster.nodes
    await one!.host.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
    await eventually('the subscription is agreed', () =>
      one!.cluster
        .updateNode({ node_name: 'observed', subscriptions: [{ ...dog, publish: true, subscribe: false }] })
        .catch(() => undefined),
    )
    await one!.host.insert('dev', 'dog', { id: 1 })
    await eventually('it is applied', () => lines.some(({ msg }) => msg === 'applied'))
  })
})
