// Dropped tables, lost checkpoints and refused transactions on real servers: with databases in memory, and with the reference host.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { EventName, Payload } from '../../lib/index.ts'
import { type ClusterNode, startCluster } from '../../lib/testing.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { NodeProcess } from '../support/node-process.ts'

const dog = { database: 'dev', table: 'dog' }
const description = { ...dog, primaryKey: 'id', attributes: ['id'] }
const source = { node: 'node1', ...dog }

async function start(t: TestContext) {
  const cluster = await startCluster(2, { tables: [dog] })
  t.after(() => cluster.close())
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  return { cluster, one, two }
}

/** The payloads of an event from now on. */
function record<Name extends EventName>({ cluster }: ClusterNode, event: Name): Payload<Name>[] {
  const payloads: Payload<Name>[] = []
  cluster.on(event, ((payload: Payload<Name>) => payloads.push(payload)) as never)
  return payloads
}

const gapsOf = (gaps: Payload<'replication:gap'>[]) => gaps.map(({ from, to, reason }) => [from, to, reason])
const status = ({ cluster }: ClusterNode) => cluster.subscriptions()[0]!
const equal = async (one: ClusterNode, two: ClusterNode) =>
  assert.deepEqual(two.host.records('dev', 'dog'), one.host.records('dev', 'dog'))

test('a dropped table stalls its subscription until the host creates it, then all messages are read again', async (t) => {
  const { cluster, one, two } = await start(t)
  await one.host.insert('dev', 'dog', { id: 1 })
  await one.host.insert('dev', 'dog', { id: 2 })
  await cluster.converged()
  const gaps = record(two, 'replication:gap')
  two.host.dropTable('dev', 'dog')
  const { error } = await eventually('it is stalled', () => status(two).state === 'stalled' && status(two))
  assert.equal(error, 'the table was dropped here: create it, or end the subscription')
  await one.host.insert('dev', 'dog', { id: 3 })
  // The nodes compare their subscriptions.
  await one.stop()
  await one.start()
  await eventually('the peer is back', () => two.cluster.peers()[0]!.up)
  await two.stop()
  await two.start()
  await eventually('it is stalled again', () => status(two).state === 'stalled')
  assert.deepEqual([...two.host.tables], [])
  const gapsAfterwards = record(two, 'replication:gap')
  await two.host.createTable(description)
  await cluster.converged()
  await equal(one, two)
  assert.deepEqual(gapsOf([...gaps, ...gapsAfterwards]), [[1, 0, 'checkpoint_lost']])
})

test('a wiped database reads from the first message that the stream has, reports the rest as a gap, and copies those rows', async (t) => {
  const { cluster, one, two } = await start(t)
  for (const id of [1, 2, 3]) await one.host.insert('dev', 'dog', { id })
  await cluster.converged()
  await one.cluster.purgeStream({ ...dog, options: { keep: 1 } })
  await two.stop()
  await one.host.insert('dev', 'dog', { id: 4 })
  two.host.rows.clear()
  two.host.checkpoints.clear()
  await two.start()
  const gaps = record(two, 'replication:gap')
  const repaired = record(two, 'replication:repaired')
  await cluster.converged()
  await eventually('the rows are copied', () => repaired.length > 0)
  await equal(one, two)
  assert.equal(two.host.records('dev', 'dog').length, 4)
  assert.deepEqual(gapsOf(gaps), [[1, 2, 'checkpoint_lost']])
  assert.deepEqual([status(two).gaps, status(two).lost], [1, 2])
})

test('a refused transaction is found in its batch and quarantined on request', async (t) => {
  const { cluster, one, two } = await start(t)
  await two.stop()
  for (const id of [1, 2, 3]) await one.host.insert('dev', 'dog', { id })
  two.host.beforeApply = ({ transactions }) => {
    const bad = transactions.some(({ writes }) => 'records' in writes[0]! && writes[0].records[0]!.id === 2)
    if (bad) throw new Error('a constraint')
  }
  await two.start()
  const refused = await eventually('it is refused', () => status(two).refused)
  const { sequence, id, reason } = await two.cluster.quarantine.add(source)
  assert.deepEqual([sequence, id, reason], [refused.sequence, refused.id, 'a constraint'])
  await cluster.converged()
  assert.deepEqual(
    two.host.records('dev', 'dog').map((row) => row.id),
    [1, 3],
  )
  two.host.beforeApply = undefined
  assert.deepEqual(await two.cluster.quarantine.replay(source), { applied: [sequence], voided: [], kept: [] })
  await equal(one, two)
})

test('the reference host drops a table and creates it again: its rows come back', { timeout: 120_000 }, async (t) => {
  const [directory, remove] = await temporaryDirectory()
  const nodes: NodeProcess[] = []
  t.after(async () => {
    await Promise.all(nodes.map((node) => node.end()))
    await remove()
  })
  for (const name of ['node1', 'node2']) nodes.push(await NodeProcess.create(directory, name))
  await Promise.all(nodes.map((node) => node.start()))
  const [one, two] = nodes as [NodeProcess, NodeProcess]
  const routes = [{ host: '127.0.0.1', port: one.ports.cluster }]
  await two.operation({ operation: 'cluster_set_routes', server: 'hub', routes })
  await one.operation({ operation: 'create_database', database: 'dev' })
  await one.operation({ operation: 'create_table', ...dog, primary_key: 'id' })
  const body = {
    operation: 'set_node_replication',
    node_name: 'node2',
    subscriptions: [{ ...dog, publish: true, subscribe: true }],
  }
  await eventually('they replicate', async () => (await one.request(body)).status === 200)
  const insert = (id: number) => one.operation({ operation: 'insert', ...dog, records: [{ id }] })
  for (const id of [1, 2, 3]) await insert(id)
  const isEqual = async () => (await one.digest('dev', 'dog')) === (await two.digest('dev', 'dog'))
  await eventually('all rows are there', async () => (await two.count('dev', 'dog')) === 3 && isEqual())

  await two.operation({ operation: 'drop_table', ...dog })
  await two.operation({ operation: 'create_table', ...dog, primary_key: 'id' })
  await eventually('the rows are back', async () => (await two.count('dev', 'dog')) === 3 && isEqual())

  await two.operation({ operation: 'drop_schema', database: 'dev' })
  await insert(4)
  await two.stop()
  await two.start()
  const tables = await two.operation({ operation: 'describe_all' })
  assert.deepEqual(tables.dev, undefined)
  await two.operation({ operation: 'create_database', database: 'dev' })
  await two.operation({ operation: 'create_table', ...dog, primary_key: 'id' })
  await eventually('all rows are there again', async () => (await two.count('dev', 'dog')) === 4 && isEqual())
})
