// configure_cluster applies a difference: unchanged subscriptions are not interrupted.

import assert from 'node:assert/strict'
import { readFile, stat } from 'node:fs/promises'
import { test } from 'node:test'
import type { Manifest, Payload } from '../../lib/index.ts'
import {
  allMet,
  type Direction,
  eventually,
  quiet,
  reading,
  subscriptionsOf,
  TestCluster,
  type TestNode,
} from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import { insert } from '../support/memory-host.ts'
import { randomNumbers, seedOf } from '../support/random.ts'

const RECONFIGURATIONS = isLong ? 20 : 6
/** Two pages of a negotiation at least. */
const TABLES = isLong ? 250 : 130
const changing = ['ant', 'bee', 'cow', 'dog']
const directions = ['publish', 'subscribe', 'both'] as const

const connection = (node: TestNode, tables: Record<string, Direction>) => ({
  node_name: node.name,
  subscriptions: subscriptionsOf(tables),
})
type State = Payload<'subscription:state'>
const statesOf = (node: TestNode, other: TestNode, table: string): State[] =>
  node.seen('subscription:state').filter(({ source }) => source.node === other.name && source.table === table)

/** `database.table` and the mirrored directions, sorted. */
const held = ({ nodes }: Manifest, name: string) =>
  (nodes.find((node) => node.name === name)?.subscriptions ?? [])
    .map(({ database, table, publish, subscribe }) => ({ table: `${database}.${table}`, publish, subscribe }))
    .sort((a, b) => (a.table < b.table ? -1 : 1))
const mirrored = (list: ReturnType<typeof held>) =>
  list.map(({ table, publish, subscribe }) => ({ table, publish: subscribe, subscribe: publish }))

/** Retries: a new node may not be listening yet. */
const configured = (node: TestNode, connections: ReturnType<typeof connection>[]) =>
  eventually(
    `${node.name} is configured`,
    async () => {
      const answer = await node.cluster.configureCluster({ connections })
      return answer.failed_nodes === undefined
    },
    60_000,
  )

/** Commits transactions to a table until it is stopped; resolves with the ids in order. */
function writer(node: TestNode, table: string): () => Promise<string[]> {
  const ids: string[] = []
  let isOver = false
  const run = async () => {
    while (!isOver) {
      const id = `${node.name}-${table}-${ids.length}`
      ids.push(id)
      await node.host.write(id, insert(table, { id }))
    }
  }
  const running = run()
  // A failure is reported where it is awaited.
  running.catch(() => {})
  return async () => {
    isOver = true
    await running
    return ids
  }
}

