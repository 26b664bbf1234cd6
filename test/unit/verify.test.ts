// Two nodes compare a table: exactly the rows that differ are found, also while both are written to, and a repair makes them equal.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Host, PrimaryKey, RowSelection, TableName, Transaction, Write } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { type ClusterNode, eventually, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { isLong } from '../support/long.ts'
import { randomNumbers, seedOf } from '../support/random.ts'
import { startRowNode, withReadRows } from '../support/row-nodes.ts'

const dog = { database: 'dev', table: 'dog' }
const there = { node: 'node2', ...dog }
const at = (time: number) => makeTimestamp(time, 0, 'node1')
const equal = { missingHere: 0, missingThere: 0, different: 0, inFlight: 0, repaired: 0 }

let last = 0
function commit(host: MemoryHost, time: number, ...writes: Write[]): void {
  const transaction: Transaction = { id: `t${++last}`, timestamp: at(time), writes }
  host.commitAs(transaction)
}
const put = (...records: Record<string, unknown>[]): Write => ({ operation: 'upsert', ...dog, records })
const update = (...records: Record<string, unknown>[]): Write => ({ operation: 'update', ...dog, records })
const remove = (...ids: PrimaryKey[]): Write => ({ operation: 'delete', ...dog, ids })

/** Both hosts have these rows, in different orders. */
async function pair(
  test: TestContext,
  count: number,
  {
    wrap = (host) => host,
    publish = true,
    subscribe = true,
  }: { wrap?: (host: Host) => Host; publish?: boolean; subscribe?: boolean } = {},
) {
  const network = new MemoryNetwork()
  const [one, two] = [new MemoryHost({ tables: [dog] }), new MemoryHost({ tables: [dog] })]
  for (let id = 0; id < count; id++) commit(one, id + 1, put({ id, name: 'Rex' }))
  for (let id = count - 1; id >= 0; id--) commit(two, id + 1, put({ id: id % 2 ? id : id, name: 'Rex' }))
  const node1 = await startRowNode(test, network, 'node1', {
    host: wrap(one),
    subscriptions: { node2: [{ ...dog, publish, subscribe }] },
  })
  const node2 = await startRowNode(test, network, 'node2', {
    host: two,
    subscriptions: { node1: [{ ...dog, publish: subscribe, subscribe: publish }] },
  })
  return { one, two, verify: node1.rows.verify.bind(node1.rows), node1, node2 }
}

describe('the comparison of 20,000 rows', { timeout: 120_000 }, () => {
  it('finds a changed attribute, a missing row and a row that should be deleted, and a repair copies exactly those', async (test) => {
    const { one, two, verify } = await pair(test, 20_000)
    assert.deepEqual(await verify(there, {}), { ...equal, rows: 20_000 })
    commit(two, 30_000, update({ id: 77, name: 'Fido' }))
    assert.deepEqual(await verify(there, {}), { ...equal, rows: 20_000, different: 1 })
    commit(two, 30_001, remove(88))
    commit(one, 30_002, put({ id: 'only here' }))
    commit(two, 30_003, put({ id: 'only there' }))
    const found = { ...equal, rows: 20_001, different: 2, missingHere: 1, missingThere: 1 }
    assert.deepEqual(await verify(there, {}), found)
    const applied = [one.applied.length, two.applied.length]
    assert.deepEqual(await verify(there, { repair: true }), { ...found, repaired: 4 })
    assert.deepEqual(await verify(there, {}), { ...equal, rows: 20_002 })
    assert.equal(one.get('dev', 'dog', 77)?.name, 'Fido')
    assert.equal(one.get('dev', 'dog', 88), undefined)
    assert.deepEqual(one.records('dev', 'dog'), two.records('dev', 'dog'))
    // A changed attribute is a put and an update, and each node takes what the other one has.
    assert.ok(one.applied.length - applied[0]! <= 4 && two.applied.length - applied[1]! <= 4)
  })

  it('costs one scan of equal tables', async (test) => {
    let read = 0
    const wrap = (host: Host) =>
      withReadRows(host, async (table: TableName, selection: RowSelection, readRows) => {
        const rows = await readRows(table, selection)
        read += rows.length
        return rows
      })
    const { verify } = await pair(test, 5_000, { wrap })
    await verify(there, {})
    assert.equal(read, 5_000)
  })
})

