// Liveness of nodes, negotiations between them, and both while a node is down.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { parse, stringify } from 'yaml'
import {
  allMet,
  eventually,
  isRunning,
  quiet,
  reading,
  stopped,
  subscribe,
  subscriptionsOf,
  TestCluster,
  type TestNode,
} from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [
  ['dev', 'dog'],
  ['dev', 'cat'],
]
const both = subscriptionsOf({ dog: 'both' })
const write = (node: TestNode, table: string, id: string) => node.host.write(id, insert(table, { id }))

async function pair(t: { after(fn: () => unknown): void }, options: object = {}) {
  const cluster = new TestCluster()
  t.after(() => cluster.close())
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables, options })) as [TestNode, TestNode]
  await allMet([node1, node2])
  return { cluster, node1, node2 }
}

/** `[node, table, publish, subscribe]` of all subscriptions. */
const held = ({ cluster }: TestNode) =>
  cluster.manifest.nodes.flatMap(({ name, subscriptions }) =>
    subscriptions.map(({ table, publish, subscribe }) => [name, table, publish, subscribe] as const),
  )

/** Edits the file as a person would. */
async function edit({ configFile }: TestNode, change: (nodes: object[]) => object[]): Promise<void> {
  const config = parse(await readFile(configFile, 'utf8'))
  config.clustering.nodes = change(config.clustering.nodes ?? [])
  await writeFile(configFile, stringify(config))
}

/** Duration of `work` in ms. */
async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

