// Transactions that are in no outbox and no stream: of a node whose clustering was disabled, and of one without an outbox that died.
// Its subscribers report a gap and get the rows.

import assert from 'node:assert/strict'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { formatStreamMetadata, parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { type ClusterNode, eventually, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { storedRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }

async function setEnabled({ configFile }: ClusterNode, enabled: boolean) {
  const text = await readFile(configFile, 'utf8')
  await writeFile(configFile, text.replace(/enabled: (true|false)/, `enabled: ${enabled}`))
}

async function open(test: TestContext, options: { outbox?: boolean; options?: object } = {}) {
  const network = new MemoryNetwork()
  const tables = [dog, cat]
  const cluster = await startCluster(2, {
    network,
    tables,
    host: (name) => new MemoryHost({ tables, outbox: name === 'node2' || (options.outbox ?? true) }),
    ...(options.options && { options: options.options }),
  })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const events: unknown[][] = []
  const watch = () => {
    two.cluster.on('replication:gap', ({ source, from, to, reason, repair }) =>
      events.push(['gap', source.table, reason, to! - from! + 1, repair]),
    )
    two.cluster.on('replication:repaired', ({ table, reason, rows }) => events.push(['repaired', table, reason, rows]))
  }
  watch()
  const isEqual = () => JSON.stringify(storedRows(one.host)) === JSON.stringify(storedRows(two.host))
  /** The node runs with clustering disabled while `work` does. */
  const whileDisabled = async (work: () => Promise<void>) => {
    await one.stop()
    await setEnabled(one, false)
    await one.start()
    await work()
    await one.stop()
    await setEnabled(one, true)
    await one.start()
  }
  const isLive = () => two.cluster.subscriptions().every(({ state }) => state === 'live')
  return { network, cluster, one, two, events, watch, isEqual, isLive, whileDisabled }
}

const gap = ['gap', 'dog', 'unrecorded', 0, true]

describe('transactions that were committed while clustering was disabled', {
  concurrency: true,
  timeout: 60_000,
}, () => {
  it('500 of them arrive when it is enabled again, and are reported as a gap', async (test) => {
    const { cluster, one, two, events, isEqual, whileDisabled } = await open(test)
    await one.host.insert('dev', 'dog', { id: 'before' }, { id: 'deleted' })
    await cluster.converged()
    await whileDisabled(async () => {
      for (let id = 0; id < 499; id++) await one.host.insert('dev', 'dog', { id })
      await one.host.delete('dev', 'dog', 'deleted')
      assert.equal(one.host.outbox.length, 0)
    })
    await eventually('it is repaired', () => events.length >= 2)
    assert.ok(isEqual())
    assert.deepEqual(events, [gap, ['repaired', 'dog', 'gap', 500]])
    assert.equal(two.cluster.subscriptions().find(({ source }) => source.table === 'dog')?.gaps, 1)
    assert.equal(two.cluster.metrics()!.apply.lost, 0)
    await one.host.insert('dev', 'dog', { id: 'after' })
    await cluster.converged()
    assert.ok(isEqual())
  })

  it('are repaired once, also at a subscriber that was down, and after further restarts', async (test) => {
    const { cluster, one, two, events, watch, isEqual, whileDisabled } = await open(test)
    await one.host.insert('dev', 'dog', { id: 'before' })
    await cluster.converged()
    await two.stop()
    await whileDisabled(() => one.host.insert('dev', 'dog', { id: 'unrecorded' }))
    await one.stop()
    await one.start()
    await two.start()
    watch()
    await eventually('it is repaired', () => isEqual())
    for (const node of [one, two, one]) {
      await node.stop()
      await node.start()
      if (node === two) watch()
      await one.host.insert('dev', 'dog', { id: `after ${node.name} ${events.length}` }).catch(() => {})
      await cluster.converged()
    }
    assert.ok(events.filter(([event]) => event === 'gap').length <= 1, JSON.stringify(events))
    assert.equal(two.cluster.subscriptions().find(({ source }) => source.table === 'dog')?.gaps, 1)
  })

  it('are reported for each such time', async (test) => {
    const { cluster, one, events, isEqual, isLive, whileDisabled } = await open(test)
    await one.host.insert('dev', 'dog', { id: 'before' })
    await cluster.converged()
    for (const id of [1, 2]) {
      await whileDisabled(() => one.host.insert('dev', 'dog', { id }))
      await eventually('it is repaired', () => events.length >= 2 * id && isLive())
      assert.ok(isEqual())
    }
    assert.deepEqual(events, [gap, ['repaired', 'dog', 'gap', 1], gap, ['repaired', 'dog', 'gap', 1]])
  })

  it('come after those that were in the outbox', async (test) => {
    const { network, cluster, one, two, events, isEqual, whileDisabled } = await open(test)
    await one.host.insert('dev', 'dog', { id: 'before' })
    await cluster.converged()
    network.crash('node1')
    one.host.insert('dev', 'dog', { id: 'in the outbox' }).catch(() => {})
    await whileDisabled(async () => {
      assert.equal(one.host.outbox.length, 1)
      await one.host.update('dev', 'dog', { id: 'in the outbox', value: 'unrecorded' })
      network.restart('node1')
    })
    await eventually('it is repaired', () => events.length >= 2)
    await cluster.converged()
    assert.ok(isEqual())
    assert.equal(two.host.get('dev', 'dog', 'in the outbox')?.value, 'unrecorded')
  })

  it('are only reported with the option repair: false', async (test) => {
    const { cluster, one, two, events, whileDisabled } = await open(test, { options: { repair: false } })
    await one.host.insert('dev', 'dog', { id: 'before' })
    await cluster.converged()
    await whileDisabled(() => one.host.insert('dev', 'dog', { id: 'unrecorded' }))
    await eventually('the gap', () => events.length > 0)
    await cluster.converged()
    assert.deepEqual(events, [['gap', 'dog', 'unrecorded', 0, false]])
    assert.equal(two.host.get('dev', 'dog', 'unrecorded'), undefined)
  })
})

describe('a host without an outbox', { concurrency: true, timeout: 60_000 }, () => {
  const recorded = ({ configFile }: ClusterNode) => join(dirname(configFile), 'clustering', 'recorded')

  it('that ends in order begins no new epoch', async (test) => {
    const { one, two, events, isEqual, isLive } = await open(test, { outbox: false })
    await one.host.insert('dev', 'dog', { id: 1 })
    await one.stop()
    await one.start()
    await one.host.insert('dev', 'dog', { id: 2 })
    await eventually('both rows arrive', () => isEqual() && isLive())
    assert.equal(two.host.applied.length, 2)
    assert.deepEqual(events, [])
  })

  it('that dies begins new epochs, and what was lost is repaired', async (test) => {
    const { one, two, events, isEqual } = await open(test, { outbox: false })
    await one.host.insert('dev', 'dog', { id: 1 })
    await eventually('it arrives', isEqual)
    await one.stop()
    // As after a kill: the file of an end in order is missing, and a transaction never left the process.
    await rm(recorded(one))
    one.host.commitAs({
      id: 'lost',
      timestamp: `${(Date.now() - 1).toString(16).padStart(12, '0')}-000000-node1`,
      writes: [{ operation: 'insert', ...dog, records: [{ id: 'lost' }] }],
    })
    await one.start()
    await eventually('it is repaired', isEqual)
    await eventually('it is reported', () => events.filter(([event]) => event === 'repaired').length === 2)
    assert.deepEqual(
      events.filter(([event]) => event === 'gap').sort(),
      [['gap', 'cat', 'unrecorded', 0, true], gap].sort(),
    )
    assert.equal(two.host.get('dev', 'dog', 'lost')?.id, 'lost')
  })

  it('that dies, and then ends in order without a connection to its streams, begins new epochs later', async (test) => {
    const { network, one, events, isEqual } = await open(test, { outbox: false })
    await one.host.insert('dev', 'dog', { id: 1 })
    await eventually('it arrives', isEqual)
    await one.stop()
    await rm(recorded(one))
    one.host.commitAs({
      id: 'lost',
      timestamp: one.host.rows.get(JSON.stringify(['dev', 'dog']))!.get('[1]')!.timestamp,
      writes: [{ operation: 'insert', ...dog, records: [{ id: 'lost' }] }],
    })
    network.crash('node1')
    await one.start()
    await one.stop()
    network.restart('node1')
    await one.start()
    await eventually('it is repaired', () => isEqual() && events.some(([event]) => event === 'repaired'))
  })

  it('that committed while clustering was disabled begins new epochs', async (test) => {
    const { one, events, isEqual, whileDisabled } = await open(test, { outbox: false })
    await one.host.insert('dev', 'dog', { id: 1 })
    await eventually('it arrives', isEqual)
    await whileDisabled(() => one.host.insert('dev', 'dog', { id: 'unrecorded' }))
    await eventually('it is repaired', () => isEqual() && events.some(([event]) => event === 'repaired'))
    assert.ok(events.some((event) => String(event) === String(gap)))
  })
})

it('the description of a stream keeps which epochs follow unrecorded transactions', () => {
  const metadata = {
    epochs: [
      { epoch: 'a', from: 1, last: 5 },
      { epoch: 'b', from: 6, last: 9, unrecorded: true as const },
      { epoch: 'c', from: 10, unrecorded: true as const },
    ],
    purged: [{ from: 1, to: 3 }],
    unrecorded: '0123456789abcdef',
  }
  assert.deepEqual(parseStreamMetadata(formatStreamMetadata(dog, metadata)), metadata)
})