describe('a comparison', { timeout: 60_000 }, () => {
  it('leaves out tombstones that one of the nodes may have dropped', async (test) => {
    const { one, two, verify } = await pair(test, 100)
    for (const host of [one, two]) commit(host, 1_000, remove(1, 2, 3))
    for (const host of [one, two]) commit(host, 1_001, remove(4), update({ id: 4, name: 'back' }))
    assert.equal(two.dropTombstones('dev', 'dog', at(1_001)), 3)
    assert.deepEqual(await verify(there, {}), { ...equal, rows: 100 })
    commit(one, 2_000, remove(5))
    assert.deepEqual(await verify(there, {}), { ...equal, rows: 100, different: 1 })
  })

  it('of tables with nothing in common finds every row', async (test) => {
    const { one, two, verify } = await pair(test, 0)
    for (let id = 0; id < 1_000; id++) commit(one, id, put({ id }))
    for (let id = 0; id < 1_500; id++) commit(two, id, put({ id: `${id}` }))
    const found = { ...equal, rows: 1_000, missingHere: 1_500, missingThere: 1_000 }
    assert.deepEqual(await verify(there, {}), found)
    assert.deepEqual(await verify(there, { repair: true }), { ...found, repaired: 2_500 })
    assert.deepEqual(one.records('dev', 'dog'), two.records('dev', 'dog'))
  })

  it('copies only in the directions of the subscription', async (test) => {
    for (const [publish, subscribe, repaired] of [
      [false, true, 1],
      [true, false, 1],
    ] as const) {
      const { one, two, verify } = await pair(test, 10, { publish, subscribe })
      commit(one, 100, put({ id: 'a' }))
      commit(two, 101, put({ id: 'b' }))
      assert.deepEqual(await verify(there, { repair: true }), {
        ...equal,
        rows: 11,
        missingHere: 1,
        missingThere: 1,
        repaired,
      })
      assert.equal(one.get('dev', 'dog', 'b') !== undefined, subscribe)
      assert.equal(two.get('dev', 'dog', 'a') !== undefined, publish)
    }
  })

  it('is refused without a subscription, a table, or a way to read rows, and ends when it is aborted', async (test) => {
    const { one, two, verify, node2 } = await pair(test, 3_000)
    await assert.rejects(verify({ ...there, node: 'node3' }, {}), { code: 'subscription_not_found' })
    await assert.rejects(verify({ ...there, table: 'cat' }, {}), { code: 'subscription_not_found' })
    const abort = new AbortController()
    const aborted = [verify(there, { signal: abort.signal }), verify(there, { signal: abort.signal })]
    setImmediate(() => abort.abort())
    for (const each of aborted) await assert.rejects(each, { code: 'aborted' })
    assert.deepEqual(await verify(there, {}), { ...equal, rows: 3_000 })
    for (const [operation, rows] of [
      ['hash_rows', dog],
      ['hash_rows', { ...dog, buckets: 3 }],
      ['hash_rows', { ...dog, buckets: 2 ** 21 }],
      ['find_rows', { ...dog, buckets: 16, selected: Buffer.alloc(1) }],
      ['repair_rows', dog],
      ['hash_rows', { ...dog, table: 'cat', buckets: 1 }],
    ] as const)
      await assert.rejects(node2.peers.request('node1', { operation, rows }, { operation }), { code: 'peer_rejected' })
    two.dropTable('dev', 'dog')
    await assert.rejects(verify(there, {}), { code: 'peer_rejected', message: /'dog' does not exist/ })
    one.dropTable('dev', 'dog')
    await assert.rejects(verify(there, {}), { code: 'table_not_found' })
  })
})

type Node = ClusterNode<MemoryHost>

/** Writes at random until the returned function is called, or the test ends. */
function writeTo(test: TestContext, node: Node, random: () => number): () => Promise<void> {
  let isOver = false
  test.after(() => {
    isOver = true
  })
  const running = (async () => {
    while (!isOver) {
      const id = Math.floor(random() * 200)
      const kind = random()
      if (kind < 0.2) await node.host.delete('dev', 'dog', id)
      else if (kind < 0.6) await node.host.update('dev', 'dog', { id, [node.name]: random() })
      else await node.host.insert('dev', 'dog', { id, name: node.name })
      if (random() < 0.2) await new Promise((resolve) => setTimeout(resolve, 1))
    }
  })()
  return async () => {
    isOver = true
    await running
  }
}

