// The testing kit: the host contract, clusters on a network in memory, and the test clock.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { ClusterError, type Timestamp, type Write } from '../../lib/index.ts'
import {
  checkHost,
  eventually,
  type HostUnderTest,
  hostContract,
  MemoryHost,
  MemoryNetwork,
  type StartOptions,
  startCluster,
  TestClock,
} from '../../lib/testing.ts'
import { Database } from '../host/database.ts'
import { LmdbHost } from '../host/lmdb-host.ts'
import { temporaryDirectory } from '../support/cluster.ts'
import { memorySubject } from '../support/contract-subject.ts'

const dogs = [{ database: 'dev', table: 'dog' }]

describe('the host contract', () => {
  describe('passes for the host in memory', () => {
    for (const { name, run } of hostContract(() => memorySubject())) it(name, run)
  })

  it('passes for a host without an outbox', async () => {
    await checkHost(() => memorySubject(new MemoryHost({ outbox: false })))
  })

  describe('passes for the reference host', () => {
    const create = async (): Promise<HostUnderTest> => {
      const [directory, remove] = await temporaryDirectory()
      let database = await Database.open(directory)
      const commit = (writes: readonly Write[], timestamp: Timestamp) => {
        database.timestamp = () => timestamp
        return database.transact('user', (transaction) => {
          for (const write of writes)
            if (write.operation === 'delete') transaction.delete(write.database, write.table, write.ids)
            else transaction[write.operation](write.database, write.table, write.records)
        })
      }
      return {
        host: new LmdbHost(database, '1.0.0'),
        read: (name, table, key) => database.get(name, table, key),
        commit,
        commitUnrecorded: async (writes, timestamp) => {
          database.isRecording = () => false
          await commit(writes, timestamp)
          database.isRecording = () => true
        },
        dropTable: (name, table) => database.dropTable(name, table),
        dropTombstones: (name, table, limit) => database.dropTombstones(name, table, limit),
        reopen: async () => {
          await database.close()
          database = await Database.open(directory)
          return new LmdbHost(database, '1.0.0')
        },
        close: async () => {
          await database.close()
          await remove()
        },
      }
    }
    for (const { name, run } of hostContract(create)) it(name, run)
  })

  const mistakes: Record<string, (host: MemoryHost) => void> = {
    'applies the last arrival': (host) => {
      const { apply } = host
      let count = 0
      host.apply = (batch) =>
        apply.call(host, {
          ...batch,
          transactions: batch.transactions.map((each) => ({
            ...each,
            timestamp: `ffffffffffff-${String(++count).padStart(6, '0')}-x`,
          })),
        })
    },
    'keeps no tombstones': (host) => {
      const { apply } = host
      host.apply = async (batch) => {
        await apply.call(host, batch)
        for (const rows of host.rows.values()) for (const [key, { record }] of rows) if (!record) rows.delete(key)
      }
    },
    'stores a checkpoint before it applies the batch': (host) => {
      const { apply } = host
      host.apply = async (batch) => {
        await apply.call(host, { ...batch, transactions: [] })
        await apply.call(host, batch)
      }
    },
    'keeps one checkpoint for all tables of a node': (host) => {
      host.loadCheckpoint = async ({ node }) => [...host.checkpoints].findLast(([key]) => key.includes(node))?.[1]
    },
    'does not delete checkpoints': (host) => {
      host.deleteCheckpoint = async () => {}
    },
    'keeps only part of a checkpoint': (host) => {
      const { loadCheckpoint } = host
      host.loadCheckpoint = async (source) => {
        const found = await loadCheckpoint.call(host, source)
        return found && { epoch: found.epoch, sequence: found.sequence }
      }
    },
    'drops relayed transactions': (host) => {
      const { apply } = host
      host.apply = ({ relay: _, ...batch }) => apply.call(host, batch)
    },
    'removes too much from the outbox': (host) => {
      host.confirmPublished = async () => {
        host.outbox = []
      }
    },
    'sorts its outbox by id': (host) => {
      const { commitAs } = host
      host.commitAs = (transaction) => {
        commitAs.call(host, transaction)
        host.outbox.sort((a, b) => (a.id < b.id ? -1 : 1))
      }
    },
    'loses checkpoints at a restart': (host) => {
      const { loadCheckpoint } = host
      let asked = 0
      host.loadCheckpoint = async (source) =>
        ++asked > 0 && host.rows.size > 0 ? undefined : loadCheckpoint.call(host, source)
    },
    'reports no timestamp': (host) => {
      host.lastTimestamp = async () => undefined
    },
  }
  for (const [name, breakHost] of Object.entries(mistakes))
    it(`fails for a host that ${name}`, async () => {
      const create = () => {
        const host = new MemoryHost()
        breakHost(host)
        return memorySubject(host)
      }
      await assert.rejects(checkHost(create), (error: AggregateError) => error.errors.length > 0)
    })
})