test('reconfigurations under load lose nothing of an unchanged subscription', {
  timeout: 140_000,
}, async (t) => {
  const seed = seedOf()
  t.diagnostic(`SEED=${seed}`)
  const random = randomNumbers(seed)
  const scope = TestCluster.for(t)
  const tables = ['kept', ...changing].map((table): [string, string] => ['dev', table])
  const nodes = await scope.startAll(['node1', 'node2', 'node3'], { tables })
  const [node1, node2, node3] = nodes as [TestNode, TestNode, TestNode]
  await allMet(nodes)
  await configured(node1, [connection(node2, { kept: 'both' }), connection(node3, { cow: 'publish' })])
  await Promise.all([reading(node1, node2, 'kept'), reading(node2, node1, 'kept')])
  const before = [statesOf(node1, node2, 'kept').length, statesOf(node2, node1, 'kept').length] as const
  const kept = [writer(node1, 'kept'), writer(node2, 'kept')]
  const others = [writer(node1, 'ant'), writer(node2, 'bee'), writer(node3, 'cow')]

  const some = (): Record<string, Direction> =>
    Object.fromEntries(
      changing
        .filter(() => random() < 0.6)
        .map((table) => [table, directions[Math.trunc(random() * directions.length)]!]),
    )
  for (let round = 0; round < RECONFIGURATIONS; round++) {
    const second = connection(node2, random() < 0.5 ? { kept: 'both', ...some() } : { ...some(), kept: 'both' })
    const third = connection(node3, some())
    const withThird = third.subscriptions.length > 0
    const connections = !withThird ? [second] : random() < 0.5 ? [second, third] : [third, second]
    // Both nodes may request it.
    const answer = await node1.cluster.configureCluster({ connections })
    assert.equal(answer.message, 'Cluster successfully configured.')
    assert.deepEqual(
      node1.cluster.manifest.nodes.map(({ name }) => name),
      connections.map(({ node_name }) => node_name),
    )
    for (const { node_name, subscriptions } of connections) {
      const desired = subscriptions.map(({ database, table, publish, subscribe }) => ({
        table: `${database}.${table}`,
        publish,
        subscribe,
      }))
      const ours = held(node1.cluster.manifest, node_name)
      assert.deepEqual(
        ours,
        desired.sort((a, b) => (a.table < b.table ? -1 : 1)),
      )
      const other = nodes.find(({ name }) => name === node_name)!
      assert.deepEqual(held(other.cluster.manifest, 'node1'), mirrored(ours))
    }
    if (!withThird) assert.deepEqual(node3.cluster.manifest.nodes, [])
  }

  const [ids1, ids2] = await Promise.all(kept.map((stop) => stop()))
  await Promise.all(others.map((stop) => stop()))
  await quiet(nodes, 40_000)
  t.diagnostic(`${ids1!.length} and ${ids2!.length} transactions of the table that stays`)
  assert.ok(ids1!.length > RECONFIGURATIONS && ids2!.length > RECONFIGURATIONS)
  // In order, without losses or duplicates.
  const ids = (node: TestNode, from: TestNode) => node.host.from(from.name, 'kept').map(({ id }) => id)
  assert.deepEqual(ids(node2, node1), ids1)
  assert.deepEqual(ids(node1, node2), ids2)
  assert.deepEqual(node1.host.contents('dev', 'kept'), node2.host.contents('dev', 'kept'))
  for (const node of nodes) assert.deepEqual(node.seen('replication:gap'), [])
  // A short lag under load is not a restart; states ended or pending are.
  const since = [
    statesOf(node1, node2, 'kept').slice(before[0]),
    statesOf(node2, node1, 'kept').slice(before[1]),
  ].flat()
  const restarts = since.filter(({ state, previous }) =>
    [state, previous].some((each) => each === 'ended' || each === 'pending'),
  )
  assert.deepEqual(restarts, [])
})

test('a dry run reports the plan and changes nothing', { timeout: 100_000 }, async (t) => {
  const scope = TestCluster.for(t)
  const tables = ['kept', ...changing].map((table): [string, string] => ['dev', table])
  const nodes = await scope.startAll(['node1', 'node2', 'node3'], { tables })
  const [node1, node2, node3] = nodes as [TestNode, TestNode, TestNode]
  await allMet(nodes)
  await configured(node1, [
    connection(node2, { kept: 'both', ant: 'publish', bee: 'both' }),
    connection(node3, { cow: 'subscribe', dog: 'both' }),
  ])
  await Promise.all([reading(node1, node2, 'kept'), reading(node1, node2, 'bee'), reading(node1, node3, 'cow')])
  await Promise.all([reading(node2, node1, 'ant'), reading(node1, node3, 'dog'), reading(node3, node1, 'dog')])
  await quiet(nodes)

  const fileOf = async ({ configFile }: TestNode) => {
    const { ino, mtimeMs } = await stat(configFile)
    return { ino, mtimeMs, text: await readFile(configFile, 'utf8') }
  }
  const snapshot = async () => ({
    manifests: nodes.map(({ cluster }) => cluster.manifest),
    files: await Promise.all(nodes.map(fileOf)),
    states: nodes.map((node) => node.seen('subscription:state').length),
    changes: nodes.map((node) => node.seen('manifest:changed').length),
    checkpoints: nodes.map(({ host }) => [...host.checkpoints]),
    tables: nodes.map(({ host }) => host.tables.size),
  })
  const before = await snapshot()
  const desired = {
    connections: [
      { node_name: 'node9', subscriptions: [{ database: 'dev', table: 'ant', publish: true, subscribe: false }] },
      connection(node2, { ant: 'both', kept: 'both', nowhere: 'subscribe' }),
    ],
  }
  const { message, plan, ...more } = await node1.cluster.configureCluster({ ...desired, dry_run: true })
  assert.equal(message, 'Cluster configuration planned.')
  assert.deepEqual(more, {})
  assert.deepEqual(
    plan?.map(({ node_name, schema, table, action }) => `${action} ${node_name} ${schema}.${table}`),
    [
      'add node9 dev.ant',
      'update node2 dev.ant',
      'keep node2 dev.kept',
      'add node2 dev.nowhere',
      'remove node2 dev.bee',
      'remove node3 dev.cow',
      'remove node3 dev.dog',
    ],
  )
  const as = { superUser: true }
  const request = { operation: 'configure_cluster', ...desired, dry_run: 'true' }
  assert.deepEqual(await node1.cluster.execute(request, as), { message, plan })
  assert.deepEqual(await node1.cluster.configureCluster({ connections: [], dry_run: true }), {
    message,
    plan: before.manifests[0]!.nodes.flatMap(({ name, subscriptions }) =>
      subscriptions.map(({ database, table }) => ({ node_name: name, schema: database, table, action: 'remove' })),
    ),
  })
  const after = await snapshot()
  assert.deepEqual(after, before)
  for (const [index, manifest] of after.manifests.entries()) assert.equal(manifest, before.manifests[index])
})

