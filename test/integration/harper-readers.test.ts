// Nodes of HarperDB, simulated with plain nats.js, read from nodes with `clustering.compatibility: harperdb4`: their durable consumers,
// acknowledgements, kills of servers on the way, a relay that repeats headers, and a stream from the time when HarperDB ran here.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, type TestContext, test } from 'node:test'
import { AckPolicy, createInbox, type NatsConnection } from 'nats'
import type { Write } from '../../lib/host/host.ts'
import { streamName } from '../../lib/mesh/nats/jetstream.ts'
import { eventually, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { type HarperWrite, harperPack, harperTransaction } from '../support/harper-messages.ts'
import type { HarperNode } from '../support/harper-node.ts'
import { startNatsHarperNode } from '../support/nats-harper-node.ts'

const clustering = { compatibility: 'harperdb4' }
const tables: [string, string][] = [
  ['dev', 'dog'],
  ['dev', 'cat'],
]
const dogStream = streamName({ database: 'dev', table: 'dog' })
const both = (table: string) => ({ schema: 'dev', table, publish: true, subscribe: true })
const insert = (table: string, ...records: object[]): Write =>
  ({ operation: 'insert', database: 'dev', table, records }) as Write
const update = (table: string, ...records: object[]): Write =>
  ({ operation: 'update', database: 'dev', table, records }) as Write
const put = (id: number): HarperWrite => ({ operation: 'upsert', table: 'dog', id, record: { id } })
const rowsOf = (node: TestNode | HarperNode) => ('host' in node ? node.host : node).contents('dev', 'dog')
const idsOf = (node: TestNode | HarperNode) =>
  rowsOf(node)
    .map(({ id }) => Number(id))
    .sort((a, b) => a - b)
const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index)
const have = (nodes: (TestNode | HarperNode)[], ids: number[]) =>
  eventually(
    () => `all rows are there: ${JSON.stringify(nodes.map(idsOf))}`,
    () => nodes.every((node) => JSON.stringify(idsOf(node)) === JSON.stringify(ids)),
    30_000,
  )
const linked = (node: TestNode, name: string) =>
  eventually('the hubs are linked', async () =>
    (await node.cluster.network({ timeout: 500 })).nodes.some((each) => each.name === name),
  )
/** The consumers of the table `dog` that stay. */
async function durables(client: NatsConnection, domain: string): Promise<string[]> {
  const manager = await client.jetstreamManager({ domain })
  const names: string[] = []
  for await (const { config } of manager.consumers.list(dogStream))
    if (config.durable_name) names.push(config.durable_name)
  return names
}

async function pair(t: TestContext) {
  const cluster = TestCluster.for(t)
  const node1 = await cluster.start('node1', { tables, clustering })
  const { node: harper, ...rest } = await startNatsHarperNode(t, 'harper', {
    tables: [],
    routes: [node1.ports.cluster],
  })
  await linked(node1, 'harper')
  const store = await cluster.client(node1)
  return { cluster, node1, harper, store, ...rest }
}

