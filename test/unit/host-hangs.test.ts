// A database whose methods never answer: other tables, operations and closing go on, and the answer of an operation says what is pending.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Batch, Host } from '../../lib/index.ts'
import { TestClock } from '../../lib/testing.ts'
import { eventually } from '../support/cluster.ts'
import { Gate } from '../support/gate.ts'
import { insert } from '../support/memory-host.ts'
import { both, dog, type MemoryNode, Scene } from '../support/memory-scene.ts'

const cat = { database: 'dev', table: 'cat' }
const bothTables = [...both, { ...cat, publish: true, subscribe: true }]
const never = () => new Promise<never>(() => {})

/** node2 subscribes to the tables dog and cat of node1. */
async function pair(test: TestContext, options: { hostTimeout?: number } = {}, clock?: TestClock) {
  const scene = new Scene(test, clock && { clock })
  const node1 = await scene.start('node1')
  const node2 = await scene.start('node2', { options: { hostTimeout: 4_000, requestTimeout: 2_000, ...options } })
  for (const node of [node1, node2]) await node.host.createTable({ ...cat, primaryKey: 'id', attributes: ['id'] })
  // The first node waits for answers as long as by default.
  await node1.cluster.addNode({ node_name: 'node2', subscriptions: bothTables })
  await eventually('both are live', () => ['dog', 'cat'].every((table) => node2.of(node1, table)?.state === 'live'))
  return { scene, node1, node2 }
}

/** Batches of the table dog wait until the returned function is called. */
function hangApply({ host }: MemoryNode): () => void {
  let answer = () => {}
  const answered = new Promise<void>((resolve) => {
    answer = resolve
  })
  host.beforeApply = ({ source, transactions }: Batch) =>
    source.table === 'dog' && transactions.length > 0 ? answered : undefined
  return answer
}

const isHung = (node2: MemoryNode, node1: MemoryNode) =>
  eventually('the batch is read', () => node2.of(node1)?.lag === 1)

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  const start = performance.now()
  const result = await work
  const elapsed = performance.now() - start
  assert.ok(elapsed < ms, `it took ${Math.round(elapsed)} ms`)
  return result
}

describe('while apply of one table does not answer', { concurrency: true, timeout: 60_000 }, () => {
  it('other tables go on, and the subscription is stalled with the reason until it answers', async (test) => {
    const { scene, node1, node2 } = await pair(test)
    const answer = hangApply(node2)
    await node1.write(['one'])
    await isHung(node2, node1)
    await node1.write(['a'], 'cat')
    await eventually('the other table is applied', () => node2.from(node1, 'cat').length === 1)
    await eventually('it is stalled', () => /has not answered apply/.test(node2.of(node1).error ?? ''))
    await eventually('its calls reject', () => /^The database has not answered/.test(node2.of(node1).error ?? ''))
    assert.equal(node2.of(node1).state, 'stalled')
    assert.deepEqual([node2.of(node1, 'cat').state, node2.from(node1).length], ['live', 0])
    answer()
    await scene.quiet()
    assert.deepEqual(node2.host.applied, ['a', 'one'])
  })

  it('remove_node answers with what is pending, later operations go on, and it takes effect when apply answers', async (test) => {
    const { node1, node2 } = await pair(test)
    const answer = hangApply(node2)
    await node1.write(['one'])
    await isHung(node2, node1)
    const removed = await within(15_000, node2.cluster.removeNode({ node_name: 'node1' }))
    assert.equal(removed.message, "Successfully removed 'node1' from manifest")
    assert.deepEqual(
      removed.pending?.map(({ node_name, schema, table }) => [node_name, schema, table]),
      [['node1', 'dev', 'dog']],
    )
    assert.match(removed.pending![0]!.reason, /ending|has not answered/)
    assert.deepEqual(node2.cluster.manifest.nodes, [])
    const route = { host: '10.0.0.2', port: 9932 }
    const set = await within(15_000, node2.cluster.setRoutes({ server: 'hub', routes: [route] }))
    assert.equal('pending' in set, false)
    const other = { node_name: 'node1', subscriptions: [{ ...cat, publish: true, subscribe: true }] }
    assert.equal((await within(15_000, node2.cluster.addNode(other))).added.length, 1)
    const again = node2.cluster.updateNode({ node_name: 'node1', subscriptions: both })
    await within(15_000, assert.rejects(again, { code: 'host_timeout' }))
    answer()
    await eventually(
      'it has ended',
      async () => (await node2.host.loadCheckpoint({ node: 'node1', ...dog })) === undefined,
    )
    assert.equal((await node2.cluster.updateNode({ node_name: 'node1', subscriptions: both })).pending, undefined)
    await node1.write(['two'])
    await eventually('it replicates again', () => node2.from(node1).includes('two'))
  })

  it('the answer names the reason that the database does not answer', async (test) => {
    const clock = new TestClock()
    const { node1, node2 } = await pair(test, {}, clock)
    hangApply(node2)
    await node1.write(['one'])
    await isHung(node2, node1)
    await clock.advance(4_000)
    const { pending } = await node2.cluster.removeNode({ node_name: 'node1' })
    assert.match(pending![0]!.reason, /The database has not answered apply of dev.dog for \d+ s/)
  })

  it('the manager closes', async (test) => {
    const { node1, node2 } = await pair(test)
    hangApply(node2)
    await node1.write(['one'])
    await isHung(node2, node1)
    await within(20_000, node2.cluster.close())
  })
})

