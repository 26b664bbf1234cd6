// `copy`, `start_time` and `replace` of a subscription: when they take effect, how often, and what they leave as it is.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { EventName } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryHost } from '../../lib/testing.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { hostWithRows, storedRows } from '../support/rows-before.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const both = { ...dog, publish: true, subscribe: true }
const pulls = { ...dog, publish: false, subscribe: true }
const ROWS = 30

/** `node1` with rows, and a second node with this number of rows of its own. */
async function pair(test: TestContext, rowsHere = 0) {
  const { nodes, ...rest } = await openCluster(test, [hostWithRows('node1', ROWS), hostWithRows('node2', rowsHere)])
  const [one, two] = nodes as [ClusterNode, ClusterNode]
  return { ...rest, one, two }
}

function seen(node: ClusterNode, event: EventName): { reason?: string; rows?: number }[] {
  const payloads: { reason?: string; rows?: number }[] = []
  node.cluster.on(event, (payload: unknown) => void payloads.push(payload as never))
  return payloads
}

const live = (node: ClusterNode) =>
  eventually(
    () => `${node.name} is live: ${JSON.stringify(node.cluster.subscriptions())}`,
    () => {
      const subscriptions = node.cluster.subscriptions()
      return (
        subscriptions.length > 0 && subscriptions.every(({ state, disagreement }) => state === 'live' && !disagreement)
      )
    },
    60_000,
  )

const count = (node: ClusterNode) => node.host.records('dev', 'dog').length
/** Waits for the copy after these events began to be recorded, and for no other. */
const copiedOnce = (copied: object[], node: ClusterNode) =>
  eventually(
    () => `one copy: ${JSON.stringify([copied, node.cluster.subscriptions()])}`,
    () => copied.length === 1,
    60_000,
  )
const reasons = (events: { reason?: string }[]) => events.map(({ reason }) => reason)

