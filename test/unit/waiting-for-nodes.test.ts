// `replicated`, `token` and `caughtUp`: waiting until other nodes, or this one, have a transaction, whatever happens meanwhile.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type ClusterNode, eventually, MemoryHost, TestClock } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { openCluster } from '../support/kit-cluster.ts'
import { soon } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }
const publish = (...tables: { database: string; table: string }[]) =>
  tables.map((table) => ({ ...table, publish: true, subscribe: false }))
const subscribe = (...tables: { database: string; table: string }[]) =>
  tables.map((table) => ({ ...table, publish: false, subscribe: true }))
/** However busy the machine is. */
const patient = { timeout: 60_000 }
const names = (count: number) => Array.from({ length: count }, (_, index) => `node${index + 1}`)

/** node1 publishes its tables to all others. */
async function star(test: Parameters<typeof openCluster>[0], count: number, options: object = {}) {
  const hosts = names(count).map(() => new MemoryHost({ tables: [dog, cat] }))
  const clock = new TestClock()
  const opened = await openCluster(test, hosts, options, { clock })
  const [one, ...others] = opened.nodes as [ClusterNode, ...ClusterNode[]]
  for (const { name } of others) await one.cluster.addNode({ node_name: name, subscriptions: publish(dog, cat) })
  await opened.cluster.converged()
  return { ...opened, one, others, two: others[0]!, soon: <T>(work: Promise<T>) => soon(clock, work) }
}

const idsOf = ({ host }: ClusterNode, table = 'dog') => host.records('dev', table).map(({ id }) => id)