describe('a HarperDB node that reads from an enmesh node', { concurrency: 2 }, () => {
  test('has the same rows, also after its own restart, and its consumer is removed with the subscription', async (t) => {
    const { node1, harper, store } = await pair(t)
    await harper.addNode('node1', [both('dog'), both('cat')])
    assert.deepEqual(await durables(store, 'node1-leaf'), ['harper-leaf--of--node1'])
    const born = new Date(5)
    await node1.host.write(
      't1',
      insert('dog', { id: 1, name: 'Rex', born, photo: Uint8Array.of(1, 2) }),
      insert('cat', { id: 1 }),
    )
    await node1.host.write('t2', update('dog', { id: 1, age: 3 }))
    await harper.write('dev', put(2), { operation: 'patch', table: 'dog', id: 3, record: { age: 1 } })
    await have([node1, harper], [1, 2, 3])
    await eventually('the update has arrived', () => rowsOf(harper)[0]?.age === 3)
    assert.deepEqual(rowsOf(harper)[0], { id: 1, name: 'Rex', born, photo: Uint8Array.of(1, 2), age: 3 })
    await harper.close()
    for (const id of [4, 5]) await node1.host.write(`t${id}`, insert('dog', { id }))
    await harper.restart()
    await have([node1, harper], [1, 2, 3, 4, 5])
    const more = (from: number) => numbers(from, from + 599).map((id) => ({ id, name: `dog ${id}` }))
    await node1.host.write('t6', insert('dog', ...more(1_000)), update('dog', ...more(2_000)))
    await have([node1, harper], [1, 2, 3, 4, 5, ...numbers(1_000, 1_599), ...numbers(2_000, 2_599)])
    const acknowledged = async () => {
      const manager = await store.jetstreamManager({ domain: 'node1-leaf' })
      const { num_ack_pending, num_pending } = await manager.consumers.info(dogStream, 'harper-leaf--of--node1')
      return num_ack_pending + num_pending === 0
    }
    await eventually('everything is acknowledged', acknowledged)
    await node1.cluster.removeNode({ node_name: 'harper' })
    await eventually('the consumer is removed', async () => (await durables(store, 'node1-leaf')).length === 0)
    assert.deepEqual([harper.nodes.size, harper.failures], [0, []])
  })

  test('misses nothing when servers and processes are killed', async (t) => {
    const { node1, harper } = await pair(t)
    await node1.cluster.addNode({
      node_name: 'harper',
      subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: true }],
    })
    let next = 1
    const write = async (count: number) => {
      for (const last = next + count; next < last; next++)
        await Promise.all([
          node1.host.write(`t${next}`, insert('dog', { id: next })).catch(() => {}),
          harper.write('dev', put(1_000 + next)),
        ])
    }
    await write(10)
    for (const kind of ['leaf', 'hub'] as const) {
      const killed = await node1.kill(kind)
      await write(10)
      await node1.replaced(kind, killed)
    }
    await node1.reopen()
    await write(10)
    await have([node1, harper], [...numbers(1, next - 1), ...numbers(1_001, 999 + next)])
    assert.deepEqual([node1.seen('replication:gap'), node1.seen('replication:diverged')], [[], []])
  })

  test('relays messages of an enmesh node, which are stored without expected messages', async (t) => {
    const { cluster, node1, harper, clusterPort } = await pair(t)
    harper.republish = true
    const node2 = await cluster.start('node2', { tables, clustering, routes: [clusterPort, node1.ports.cluster] })
    await linked(node2, 'harper')
    await harper.addNode('node1', [both('dog')])
    await harper.addNode('node2', [both('dog')])
    for (const id of numbers(1, 10)) await node1.host.write(`t${id}`, insert('dog', { id }))
    for (const id of numbers(11, 20)) await node2.host.write(`t${id}`, insert('dog', { id }))
    await have([node1, harper, node2], numbers(1, 20))
    assert.deepEqual(node2.seen('replication:quarantined'), [])
  })

  test('goes on where it was when HarperDB ran on the node, and misses nothing when its consumer is lost', async (t) => {
    const cluster = TestCluster.for(t)
    const node1 = await cluster.start('node1', { tables, clustering })
    const store = await cluster.client(node1)
    const manager = await store.jetstreamManager({ domain: 'node1-leaf' })
    await manager.streams.add({ name: dogStream, subjects: ['txn.dev.dog.node1-leaf'] })
    const { node: harper, connection } = await startNatsHarperNode(t, 'harper', {
      tables: [],
      routes: [node1.ports.cluster],
    })
    await linked(node1, 'harper')
    const subject = 'txn.dev.dog.node1-leaf'
    const origin = { node: 'node1', timestamp: Date.now() }
    for (const id of [1, 2])
      await store
        .jetstream({ domain: 'node1-leaf' })
        .publish(subject, harperPack(harperTransaction('dev', origin, put(id))))
    await manager.consumers.add(dogStream, { durable_name: 'harper-leaf', ack_policy: AckPolicy.Explicit })
    const former = await store.jetstream({ domain: 'node1-leaf' }).consumers.get(dogStream, 'harper-leaf')
    assert.ok(await (await former.next())?.ackAck())
    await node1.cluster.addNode({
      node_name: 'harper',
      subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: false }],
    })
    await have([harper], [2])
    const isAcknowledged = (sequence: number) => async () => {
      const { ack_floor, config } = await manager.consumers.info(dogStream, 'harper-leaf')
      return ack_floor.stream_seq === sequence && config.max_ack_pending === 1 && config.ack_wait === 5e9
    }
    await eventually('it is acknowledged, and adopted', isAcknowledged(2))
    await harper.close()
    // HarperDB goes on with requests under the name that it knows, without asking for its consumer.
    const next = async () => {
      const inbox = createInbox()
      const answers = connection.subscribe(inbox, { max: 1, timeout: 5_000 })
      const request = JSON.stringify({ batch: 1, expires: 4e9 })
      connection.publish(`$JS.node1-leaf.API.CONSUMER.MSG.NEXT.${dogStream}.harper-leaf`, request, { reply: inbox })
      for await (const message of answers) return message
      throw new Error('no answer')
    }
    await node1.host.write('t3', insert('dog', { id: 3 }))
    let last = await next()
    for (; last.subject !== 'txn.dev.dog.node1-leaf'; last = await next());
    await harper.ingest(last.data, [])
    // For a message of another node with the same number.
    connection.publish(last.reply!.replace(/\d+(\.\d+)$/, '1700000000000000000$1'), '+ACK')
    connection.publish(last.reply!, '+ACK')
    await eventually('it is acknowledged', isAcknowledged(3))
    await harper.restart()
    await node1.host.write('t4', insert('dog', { id: 4 }))
    await have([harper], [2, 3, 4])
    assert.deepEqual(await durables(store, 'node1-leaf'), ['harper-leaf'])
    // Its consumer is lost, and HarperDB asks for the present.
    await harper.close()
    await manager.consumers.delete(dogStream, 'harper-leaf')
    await node1.host.write('t5', insert('dog', { id: 5 }))
    await harper.restart()
    await have([harper], [2, 3, 4, 5])
  })

  test('has its consumer removed when the setting is taken back, and an enmesh node reads on', async (t) => {
    const { cluster, node1, harper } = await pair(t)
    const node2 = await cluster.start('node2', { tables, routes: [node1.ports.cluster] })
    await harper.addNode('node1', [both('dog')])
    await subscribe(node1, node2, { dog: 'publish' })
    await node1.host.write('t1', insert('dog', { id: 1, name: 'Rex' }))
    await have([harper, node2], [1])
    await harper.close()
    await node1.cluster.close()
    const text = await readFile(node1.configFile, 'utf8')
    await writeFile(node1.configFile, text.replace(/^ *compatibility: .*\n/m, ''))
    await node1.reopen()
    await node1.host.write('t2', insert('dog', { id: 2 }))
    await have([node2], [1, 2])
    const store = await cluster.client(node1)
    await eventually('the consumer is removed', async () => (await durables(store, 'node1-leaf')).length === 0)
    assert.deepEqual([node2.seen('replication:gap'), node1.seen('replication:diverged')], [[], []])
    await assert.rejects(harper.addNode('node1', [both('dog')]), /'clustering.compatibility: harperdb4'/)
  })
})