describe('while another method does not answer', { concurrency: true, timeout: 60_000 }, () => {
  const iterations: Record<string, (host: Host) => void> = {
    confirmPublished: (host) => Object.assign(host, { confirmPublished: never }),
    'readOutbox, in next': (host) =>
      Object.assign(host, { readOutbox: () => ({ [Symbol.asyncIterator]: () => ({ next: never }) }) }),
    'readOutbox, in return': (host) => {
      const read = host.readOutbox!.bind(host)
      const held = { return: never, [Symbol.asyncIterator]: () => held }
      Object.assign(host, {
        readOutbox: (...args: Parameters<typeof read>) =>
          Object.assign(Object.create(held), {
            next: () =>
              read(...args)
                [Symbol.asyncIterator]()
                .next(),
          }),
      })
    },
    publishedPosition: (host) => Object.assign(host, { publishedPosition: never }),
  }
  for (const [name, hang] of Object.entries(iterations))
    it(`the manager closes: ${name}`, async (test) => {
      const scene = new Scene(test)
      const node1 = await scene.start('node1')
      hang(node1.host)
      node1.host.write('one', insert('dog', { id: 1 })).catch(() => {})
      await new Promise((resolve) => setImmediate(resolve))
      await within(20_000, node1.cluster.close())
    })

  it('an operation rejects with the method, and others go on', async (test) => {
    const clock = new TestClock()
    const { node2 } = await pair(test, {}, clock)
    const slow: string[] = []
    node2.cluster.on('host:slow', ({ method }) => void slow.push(method))
    const asked = new Gate(test)
    node2.host.describe = async () => {
      await asked.pass()
      return []
    }
    const rejected = assert.rejects(node2.cluster.updateNode({ node_name: 'node1', subscriptions: both }), {
      code: 'host_timeout',
      statusCode: 503,
      message: /has not answered describe/,
    })
    await asked.reached
    await clock.advance(4_000)
    await rejected
    // Peers ask for the tables as well.
    assert.deepEqual([...new Set(slow)], ['describe'])
    assert.equal((await node2.cluster.status()).connections.length, 1)
  })

  it('a caller can abort an operation', async (test) => {
    const { node2 } = await pair(test, { hostTimeout: 60_000 })
    const caller = new AbortController()
    node2.host.describe = () => {
      setImmediate(() => caller.abort())
      return never()
    }
    const update = node2.cluster.updateNode({ node_name: 'node1', subscriptions: both }, { signal: caller.signal })
    await within(15_000, assert.rejects(update, { code: 'aborted' }))
  })

  it('open rejects when lastTimestamp does not answer', async (test) => {
    const scene = new Scene(test)
    const node1 = await scene.start('node1')
    node1.host.lastTimestamp = never
    await within(15_000, assert.rejects(node1.reopen({ hostTimeout: 200 }), { code: 'host_timeout' }))
  })
})