describe('replicated', { concurrency: true, timeout: 180_000 }, () => {
  it('resolves when the nodes have applied the transaction, without a call of publish', async (test) => {
    const { one, others } = await star(test, 3)
    for (let id = 0; id < 20; id++) {
      await one.cluster.replicated(commit(one, insertInto('dog', { id })), { nodes: 2, ...patient })
      for (const node of others) assert.ok(idsOf(node).includes(id), `${node.name} has ${id}`)
    }
    for (let id = 20; id < 40; id++) {
      const transaction = commit(one, insertInto('dog', { id }), insertInto('cat', { id }))
      await one.cluster.publish(transaction)
      await one.cluster.replicated(transaction, { nodes: ['node3'], ...patient })
      assert.ok(idsOf(others[1]!).includes(id) && idsOf(others[1]!, 'cat').includes(id))
    }
  })

  it('is fast: the nodes report at once', async (test) => {
    const { one } = await star(test, 2)
    await one.cluster.replicated(commit(one, insertInto('dog', { id: 'first' })))
    const begin = performance.now()
    for (let id = 0; id < 50; id++) await one.cluster.replicated(commit(one, insertInto('dog', { id })))
    assert.ok(performance.now() - begin < 40_000, 'without it, each would take a second')
  })

  it('serves many calls at once, and a transaction that is no longer in memory', async (test) => {
    const { one, two, others, soon } = await star(test, 3, { maxInFlight: 100 })
    const transactions = Array.from({ length: 500 }, (_, id) => commit(one, insertInto('dog', { id })))
    await Promise.all(transactions.map((each) => one.cluster.replicated(each, { nodes: 2, ...patient })))
    await one.cluster.replicated(transactions.at(-1)!, { nodes: 2, ...patient })
    for (const node of others) assert.equal(idsOf(node).length, 500)
    await one.stop()
    await one.start()
    await soon(one.cluster.replicated(transactions[7]!, { nodes: ['node2', 'node3'] }))
    assert.equal(idsOf(two).length, 500)
  })

  it('rejects at once when fewer nodes subscribe to each table than are asked for', async (test) => {
    const { one } = await star(test, 3)
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    await assert.rejects(one.cluster.replicated(transaction, { nodes: 3, ...patient }), { code: 'too_few_replicas' })
    await assert.rejects(one.cluster.replicated(transaction, { nodes: ['node2', 'nobody'] }), {
      code: 'too_few_replicas',
      message: /nobody does not subscribe/,
    })
    await one.cluster.updateNode({ node_name: 'node3', subscriptions: [{ ...cat, publish: false, subscribe: true }] })
    const twoTables = commit(one, insertInto('dog', { id: 2 }), insertInto('cat', { id: 2 }))
    await assert.rejects(one.cluster.replicated(twoTables, { nodes: 2, ...patient }), { code: 'too_few_replicas' })
    await one.cluster.replicated(twoTables, { nodes: 1, ...patient })
    for (const nodes of [0, 1.5, [], 'node2', [2]])
      await assert.rejects(one.cluster.replicated(transaction, { nodes: nodes as number }), { code: 'invalid_request' })
    await assert.rejects(one.cluster.replicated(transaction, { timeout: 0 }), { code: 'invalid_request' })
  })

  it('rejects with the nodes that have not applied it in time, and when the signal aborts', async (test) => {
    const { network, one } = await star(test, 3)
    network.cut('node1', 'node3')
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    await one.cluster.replicated(transaction, { nodes: 1, ...patient })
    await assert.rejects(one.cluster.replicated(transaction, { nodes: 2, timeout: 100 }), {
      code: 'replication_timeout',
      message: /not applied by node3/,
    })
    const aborting = new AbortController()
    const waiting = one.cluster.replicated(transaction, { nodes: ['node3'], signal: aborting.signal })
    setTimeout(() => aborting.abort(), 20)
    await assert.rejects(waiting, { code: 'aborted' })
    await assert.rejects(one.cluster.replicated(transaction, { nodes: 2, signal: aborting.signal }), {
      code: 'aborted',
    })
    const healed = one.cluster.replicated(transaction, { nodes: 2, ...patient })
    network.heal()
    await healed
  })

  it('goes on when a node is restarted or its servers crash meanwhile', async (test) => {
    const { network, one, two, soon } = await star(test, 2)
    await two.stop()
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    const stopped = one.cluster.replicated(transaction, patient)
    await one.cluster.publish(transaction)
    await two.start()
    await soon(stopped)
    network.crash('node2')
    const crashed = one.cluster.replicated(commit(one, insertInto('dog', { id: 2 })))
    network.restart('node2')
    await soon(crashed)
    network.crash('node1')
    const own = one.cluster.replicated(commit(one, insertInto('dog', { id: 3 })))
    network.restart('node1')
    await soon(own)
    assert.deepEqual(idsOf(two), [1, 2, 3])
  })

  it('rejects when a node that it waits for is removed, and resolves when enough others have it', async (test) => {
    const { network, one } = await star(test, 3)
    network.cut('node1', 'node3')
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    const settled = Promise.allSettled([
      one.cluster.replicated(transaction, { nodes: ['node3'], ...patient }),
      one.cluster.replicated(transaction, { nodes: 2, ...patient }),
      one.cluster.replicated(transaction, { nodes: 1, ...patient }),
    ])
    await one.cluster.replicated(transaction, { nodes: 1, ...patient })
    await one.cluster.removeNode({ node_name: 'node3' })
    assert.deepEqual(
      (await settled).map((each) => (each.status === 'rejected' ? each.reason.code : each.status)),
      ['too_few_replicas', 'too_few_replicas', 'fulfilled'],
    )
  })

  it('rejects not_applied for what a node has in quarantine, and counts it when it is replayed', async (test) => {
    const { one, two } = await star(test, 3)
    const refuse = two.host.apply
    two.host.apply = async (batch) => {
      if (batch.transactions.length > 0) throw new Error('refused')
      return refuse.call(two.host, batch)
    }
    const transaction = commit(one, insertInto('dog', { id: 1 }))
    const waiting = one.cluster.replicated(transaction, { nodes: 2, ...patient })
    const rejected = assert.rejects(waiting, { code: 'not_applied', message: /node2/ })
    await eventually('it is refused', () => two.cluster.subscriptions().some(({ refused }) => refused))
    await two.cluster.quarantine.add({ node: 'node1', ...dog })
    await rejected
    await one.cluster.replicated(transaction, { nodes: 1, ...patient })
    two.host.apply = refuse
    await two.cluster.quarantine.replay({ node: 'node1', ...dog })
    await eventually('it counts', () =>
      one.cluster.replicated(transaction, { nodes: 2, ...patient }).then(
        () => true,
        () => false,
      ),
    )
  })

  it('ends with the manager', async (test) => {
    const { network, one } = await star(test, 2)
    network.cut('node1', 'node2')
    const rejected = assert.rejects(one.cluster.replicated(commit(one, insertInto('dog', { id: 1 }))), {
      code: 'closed',
    })
    await new Promise((resolve) => setTimeout(resolve, 20))
    await one.stop()
    await rejected
  })
})