describe('between running nodes', { timeout: 300_000 }, () => {
  it('there is no false alarm while both are written to', async (test) => {
    const seed = seedOf()
    test.diagnostic(`seed ${seed}`)
    const random = randomNumbers(seed)
    await using cluster = await startCluster(3, { network: new MemoryNetwork({ seed }), tables: [dog] })
    const stops = cluster.nodes.map((node) => writeTo(test, node, random))
    for (let run = 0; run < (isLong ? 100 : 10); run++) {
      const [one, two] = run % 2 ? ['node1', 'node2'] : ['node3', 'node1']
      const { rows: _, inFlight: __, ...found } = await cluster.node(one!).cluster.verify({ node: two!, ...dog })
      const { inFlight: ___, ...none } = equal
      assert.deepEqual(found, none, `run ${run}`)
    }
    for (const stop of stops) await stop()
    await cluster.converged()
    for (const { name, cluster: manager } of cluster.nodes)
      for (const node of ['node1', 'node2', 'node3'])
        if (node !== name)
          assert.deepEqual({ ...(await manager.verify({ node, ...dog })), rows: 0 }, { ...equal, rows: 0 })
  })

  it('a row that is lost is found while both are written to, and repaired by the operation', async (test) => {
    const seed = seedOf()
    test.diagnostic(`seed ${seed}`)
    const random = randomNumbers(seed)
    await using cluster = await startCluster(2, { network: new MemoryNetwork({ seed }), tables: [dog] })
    const [node1, node2] = cluster.nodes as [Node, Node]
    await node1.host.insert('dev', 'dog', { id: 'lost', name: 'Rex' }, { id: 'kept' })
    await cluster.converged()
    node2.host.rows.get(JSON.stringify(['dev', 'dog']))!.delete(JSON.stringify(['lost']))
    const verified: unknown[] = []
    node2.cluster.on('replication:verified', (event) => verified.push(event))
    const stops = cluster.nodes.map((node) => writeTo(test, node, random))
    const found = await node2.cluster.verify({ node: 'node1', ...dog })
    assert.deepEqual([found.missingHere, found.missingThere, found.different], [1, 0, 0])
    const request = { operation: 'verify_table', node_name: 'node1', ...dog, repair: true } as const
    const { message, missing_here, repaired } = await node2.cluster.execute(request, { superUser: true })
    assert.deepEqual([missing_here, repaired], [1, 1])
    assert.equal(message, "Table 'dev.dog' has 1 differences from node 'node1'")
    for (const stop of stops) await stop()
    await cluster.converged()
    assert.equal(node2.host.get('dev', 'dog', 'lost')?.name, 'Rex')
    // The repair of a row that the other node has lost is asked of it.
    node2.host.rows.get(JSON.stringify(['dev', 'dog']))!.delete(JSON.stringify(['kept']))
    const other = await node1.cluster.verify({ node: 'node2', ...dog }, { repair: true })
    assert.deepEqual([other.missingThere, other.repaired], [1, 1])
    assert.ok(node2.host.get('dev', 'dog', 'kept'))
    assert.equal(verified.length, 2)
  })

  it('rows on their way are counted as such while a subscription applies nothing', async () => {
    await using cluster = await startCluster(2, { network: new MemoryNetwork(), tables: [dog] })
    const [node1, node2] = cluster.nodes as [Node, Node]
    node2.host.beforeApply = ({ transactions }) => {
      if (transactions.length > 0) throw new Error('refused')
    }
    await node1.host.insert('dev', 'dog', { id: 1 })
    await eventually('the subscription stalls', () => node2.cluster.subscriptions()[0]?.state === 'stalled')
    const { missingHere, inFlight } = await node2.cluster.verify({ node: 'node1', ...dog })
    assert.deepEqual([missingHere, inFlight], [0, 1])
    node2.host.beforeApply = undefined
    await cluster.converged()
  })
})