describe('liveness', { concurrency: true }, () => {
  test('peer:down when a node closes, peer:up when it is back, each within five seconds or so', async (t) => {
    const { node1, node2 } = await pair(t)
    await subscribe(node1, node2, { dog: 'both' })
    for (const [node, other] of [
      [node1, 'node2'],
      [node2, 'node1'],
    ] as const)
      await eventually('both are up', () => node.seen('peer:up').some((each) => each.node === other), 6_000)
    const ups = node1.seen('peer:up').length
    await node2.cluster.close()
    const { node, reason } = await eventually('it is down', () => node1.seen('peer:down')[0], 6_000)
    assert.equal(node, 'node2')
    assert.ok(reason)
    await node2.reopen()
    await eventually('it is up', () => node1.seen('peer:up').length === ups + 1, 6_000)
    assert.equal(node1.seen('peer:down').length, 1)
  })

  test('of two nodes with one name that meet through a third, the later one stands down', async (t) => {
    const cluster = TestCluster.for(t)
    const first = await cluster.start('node1', { tables })
    const later = await cluster.start('node1', { tables })
    const reported = (node: TestNode, what: RegExp) =>
      node.seen('connection:rejected').some(({ node: name, reason = '' }) => name === 'node1' && what.test(reason))
    const servers = [await later.pid('hub'), await later.pid('leaf')]
    const routes = [first.ports.cluster, later.ports.cluster]
    const third = await cluster.start('node2', { tables, routes })
    await eventually('the later one steps aside', () => reported(later, /used this node name first/))
    for (const pid of servers) await eventually('its servers end', async () => !(await isRunning(pid)))
    assert.ok(reported(third, /two processes/) && !reported(first, /used this node name first/))
    const asked = later.cluster.updateNode({ node_name: 'node2', subscriptions: both })
    await assert.rejects(asked, { code: 'node_superseded' })
    await subscribe(third, first, { dog: 'both' })
    await write(first, 'dog', 'one')
    await eventually('the first one goes on', () => third.host.applied.includes('one'))
    // Commits and manifest of the later one stay on it.
    const route = { host: '127.0.0.1', port: 12345 }
    await later.cluster.setRoutes({ server: 'hub', routes: [route] })
    assert.deepEqual((await later.cluster.getRoutes({})).hub, [route])
    const publishing = write(later, 'dog', 'kept').catch(() => {})
    assert.equal(later.host.outbox.length, 1)
    await later.cluster.close()
    await publishing
  })

  test('cluster_status: open, gone, and hung', async (t) => {
    const cluster = TestCluster.for(t)
    const node1 = await cluster.start('node1', { tables, options: { requestTimeout: 500 } })
    const routes = [node1.ports.cluster]
    const node2 = await cluster.start('node2', { tables, routes })
    const node3 = await cluster.start('node3', { tables, routes })
    const node4 = await cluster.spawn('node4', { tables, routes })
    await subscribe(node1, node2, { dog: 'both' })
    await subscribe(node1, node3, { dog: 'publish', cat: 'subscribe' })
    await eventually('node4 agrees', () =>
      node1.cluster.updateNode({ node_name: 'node4', subscriptions: both }).catch(() => undefined),
    )
    const statuses = async () =>
      (await node1.cluster.status({})).connections.map(({ node_name, status }) => [node_name, status])
    assert.deepEqual(await statuses(), [
      ['node2', 'open'],
      ['node3', 'open'],
      ['node4', 'open'],
    ])

    await node3.cluster.close()
    process.kill(node4.child.pid!, 'SIGSTOP')
    t.after(() => node4.child.kill('SIGCONT'))
    await stopped(node4.child.pid!)
    await eventually('node3 is gone', async () => (await statuses())[1]![1] === 'NoResponders')
    const took = await timed(async () => {
      const { node_name, is_enabled, connections } = await node1.cluster.status({})
      assert.deepEqual([node_name, is_enabled], ['node1', true])
      const [open, removed, hung] = connections
      assert.equal(open!.status, 'open')
      assert.deepEqual(open!.ports, { clustering: node2.ports.cluster })
      assert.ok(Number.isInteger(open!.latency_ms) && open!.latency_ms! < 500)
      assert.match(open!.uptime ?? '', /^(\d+[dhm] )*\d+s$/)
      assert.deepEqual(open!.subscriptions, [{ schema: 'dev', table: 'dog', publish: true, subscribe: true }])
      assert.deepEqual(open!.system_info, {
        hdb_version: '4.3.0',
        node_version: process.version,
        platform: process.platform,
      })
      const { replicas, ...others } = removed!
      assert.deepEqual(
        replicas?.map(({ schema, table }) => ({ schema, table })),
        [{ schema: 'dev', table: 'dog' }],
      )
      assert.deepEqual(others, {
        node_name: 'node3',
        status: 'NoResponders',
        ports: {},
        subscriptions: [
          { schema: 'dev', table: 'dog', publish: true, subscribe: false },
          { schema: 'dev', table: 'cat', publish: false, subscribe: true },
        ],
      })
      assert.equal(hung!.status, 'Timeout')
      assert.deepEqual(hung!.ports, {})
    })
    assert.ok(took >= 450 && took < 1_500, `it took ${took} ms`)

    const { nodes } = await node1.cluster.network({})
    assert.deepEqual(
      nodes.map(({ name }) => name),
      ['node1', 'node2', 'node4'],
      'the hub of a database that hangs answers',
    )
    await assert.rejects(node1.cluster.setNodeReplication({ node_name: 'node4', subscriptions: both }), {
      code: 'node_timeout',
      statusCode: 504,
      message: "Unable to set_node_replication, node 'node4' is listening but did not respond.",
    })
    node4.child.kill('SIGCONT')
    await eventually('node4 answers again', async () => (await statuses())[2]![1] === 'open')
  })

  test('cluster_network does not wait for a node that is down', async (t) => {
    const { cluster, node1, node2 } = await pair(t)
    const node3 = await cluster.start('node3', { routes: [node1.ports.cluster] })
    await allMet([node1, node2, node3])
    const request = { timeout: 20_000 }
    const named = async () => (await node1.cluster.network(request)).nodes.map(({ name }) => name)
    let found: string[] = []
    const all = await timed(async () => {
      found = await named()
    })
    assert.deepEqual(found, ['node1', 'node2', 'node3'])
    assert.ok(all < 3_000, `with all there it took ${all} ms`)
    await node3.cluster.close()
    const took = await timed(async () => {
      found = await named()
    })
    assert.deepEqual(found, ['node1', 'node2'])
    assert.ok(took < 5_000, `without node3 it took ${took} ms`)
    const [ours] = (await node1.cluster.network({ connected_nodes: true, routes: true })).nodes
    assert.deepEqual(Object.keys(ours!), ['name', 'response_time'], 'true omits the field')
  })
})