const cluster = async (t: TestContext, nodes: number | string[], options: StartOptions) => {
  const started = await startCluster(nodes, options)
  t.after(() => started.close())
  return started
}

describe('a cluster in memory', () => {
  it('is complete after the start, and replicates', async (t) => {
    const network = new MemoryNetwork()
    const started = await cluster(t, 3, { network, tables: dogs })
    const [one, two, three] = started.nodes
    await one!.host.insert('dev', 'dog', { id: 1, name: 'Rex' })
    await two!.host.insert('dev', 'dog', { id: 2, name: 'Ida' })
    await started.converged()
    await three!.host.update('dev', 'dog', { id: 1, age: 3 })
    await started.converged()
    for (const { host } of started.nodes)
      assert.deepEqual(host.records('dev', 'dog'), [
        { id: 1, name: 'Rex', age: 3 },
        { id: 2, name: 'Ida' },
      ])
  })

  it('loses nothing when nodes are cut off, stopped and started', async (t) => {
    const network = new MemoryNetwork()
    const started = await cluster(t, ['a', 'b'], { network, tables: dogs })
    const [a, b] = [started.node('a'), started.node('b')]
    network.cut('a', 'b')
    await a.host.insert('dev', 'dog', { id: 1 })
    await b.host.insert('dev', 'dog', { id: 2 })
    assert.equal(b.host.get('dev', 'dog', 1), undefined)
    await b.stop()
    await b.stop()
    assert.throws(() => b.cluster, /b is stopped/)
    network.heal()
    await b.start()
    await started.converged()
    assert.deepEqual([a.host.records('dev', 'dog').length, b.host.records('dev', 'dog').length], [2, 2])
    assert.throws(() => started.node('c'), /no node 'c' among a, b/)
  })

  it('is complete only when all nodes receive heartbeats, so that a node that is cut off right away is reported down', async (t) => {
    const clock = new TestClock()
    const network = new MemoryNetwork({ clock })
    const [one, two] = (await cluster(t, 2, { network, tables: dogs })).nodes
    network.cut('node1', 'node2')
    const down = Promise.all([one, two].map((node) => node!.cluster.events.once('peer:down')))
    await clock.advance(6_000)
    assert.deepEqual(
      (await down).map(({ node }) => node),
      ['node2', 'node1'],
    )
    assert.deepEqual(one!.cluster.view.peers(), [{ node: 'node2', up: false }])
  })

  it('waits for a new epoch, passes configuration keys on, and attaches a custom host', async (t) => {
    class CustomHost extends MemoryHost {
      attached = 0
      override attach(...args: Parameters<MemoryHost['attach']>): this {
        this.attached++
        return super.attach(...args)
      }
    }
    const network = new MemoryNetwork()
    const started = await startCluster(3, {
      network,
      tables: dogs,
      subscribe: false,
      host: () => new CustomHost({ tables: dogs }),
      clustering: () => ({ republishMessages: true, leafServer: { streams: { maxMsgs: 100 } } }),
    })
    t.after(() => started.close())
    const [one, two, three] = started.nodes
    const subscriptions = [{ ...dogs[0]!, publish: true, subscribe: true }]
    for (const other of [one, three]) await two!.cluster.updateNode({ node_name: other!.name, subscriptions })
    for (let id = 0; id < 5; id++) await one!.host.insert('dev', 'dog', { id })
    await eventually('the rows are relayed', () => three!.host.records('dev', 'dog').length === 5)
    network.wipeDisk('node1')
    await one!.host.insert('dev', 'dog', { id: 7 })
    await started.converged()
    assert.ok(two!.host.get('dev', 'dog', 7))
    await three!.stop()
    await three!.start()
    assert.equal(three!.host.attached, 2)
  })

  it('rejects missing tables and invalid writes', async () => {
    const network = new MemoryNetwork()
    const empty = startCluster(2, { network, tables: dogs, host: () => new MemoryHost() })
    await assert.rejects(empty, /no table dog on node2 or node1: it does not exist in their hosts/)
    const host = new MemoryHost({ tables: dogs }).attach({ timestamp: () => '0', publish: async () => {} })
    for (const wrong of [
      () => host.insert('dev', 'dog', [{ id: 1 }] as never),
      () => host.insert('dev', 'dog', { name: 'Rex' }),
      () => host.delete('dev', 'dog', [1] as never),
      () => host.commit({ operation: 'put', ...dogs[0]!, records: [] } as never),
    ])
      await assert.rejects(wrong(), TypeError)
    await assert.rejects(host.insert('dev', 'cat', { id: 1 }), /does not exist/)
    assert.deepEqual([host.outbox, host.records('dev', 'dog')], [[], []])
  })

  it('names the missing condition in a time-out, and rejects invalid options', async (t) => {
    const network = new MemoryNetwork()
    const started = await cluster(t, 2, { network, tables: dogs })
    network.cut('node1', 'node2')
    await started.nodes[0]!.host.insert('dev', 'dog', { id: 1 })
    await assert.rejects(
      started.converged(50),
      /not within 50 ms: the cluster has converged: node\d, table dev\.dog of node\d: (?:it is|transactions 1 to 1 are)/,
    )
    await assert.rejects(startCluster(0), TypeError)
    await assert.rejects(startCluster(2, { network: new MemoryNetwork(), options: { maxBatch: 0 } }), {
      code: 'invalid_option',
    })
  })
})

