// Nodes close, and servers are killed or hang, with thousands of transactions in flight: all arrive once, in order.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually, quiet, type ServerKind, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const COUNT = 2000
const numbered = (prefix: string, count = COUNT) => Array.from({ length: count }, (_, index) => `${prefix}${index}`)

/** Commits one row per transaction, several each millisecond; resolves with the outcome of each `publish`. */
async function flow(node: TestNode, table: string, ids: readonly string[]): Promise<PromiseSettledResult<void>[]> {
  const writing: Promise<void>[] = []
  for (const [index, id] of ids.entries()) {
    writing.push(node.host.write(id, insert(table, { id })))
    writing.at(-1)!.catch(() => {})
    if (index % 10 === 9) await delay(1)
  }
  return Promise.allSettled(writing)
}

const received = (node: TestNode, from: TestNode, table: string) => node.host.from(from.name, table).map(({ id }) => id)

/** Resolves when some of the rows have arrived. */
const underWay = (node: TestNode, from: TestNode, table: string, count = COUNT / 4) =>
  eventually(`${count} of ${table} arrive`, () => received(node, from, table).length >= count)

/** Both nodes have each transaction of the peer once, in the order of commit. */
async function assertWhole(node1: TestNode, node2: TestNode, table: string, here: string[], there: string[]) {
  await quiet([node1, node2], 30_000)
  assert.deepEqual(received(node2, node1, table), here)
  assert.deepEqual(received(node1, node2, table), there)
  const gaps = [node1, node2].flatMap((node) =>
    node.seen('replication:gap').filter(({ source }) => source.table === table),
  )
  assert.deepEqual(gaps, [])
}

/** Two nodes with a table. */
async function pair(t: { after(fn: () => unknown): void }, table: string, options: object = {}) {
  const cluster = new TestCluster()
  t.after(() => cluster.close())
  const nodes = await cluster.startAll(['node1', 'node2'], { tables: [['dev', table]], options })
  return nodes as [TestNode, TestNode]
}

// Most of the time of these tests is waiting for a link: two at a time.
describe('a server is killed under load', { concurrency: 2 }, () => {
  const waitForHost = { publishTimeout: 60_000 }
  const cases: [name: string, killed: ['node1' | 'node2', ServerKind][]][] = [
    ['the hub of one', [['node1', 'hub']]],
    ['the hub of the other', [['node2', 'hub']]],
    ['the leaf of one', [['node1', 'leaf']]],
    ['the leaf of the other', [['node2', 'leaf']]],
    [
      'both leaves',
      [
        ['node1', 'leaf'],
        ['node2', 'leaf'],
      ],
    ],
    [
      'all four',
      [
        ['node1', 'hub'],
        ['node1', 'leaf'],
        ['node2', 'hub'],
        ['node2', 'leaf'],
      ],
    ],
  ]
  for (const [name, killed] of cases)
    test(name, async (t) => {
      const table = 'dog'
      const [node1, node2] = await pair(t, table, waitForHost)
      await subscribe(node1, node2, { [table]: 'both' })
      const [here, there] = [numbered('here'), numbered('there')]
      const flows = Promise.all([flow(node1, table, here), flow(node2, table, there)])
      await Promise.all([underWay(node2, node1, table), underWay(node1, node2, table)])
      const nodes = { node1, node2 }
      const pids = await Promise.all(killed.map(([node, server]) => nodes[node].kill(server)))
      await Promise.all(killed.map(([node, server], each) => nodes[node].replaced(server, pids[each]!)))
      const outcomes = (await flows).flat()
      assert.deepEqual(
        outcomes.filter(({ status }) => status === 'rejected'),
        [],
      )
      await assertWhole(node1, node2, table, here, there)
    })

  test('a leaf, three times', async (t) => {
    const table = 'dog'
    const [node1, node2] = await pair(t, table, waitForHost)
    await subscribe(node1, node2, { [table]: 'both' })
    const [here, there] = [numbered('here'), numbered('there')]
    const flows = Promise.all([flow(node1, table, here), flow(node2, table, there)])
    for (let round = 1; round <= 3; round++) {
      await underWay(node2, node1, table, (round * COUNT) / 6)
      await node1.replaced('leaf', await node1.kill('leaf'))
    }
    await flows
    await assertWhole(node1, node2, table, here, there)
  })
})