test('many tables configured again, and all but one of them, restart nothing', { timeout: 140_000 }, async (t) => {
  const scope = TestCluster.for(t)
  const names = Array.from({ length: TABLES }, (_, index) => `table${String(index).padStart(3, '0')}`)
  const node1 = await scope.start('node1', { tables: names.map((table) => ['dev', table]) })
  const node2 = await scope.start('node2', { routes: [node1.ports.cluster] })
  const nodes = [node1, node2]
  await allMet(nodes)
  const both = (tables: readonly string[]) => ({
    connections: [connection(node2, Object.fromEntries(tables.map((table) => [table, 'both' as const])))],
  })
  await configured(node1, both(names).connections)
  assert.equal(node2.host.tables.size, names.length)
  const allLive = (count: number) =>
    eventually(
      'every subscription is live',
      () =>
        nodes.every(({ cluster }) => {
          const states = cluster.subscriptions()
          return states.length === count && states.every(({ state }) => state === 'live')
        }),
      60_000,
    )
  await allLive(names.length)
  const some = [names[0]!, names[99]!, names[100]!, names.at(-1)!]
  const write = async (round: number) => {
    for (const table of some)
      for (const node of nodes) await node.host.write(`${round}-${node.name}-${table}`, insert(table, { id: round }))
    await quiet(nodes, 40_000)
    await allLive(nodes[0]!.cluster.subscriptions().length)
  }
  await write(1)

  const forgotten: string[] = []
  for (const { host, name } of nodes) {
    const { deleteCheckpoint } = host
    host.deleteCheckpoint = (source) => {
      forgotten.push(`${name} forgets ${source.table}`)
      return deleteCheckpoint.call(host, source)
    }
  }
  const snapshot = () =>
    nodes.map((node) => ({
      checkpoints: [...node.host.checkpoints],
      positions: node.cluster.subscriptions(),
      states: node.seen('subscription:state').length,
      changes: node.seen('manifest:changed').length,
    }))
  const before = snapshot()
  const manifests = nodes.map(({ cluster }) => cluster.manifest)
  for (const node of [node1, node1, node2]) {
    const other = node === node1 ? node2 : node1
    const { connections } = both(names)
    const answer = await node.cluster.configureCluster({ connections: [{ ...connections[0]!, node_name: other.name }] })
    assert.equal(answer.connections?.[0]?.subscriptions.added.length, names.length)
    assert.deepEqual(snapshot(), before)
    for (const [index, { cluster }] of nodes.entries()) assert.equal(cluster.manifest, manifests[index])
  }
  assert.deepEqual(forgotten, [])

  // One table in the middle of a page is removed: only it ends, on both nodes.
  const removed = names[115]!
  await node1.cluster.configureCluster(both(names.filter((name) => name !== removed)))
  for (const [index, node] of nodes.entries()) {
    const { states, changes } = before[index]!
    assert.deepEqual(
      node
        .seen('subscription:state')
        .slice(states)
        .map(({ source, state }) => `${source.table} ${state}`),
      [`${removed} ended`],
    )
    assert.equal(node.seen('manifest:changed').length, changes + 1)
    assert.equal(node.cluster.manifest.nodes[0]?.subscriptions.length, names.length - 1)
  }
  assert.deepEqual(forgotten.sort(), [`node1 forgets ${removed}`, `node2 forgets ${removed}`])
  await write(2)
  for (const node of nodes)
    for (const table of some) assert.deepEqual(node.host.contents('dev', table), [{ id: 1 }, { id: 2 }])
  for (const node of nodes) assert.deepEqual(node.seen('replication:gap'), [])
})