describe('negotiation', { concurrency: 2 }, () => {
  test('with a missing node is rejected, and nothing has changed', async (t) => {
    const cluster = TestCluster.for(t)
    const node1 = await cluster.start('node1', { tables })
    const before = await readFile(node1.configFile, 'utf8')
    const { manifest } = node1.cluster
    for (const [operation, method] of [
      ['add_node', 'addNode'],
      ['update_node', 'updateNode'],
      ['set_node_replication', 'setNodeReplication'],
    ] as const)
      await assert.rejects(node1.cluster[method]({ node_name: 'node9', subscriptions: both }), {
        code: 'node_not_listening',
        statusCode: 500,
        message: `Unable to ${operation}, node 'node9' is not listening.`,
      })
    assert.equal(node1.cluster.manifest, manifest)
    assert.equal(await readFile(node1.configFile, 'utf8'), before)
    assert.deepEqual(node1.seen('manifest:changed'), [])
    assert.equal(node1.host.checkpoints.size, 0)
  })

  test('with a node that rejects: its reason is reported, and nothing has changed here', async (t) => {
    const { node1, node2 } = await pair(t)
    await writeFile(node2.configFile, 'clustering: [this is no section')
    await eventually('node2 rejects its file', () => node2.seen('config:rejected').length > 0)
    await assert.rejects(node1.cluster.addNode({ node_name: 'node2', subscriptions: both }), (error: never) => {
      const { code, statusCode, message } = error as { code: string; statusCode: number; message: string }
      assert.deepEqual([code, statusCode], ['peer_rejected', 500])
      assert.match(message, /^Error returned from remote node node2: Configuration file .* is not valid/)
      return true
    })
    assert.deepEqual([held(node1), held(node2)], [[], []])
    assert.equal(node1.host.checkpoints.size + node2.host.checkpoints.size, 0)
  })

  test('both nodes hold mirror images after add, update and remove', async (t) => {
    const { node1, node2 } = await pair(t)
    const added = await node1.cluster.addNode({
      node_name: 'node2',
      subscriptions: subscriptionsOf({ dog: 'publish' }),
    })
    assert.equal(added.message, "Successfully added 'node2' to manifest")
    assert.deepEqual(held(node1), [['node2', 'dog', true, false]])
    assert.deepEqual(held(node2), [['node1', 'dog', false, true]])
    assert.deepEqual(
      [node1, node2].map((node) => node.seen('node:added').map(({ node: { name }, cause }) => [name, cause])),
      [[['node2', 'api']], [['node1', 'peer']]],
    )
    await assert.rejects(node1.cluster.addNode({ node_name: 'node2', subscriptions: both }), { code: 'node_exists' })

    // From the other node.
    const updated = await node2.cluster.updateNode({
      node_name: 'node1',
      subscriptions: subscriptionsOf({ cat: 'publish', dog: 'both' }),
    })
    assert.equal(updated.message, "Successfully updated 'node1'")
    assert.deepEqual(held(node1).sort(), [
      ['node2', 'cat', false, true],
      ['node2', 'dog', true, true],
    ])
    assert.deepEqual(held(node2).sort(), [
      ['node1', 'cat', true, false],
      ['node1', 'dog', true, true],
    ])
    await reading(node1, node2, 'cat')

    const none = subscriptionsOf({ cat: 'both' }).map((each) => ({ ...each, publish: false, subscribe: false }))
    await node1.cluster.setNodeReplication({ node_name: 'node2', subscriptions: none })
    assert.deepEqual(
      held(node1).find(([, table]) => table === 'cat'),
      ['node2', 'cat', false, false],
    )
    assert.deepEqual(
      held(node2).find(([, table]) => table === 'cat'),
      ['node1', 'cat', false, false],
    )

    assert.deepEqual(await node2.cluster.removeNode({ node_name: 'node1' }), {
      message: "Successfully removed 'node1' from manifest",
    })
    assert.deepEqual([held(node1), held(node2)], [[], []])
    await eventually('nothing is read any more', () =>
      [node1, node2].every(({ cluster }) => cluster.subscriptions().length === 0),
    )
    assert.equal(node1.host.checkpoints.size, 0)
    await assert.rejects(node1.cluster.removeNode({ node_name: 'node2' }), {
      code: 'node_not_found',
      message: "Node 'node2' was not found.",
    })
  })

  test('a node removed while it is down receives the removal when it is back', async (t) => {
    const { node1, node2 } = await pair(t)
    await subscribe(node1, node2, { dog: 'both' })
    await node2.cluster.close()
    assert.deepEqual(await node1.cluster.removeNode({ node_name: 'node2' }), {
      message:
        "Successfully removed 'node2' from local manifest, however there was an error reaching remote node. Check the logs for more details.",
    })
    assert.deepEqual(held(node1), [])
    await node2.reopen()
    await eventually('it learns of it', () => held(node2).length === 0, 6_000)
    assert.deepEqual(node2.cluster.subscriptions(), [])
  })

  test('a renamed node is another node with the same subscriptions, tables and streams', async (t) => {
    const { node1, node2 } = await pair(t)
    await subscribe(node1, node2, { dog: 'both' })
    await write(node1, 'dog', 'before')
    await quiet([node1, node2])
    await node1.cluster.close()
    const config = await readFile(node1.configFile, 'utf8')
    await writeFile(node1.configFile, config.replace('nodeName: node1', 'nodeName: node9'))
    await node1.reopen()
    const agreed = [
      ['node1', 'dog', true, true],
      ['node9', 'dog', true, true],
    ]
    await eventually('the others learn of it', () => JSON.stringify(held(node2)) === JSON.stringify(agreed))
    await eventually('both are read', () =>
      [node1.cluster, node2.cluster].every((cluster) => cluster.subscriptions().some(({ state }) => state === 'live')),
    )
    await write(node1, 'dog', 'after')
    await write(node2, 'dog', 'back')
    await eventually('it goes on, both ways', () => node1.host.applied.length > 0 && node2.host.applied.length > 1)
    assert.deepEqual([node1.host.applied, node2.host.applied], [['back'], ['before', 'after']])
    // The old name stays in the manifest as an unreachable node until it is removed.
    await node2.cluster.removeNode({ node_name: 'node1' })
    assert.deepEqual(held(node2), [['node9', 'dog', true, true]])
  })

  test('a subscription written into the file becomes live on both nodes', async (t) => {
    const { node1, node2 } = await pair(t)
    await edit(node1, (nodes) => [
      ...nodes,
      { name: 'node2', subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: true }] },
    ])
    await Promise.all([reading(node1, node2, 'dog'), reading(node2, node1, 'dog')])
    assert.deepEqual(held(node2), [['node1', 'dog', true, true]])
    assert.deepEqual(
      [node1, node2].map((node) => node.seen('node:added').map(({ node: { name }, cause }) => [name, cause])),
      [[['node2', 'file']], [['node1', 'peer']]],
    )
    await Promise.all([write(node1, 'dog', 'here'), write(node2, 'dog', 'there')])
    await quiet([node1, node2])
    assert.deepEqual([node1.host.applied, node2.host.applied], [['there'], ['here']])

    await edit(node1, () => [
      { name: 'node2', subscriptions: [{ database: 'dev', table: 'dog', publish: false, subscribe: true }] },
    ])
    await eventually('the change reaches the other end', () => node2.cluster.subscriptions().length === 0)
    assert.deepEqual(held(node2), [['node1', 'dog', true, false]])

    await edit(node1, () => [])
    await eventually('the end reaches the other end', () => held(node2).length === 0)
    assert.deepEqual(held(node1), [])
    assert.deepEqual(
      node2.seen('node:removed').map(({ cause }) => cause),
      ['peer'],
    )
    await eventually('nothing is read any more', () => node1.cluster.subscriptions().length === 0)
  })

  test('a node written into the file before it exists is set up when it starts', async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node2')
    const node1 = await cluster.start('node1', { tables, routes: [files.ports.cluster] })
    await edit(node1, () => [
      { name: 'node2', subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: true }] },
    ])
    await eventually('it is taken in', () => held(node1).length === 1)
    await write(node1, 'dog', 'before')
    const node2 = await cluster.open(files)
    await Promise.all([reading(node1, node2, 'dog'), reading(node2, node1, 'dog')])
    assert.deepEqual(held(node2), [['node1', 'dog', true, true]])
    await Promise.all([write(node1, 'dog', 'here'), write(node2, 'dog', 'there')])
    await eventually('both arrive', () => node1.host.applied.includes('there') && node2.host.applied.includes('here'))
  })
})