describe('a server killed under load is back within seconds', () => {
  for (const server of ['hub', 'leaf'] as const)
    test(`a ${server}`, async (t) => {
      const [node1, node2] = await pair(t, 'dog', { publishTimeout: 60_000 })
      await subscribe(node1, node2, { dog: 'both' })
      const flows = Promise.all([flow(node1, 'dog', numbered('here')), flow(node2, 'dog', numbered('there'))])
      await Promise.all([underWay(node2, node1, 'dog'), underWay(node1, node2, 'dog')])
      await node1.replaced(server, await node1.kill(server))
      const before = Date.now()
      const markers = [node1, node2].map(({ host, name }) => host.write(name, insert('dog', { id: name })))
      await eventually(
        'what is written then arrives',
        () => node1.host.applied.includes('node2') && node2.host.applied.includes('node1'),
      )
      const took = Date.now() - before
      await Promise.all([...markers, flows])
      // 3 s, and a second for a busy machine.
      assert.ok(took < 4_000, `it took ${took} ms`)
    })
})

describe('a node closes under load and opens again', { concurrency: 2 }, () => {
  async function flowing(t: { after(fn: () => unknown): void }) {
    const [node1, node2] = await pair(t, 'dog')
    await subscribe(node1, node2, { dog: 'publish' })
    return [node1, node2] as const
  }

  test('the subscriber', async (t) => {
    const [node1, node2] = await flowing(t)
    const ids = numbered('a')
    const first = flow(node1, 'dog', ids.slice(0, COUNT / 2))
    await underWay(node2, node1, 'dog')
    await node2.reopen()
    await underWay(node2, node1, 'dog', COUNT / 4)
    await node2.cluster.close()
    await first
    await flow(node1, 'dog', ids.slice(COUNT / 2))
    await node2.reopen()
    await assertWhole(node1, node2, 'dog', ids, [])
  })

  test('the source: commits while it is closed are in the outbox', async (t) => {
    const [node1, node2] = await flowing(t)
    const ids = numbered('a')
    const writing = flow(node1, 'dog', ids)
    await underWay(node2, node1, 'dog')
    await node1.cluster.close()
    const outcomes = await writing
    const reasons = new Set(outcomes.flatMap((each) => (each.status === 'rejected' ? [each.reason.code] : [])))
    assert.deepEqual([...reasons], ['closed'])
    await node1.reopen()
    await assertWhole(node1, node2, 'dog', ids, [])
  })

  test('the source is read again within seconds of its return', async (t) => {
    const [node1, node2] = await flowing(t)
    for (let round = 0; round < 3; round++) {
      const writing = flow(node1, 'dog', numbered(`round${round}-`, 500))
      await underWay(node2, node1, 'dog', round * 500 + 100)
      await node1.cluster.close()
      await writing
      await node1.reopen()
      const before = Date.now()
      await underWay(node2, node1, 'dog', (round + 1) * 500)
      const took = Date.now() - before
      // 3 s, and a second for a busy machine.
      assert.ok(took < 4_000, `it took ${took} ms in round ${round}`)
    }
  })

  test('both', async (t) => {
    const [node1, node2] = await flowing(t)
    const ids = numbered('a')
    const writing = flow(node1, 'dog', ids)
    await underWay(node2, node1, 'dog')
    await Promise.all([node1.cluster.close(), node2.cluster.close()])
    await writing
    await Promise.all([node1.reopen(), node2.reopen()])
    await assertWhole(node1, node2, 'dog', ids, [])
  })
})

describe('publish while the leaf is down', () => {
  test('waits, and is acknowledged after its return', async (t) => {
    const [node1, node2] = await pair(t, 'dog')
    await subscribe(node1, node2, { dog: 'publish' })
    await node1.host.write('before', insert('dog', { id: 'before' }))
    const killed = await node1.kill('leaf')
    await eventually('the loss is noticed', () => node1.seen('mesh:state').at(-1)?.state === 'disconnected')
    const ids = numbered('while', 200)
    const outcomes = await Promise.allSettled(ids.map((id) => node1.host.write(id, insert('dog', { id }))))
    assert.ok(outcomes.every(({ status }) => status === 'fulfilled'))
    assert.notEqual(await node1.pid('leaf'), killed)
    await quiet([node1, node2])
    assert.deepEqual(received(node2, node1, 'dog'), ['before', ...ids])
  })

  test('rejects publish_timeout after the time-out, and the transaction still arrives', async (t) => {
    const [node1, node2] = await pair(t, 'dog', { publishTimeout: 300 })
    await subscribe(node1, node2, { dog: 'publish' })
    await node1.kill('leaf', 'SIGSTOP')
    const ids = numbered('late', 100)
    const outcomes = await Promise.allSettled(ids.map((id) => node1.host.write(id, insert('dog', { id }))))
    for (const outcome of outcomes) {
      assert.equal(outcome.status, 'rejected')
      assert.equal(outcome.reason.code, 'publish_timeout')
      assert.equal(outcome.reason.statusCode, 503)
      assert.equal(outcome.reason.retryable, true)
    }
    assert.equal(node1.host.outbox.length, ids.length)
    await node1.kill('leaf', 'SIGCONT')
    await quiet([node1, node2])
    assert.deepEqual(received(node2, node1, 'dog'), ids)
  })
})