describe('copy', { concurrency: true, timeout: 180_000 }, () => {
  it('false: a new subscription to an empty table begins without a copy', async (test) => {
    const { one, two, cluster } = await pair(test)
    const answer = await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...both, copy: false }] })
    assert.deepEqual(answer.added, [{ schema: 'dev', table: 'dog', publish: true, subscribe: true, copy: false }])
    await one.host.insert('dev', 'dog', { id: 'new' })
    await cluster.converged()
    await live(two)
    assert.deepEqual(
      two.host.records('dev', 'dog').map(({ id }) => id),
      ['new'],
    )
  })

  it('true: a table with rows is copied too, by whichever nodes subscribe', async (test) => {
    const { one, two, cluster } = await pair(test, ROWS + 5)
    const copies = [seen(one, 'replication:copied'), seen(two, 'replication:copied')]
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...both, copy: true }] })
    await eventually('both have copied', () => copies.every(({ length }) => length === 1), 60_000)
    await cluster.converged()
    assert.deepEqual(copies.map(reasons), [['requested'], ['requested']])
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
    assert.equal(count(one), ROWS + 5)
  })

  it('true: a running subscription copies once, also across restarts and comparisons', async (test) => {
    const { one, two, cluster } = await pair(test)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...both, copy: false }] })
    await cluster.converged()
    const copied = seen(two, 'replication:copied')
    const update = { node_name: 'node1', subscriptions: [{ ...both, copy: true }] }
    await two.cluster.updateNode(update)
    await copiedOnce(copied, two)
    assert.equal(count(two), ROWS)
    for (const node of [two, one]) {
      await node.stop()
      await node.start()
    }
    const later = seen(two, 'replication:copied')
    await live(two)
    await one.cluster.updateNode({ node_name: 'node2', subscriptions: [both] })
    await live(two)
    assert.deepEqual([copied.length, later.length], [1, 0])
    await two.cluster.updateNode(update)
    await eventually('another request, another copy', () => later.length === 1, 60_000)
  })

  for (const copy of [true, false])
    it(`${copy}: holds when the other node is away, and agrees later`, async (test) => {
      const { one, two, network, cluster } = await pair(test, copy ? 1 : 0)
      network.cut('node1', 'node2')
      const connections = [{ node_name: 'node1', subscriptions: [{ ...both, copy }] }]
      assert.deepEqual((await two.cluster.configureCluster({ connections })).failed_nodes, ['node1'])
      // The request outlives the process.
      await two.stop()
      await two.start()
      const copies = [seen(one, 'replication:copied'), seen(two, 'replication:copied')]
      network.heal()
      await Promise.all([live(one), live(two)])
      await cluster.converged()
      const expected = copy ? [['requested'], ['requested']] : [[], []]
      assert.deepEqual(copies.map(reasons), expected)
      assert.equal(count(two), copy ? ROWS : 0)
      // A later comparison brings the same request.
      await two.stop()
      await two.start()
      const later = seen(two, 'replication:copied')
      await Promise.all([live(one), live(two)])
      assert.deepEqual([copies.map(reasons), later], [expected, []])
    })

  it('holds for the node that was away and is to subscribe', async (test) => {
    const { one, two, network, cluster } = await pair(test)
    network.cut('node1', 'node2')
    const connections = [
      { node_name: 'node2', subscriptions: [{ ...dog, publish: true, subscribe: false, copy: false }] },
    ]
    await one.cluster.configureCluster({ connections })
    network.heal()
    await eventually('node2 subscribes', () => two.cluster.subscriptions().length === 1)
    await live(two)
    await cluster.converged()
    assert.equal(count(two), 0)
  })

  it('is asked for again by the facade', async (test) => {
    const { two, cluster } = await pair(test)
    await assert.rejects(two.cluster.copy(source), { code: 'subscription_not_found' })
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...both, copy: false }] })
    await cluster.converged()
    const copied = seen(two, 'replication:copied')
    await two.cluster.copy(source)
    await copiedOnce(copied, two)
    assert.equal(count(two), ROWS)
  })

  it('is refused where the rows cannot be read, or nobody would copy', async (test) => {
    const hosts = [new MemoryHost({ tables: [dog], readRows: false }), new MemoryHost({ tables: [dog] })]
    const { nodes } = await openCluster(test, hosts)
    const [one, two] = nodes as [ClusterNode, ClusterNode]
    const ask = (node: ClusterNode, node_name: string, subscription: object) =>
      node.cluster.updateNode({ node_name, subscriptions: [{ ...dog, ...subscription } as never] })
    const rejected = (code: string, message: RegExp) => (error: { code: string; message: string }) => {
      assert.equal(error.code, code)
      assert.match(error.message, message)
      return true
    }
    await assert.rejects(ask(two, 'node1', { ...both, copy: true }), rejected('rows_not_served', /node1/))
    await assert.rejects(
      ask(one, 'node2', { publish: true, subscribe: false, copy: true }),
      rejected('rows_not_served', /node1/),
    )
    for (const [fields, message] of [
      [{ ...both, replace: true }, /\[0\]\.replace' requires 'copy' to be true/],
      [{ publish: true, subscribe: false, copy: true, replace: true }, /replace' requires 'subscribe' to be true/],
      [{ publish: false, subscribe: false, copy: true }, /copy' requires 'subscribe' or 'publish'/],
      [{ ...both, copy: 'perhaps' }, /copy' must be a boolean/],
    ] as const)
      await assert.rejects(ask(two, 'node1', fields), rejected('invalid_request', message))
    assert.deepEqual([one.cluster.manifest.nodes, two.cluster.manifest.nodes], [[], []])
  })
})

describe('start_time', { concurrency: true, timeout: 180_000 }, () => {
  it('holds when the other node is away, and agrees later, for both nodes', async (test) => {
    const { one, two, network, cluster } = await pair(test)
    await one.host.insert('dev', 'dog', { id: 'one' })
    await two.host.insert('dev', 'dog', { id: 'two' })
    const start_time = '2020-01-01T00:00:00.000Z'
    network.cut('node1', 'node2')
    await two.cluster.configureCluster({
      connections: [{ node_name: 'node1', subscriptions: [{ ...both, start_time }] }],
    })
    network.heal()
    await Promise.all([live(one), live(two)])
    await cluster.converged()
    // What the streams have, and no copies.
    assert.equal(count(two), 2)
    assert.equal(count(one), ROWS + 2)
    for (const [node, of] of [
      [one, 'node2'],
      [two, 'node1'],
    ] as const) {
      const checkpoint = await node.host.loadCheckpoint({ ...source, node: of })
      assert.equal(checkpoint?.startTime, start_time)
      assert.ok(checkpoint?.request)
    }
  })
})

describe('replace', { concurrency: true, timeout: 180_000 }, () => {
  it('empties the table, tombstones included, and copies the rows of the source', async (test) => {
    const { one, two, cluster } = await pair(test)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [both] })
    await cluster.converged()
    await live(two)
    // Rows that the source has dropped, as after a long absence.
    two.host.storeExisting('dev', 'dog', { id: 'long gone' })
    one.host.horizons.set(JSON.stringify(['dev', 'dog']), '000000000001-000000-node1')
    const sent: string[] = []
    const { publish } = two.cluster
    two.cluster.publish = (transaction) => {
      sent.push(transaction.id)
      return publish.call(two.cluster, transaction)
    }
    const copied = seen(two, 'replication:copied')
    await two.cluster.updateNode({
      node_name: 'node1',
      subscriptions: [{ ...both, copy: true, replace: true }],
    })
    await copiedOnce(copied, two)
    await Promise.all([live(one), live(two)])
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
    assert.equal(count(one), ROWS)
    assert.deepEqual([sent, two.host.outbox], [[], []], 'the other node hears nothing of it')
    assert.equal(await two.host.horizon(dog), '000000000001-000000-node1')
    assert.equal((await two.host.loadCheckpoint(source))!.copy, undefined)
  })

  it('keeps what was committed here and had not reached the source yet', async (test) => {
    const { one, two, cluster } = await pair(test)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [both] })
    await cluster.converged()
    await live(two)
    // The source refuses everything for now.
    one.host.beforeApply = ({ transactions }) => {
      if (transactions.length > 0) throw new Error('refused by the test')
    }
    await two.host.insert('dev', 'dog', { id: 'local' })
    await two.cluster.copy(source, { replace: true })
    await eventually('the table is empty', () => count(two) === 0, 60_000)
    await two.host.insert('dev', 'dog', { id: 'later' })
    assert.equal(two.cluster.subscriptions()[0]!.state, 'copying')
    await eventually('the reason is shown', () =>
      /node1 has not applied/.test(two.cluster.subscriptions()[0]!.error ?? ''),
    )
    assert.equal(count(two), 1)
    one.host.beforeApply = undefined
    await Promise.all([live(one), live(two)])
    await cluster.converged()
    assert.equal(count(two), ROWS + 2)
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
  })

  it('copies from the other nodes too what the source does not have', async (test) => {
    const hosts = [hostWithRows('node1', ROWS), hostWithRows('node2', 0), hostWithRows('node3', 0)]
    const { nodes, cluster } = await openCluster(test, hosts)
    const two = nodes[1]!
    for (const node_name of ['node1', 'node3']) await two.cluster.addNode({ node_name, subscriptions: [both] })
    await nodes[2]!.host.insert('dev', 'dog', { id: 'of node3' })
    await cluster.converged()
    await live(two)
    assert.equal(count(two), ROWS + 1)
    const copied = seen(two, 'replication:copied')
    await two.cluster.copy(source, { replace: true })
    await eventually(
      () => `both copies: ${JSON.stringify([copied, two.cluster.subscriptions()])}`,
      () => copied.length === 2,
    )
    assert.deepEqual(reasons(copied), ['requested', 'table_replaced'])
    assert.equal(count(two), ROWS + 1)
  })

  it('empties nothing before the source answers, and once, whenever the process is killed', async (test) => {
    const { one, two, network, cluster } = await pair(test)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [both] })
    await cluster.converged()
    await live(two)
    const emptied: string[] = []
    const emptyTable = two.host.emptyTable.bind(two.host)
    two.host.emptyTable = async (each) => {
      await emptyTable(each)
      emptied.push(each.source.node)
      // The answer is lost with the process.
      await new Promise((_, reject) => setImmediate(() => reject(new Error('the process ends'))))
    }
    network.cut('node1', 'node2')
    await two.cluster.copy(source, { replace: true })
    await two.stop()
    await two.start()
    assert.deepEqual([emptied, count(two)], [[], ROWS])
    network.heal()
    await eventually('the table is empty', () => emptied.length > 0)
    await two.stop()
    await two.start()
    await Promise.all([live(one), live(two)])
    assert.deepEqual([emptied, count(two)], [['node1'], ROWS])
  })

  it('is not done by two nodes to each other at the same time', async (test) => {
    const { one, two, cluster } = await pair(test)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [both] })
    await cluster.converged()
    await live(two)
    await Promise.all([
      two.cluster.copy(source, { replace: true }),
      one.cluster.copy({ ...source, node: 'node2' }, { replace: true }),
    ])
    const waits = (node: ClusterNode) => /replaces its own table/.test(node.cluster.subscriptions()[0]!.error ?? '')
    await eventually('one of them waits', () => waits(one) || waits(two) || count(one) + count(two) === 2 * ROWS)
    // A copy without it ends the wait.
    await one.cluster.copy({ ...source, node: 'node2' })
    await two.cluster.copy(source)
    await Promise.all([live(one), live(two)])
    assert.deepEqual([count(one), count(two)], [ROWS, ROWS])
  })

  it('is not sent to the other node', async (test) => {
    const { one, two } = await pair(test, ROWS)
    const other = seen(one, 'replication:copied')
    const copied = seen(two, 'replication:copied')
    await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...pulls, copy: true, replace: true }] })
    await copiedOnce(copied, two)
    assert.deepEqual([other.length, count(one)], [0, ROWS])
    assert.deepEqual(storedRows(two.host), storedRows(one.host))
  })
})