it('a node of a cluster for tests may have the longest name there is', async (t) => {
  const name = '日'.repeat(255)
  const started = await cluster(t, ['node1', name], { network: new MemoryNetwork(), tables: dogs })
  await started.node(name).host.insert('dev', 'dog', { id: 1 })
  await started.converged()
  assert.deepEqual(started.node('node1').host.get('dev', 'dog', 1), { id: 1 })
})

describe('the clock of a network', () => {
  it('advances heartbeats and publish time-outs', async (t) => {
    const clock = new TestClock()
    const network = new MemoryNetwork({ clock })
    const [one] = (await cluster(t, 2, { network, tables: dogs })).nodes
    const { events } = one!.cluster
    const down = events.once('peer:down')
    network.cut('node1', 'node2', { silent: true })
    await clock.advance(6_000)
    assert.equal((await down).node, 'node2')
    network.crash('node1')
    const published = one!.host.insert('dev', 'dog', { id: 1 })
    const [outcome] = await Promise.all([published.catch((error) => error), clock.advance(11_000)])
    assert.ok(outcome instanceof ClusterError && outcome.code === 'publish_timeout')
    network.restart('node1')
    network.heal()
    const up = events.once('peer:up')
    await clock.advance(2_000)
    assert.equal((await up).node, 'node2')
  })

  it('does not advance while stopped, and runs due timers in order, each at its time', async () => {
    const clock = new TestClock({ start: new Date('2026-01-01T00:00:00Z'), stopped: true })
    const reported: string[] = []
    const report = (name: string) => () => void reported.push(`${name} at ${clock.elapsed()}`)
    clock.after(30, report('third'))
    clock.after(10, report('first'))
    const cancel = clock.every(20, report('every'))
    clock.after(20, () => clock.after(5, report('nested')))
    const cancelEarly = clock.after(15, report('cancelled'))
    cancelEarly()
    assert.equal(clock.now(), Date.parse('2026-01-01T00:00:00Z'))
    await clock.advance(9)
    assert.deepEqual(reported, [])
    await clock.advance(36)
    assert.deepEqual(reported, ['first at 10', 'every at 20', 'nested at 25', 'third at 30', 'every at 40'])
    assert.equal(clock.now(), Date.parse('2026-01-01T00:00:00.045Z'))
    cancel()
    await clock.advance(1_000)
    assert.equal(reported.length, 5)
    for (const wrong of [-1, Number.NaN, '5']) assert.throws(() => clock.advance(wrong as number), TypeError)
    assert.throws(() => new TestClock({ start: new Date('never') }), TypeError)
  })

  it('advances with the system time unless it is stopped', async () => {
    const clock = new TestClock()
    const before = clock.elapsed()
    await new Promise<void>((resolve) => clock.after(5, resolve))
    assert.ok(clock.elapsed() - before >= 4.9)
    let count = 0
    await new Promise<void>((resolve) => {
      clock.after(1_000, resolve)
      const cancel = clock.every(2, () => {
        if (++count < 3) return
        cancel()
        resolve()
      })
    })
    assert.equal(count, 3)
    await clock.advance(1_000)
  })
})