describe('a token', { concurrency: true, timeout: 180_000 }, () => {
  it('lets another node read what was written', async (test) => {
    const { one, others } = await star(test, 3)
    for (let id = 0; id < 200; id++) {
      const token = await one.cluster.token(commit(one, insertInto('dog', { id }), insertInto('cat', { id })))
      assert.ok(token.length < 200 && /^[\w-]+$/.test(token))
      const reader = others[id % 2]!
      await reader.cluster.caughtUp(token, patient)
      assert.ok(idsOf(reader).includes(id) && idsOf(reader, 'cat').includes(id))
      await one.cluster.caughtUp(token, patient)
    }
  })

  it('waits for a node that is cut off', async (test) => {
    const { network, one, two } = await star(test, 2)
    network.cut('node1', 'node2')
    const token = await one.cluster.token(commit(one, insertInto('dog', { id: 1 })))
    await assert.rejects(two.cluster.caughtUp(token, { timeout: 50 }), { code: 'replication_timeout' })
    const aborting = new AbortController()
    const aborted = assert.rejects(two.cluster.caughtUp(token, { signal: aborting.signal }), { code: 'aborted' })
    aborting.abort()
    await aborted
    const waiting = two.cluster.caughtUp(token, patient)
    network.heal()
    await waiting
    assert.deepEqual(idsOf(two), [1])
  })

  it('of a table without a subscription is rejected; one that begins later counts once the rows are copied', async (test) => {
    const { one, two, cluster } = await star(test, 2)
    await one.cluster.removeNode({ node_name: 'node2' })
    const token = await one.cluster.token(commit(one, insertInto('dog', { id: 1 })))
    await assert.rejects(two.cluster.caughtUp(token, patient), { code: 'subscription_not_found' })
    await one.cluster.addNode({ node_name: 'node2', subscriptions: publish(dog) })
    await two.cluster.caughtUp(token, patient)
    assert.deepEqual(idsOf(two), [1])
    await cluster.converged()
  })

  it('is answered by a node that gets the transaction through a relaying one, also if the subscription is newer', async (test) => {
    const hosts = names(3).map(() => new MemoryHost({ tables: [dog] }))
    const { nodes, cluster } = await openCluster(test, hosts, {}, { clustering: { republishMessages: true } })
    const [one, two, three] = nodes as [ClusterNode, ClusterNode, ClusterNode]
    await two.cluster.addNode({ node_name: 'node1', subscriptions: subscribe(dog) })
    await cluster.converged()
    const before = await one.cluster.token(commit(one, insertInto('dog', { id: 'before' })))
    await two.cluster.caughtUp(before)
    await three.cluster.addNode({ node_name: 'node2', subscriptions: subscribe(dog) })
    await three.cluster.caughtUp(before)
    assert.deepEqual(idsOf(three), ['before'])
    for (let id = 0; id < 20; id++) {
      await three.cluster.caughtUp(await one.cluster.token(commit(one, insertInto('dog', { id }))))
      assert.ok(idsOf(three).includes(id))
    }
  })

  it('of an epoch that has ended is answered clearly', async (test) => {
    const { network, one, two, cluster } = await star(test, 2)
    const applied = await one.cluster.token(commit(one, insertInto('dog', { id: 'applied' })))
    await two.cluster.caughtUp(applied)
    network.cut('node1', 'node2')
    const lost = await one.cluster.token(commit(one, insertInto('dog', { id: 'lost' })))
    await eventually('it is confirmed', () => one.host.outbox.length === 0)
    network.wipeDisk('node1')
    network.crash('node1')
    network.restart('node1')
    const next = await one.cluster.token(commit(one, insertInto('dog', { id: 'next' })))
    const waiting = two.cluster.caughtUp(next)
    network.heal()
    await waiting
    await two.cluster.caughtUp(applied)
    // It is gone from the stream, and comes with the copy of the rows.
    await eventually('the copy brings it', () =>
      two.cluster.caughtUp(lost).then(
        () => true,
        () => false,
      ),
    )
    assert.ok(idsOf(two).includes('lost'))
    await assert.rejects(one.cluster.caughtUp(lost), { code: 'token_expired' })
    const unknown = ['node1', one.cluster.timestamp(), ['dev', 'dog', 'of another life', 1]]
    const token = Buffer.from(JSON.stringify([1, ...unknown])).toString('base64url')
    await assert.rejects(two.cluster.caughtUp(token, patient), { code: 'token_expired' })
    await cluster.converged()
  })

  it('that is invalid is rejected', async (test) => {
    const { two } = await star(test, 2)
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const texts = ['', 'x', encode(1), encode([2, 'node1']), encode([1, 7]), encode([1, 'node1', ['dev', 'dog', 'e']])]
    for (const text of [...texts, 'x'.repeat(5_000), 7 as unknown as string])
      await assert.rejects(two.cluster.caughtUp(text), { code: 'token_invalid' })
  })
})
