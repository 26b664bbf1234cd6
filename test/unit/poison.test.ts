// Transactions that the database or the local table refuses: the table stalls at exactly that transaction, an operator gets past it, and
// nothing else stops.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { recordFault } from '../../lib/replication/subscribe/record-check.ts'
import { eventually } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { dog, type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

const source = { node: 'node1', ...dog }
const pair = async (scene: Scene) => (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]

/** The database of `node` refuses batches with a transaction for which `isBad` returns true. */
function refuse(node: MemoryNode, isBad: (id: string) => boolean): void {
  node.host.beforeApply = ({ transactions }) => {
    if (transactions.some(({ id }) => isBad(id))) throw new Error('a constraint of the database')
  }
}

/** node1 writes while node2 is closed, so that node2 reads everything as one batch. */
async function openOn(node1: MemoryNode, node2: MemoryNode, ids: readonly string[], options = {}): Promise<void> {
  await node2.cluster.close()
  for (const id of ids) await node1.write([id])
  await node2.open(options)
}

describe('a refused transaction', { concurrency: true, timeout: 60_000 }, () => {
  it('is found in its batch: the ones before it are applied, and the stall names its sequence and id', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    refuse(node2, (id) => id === 'bad')
    await openOn(node1, node2, ['a', 'b', 'bad', 'c', 'd'])
    const { refused, error, state, appliedSequence } = await eventually('it is refused', () => {
      const status = node2.of(node1)
      return status.refused && status
    })
    assert.deepEqual(refused, { sequence: 3, index: 3, id: 'bad' })
    assert.deepEqual([state, appliedSequence], ['stalled', 2])
    assert.match(error!, /a constraint of the database/)
    const [stalled] = node2.events['replication:stalled']!
    assert.deepEqual([stalled!.sequence, stalled!.id], [3, 'bad'])
    assert.deepEqual(node2.from(node1), ['a', 'b'])

    const message = await node2.cluster.quarantine.add(source)
    assert.deepEqual([message.sequence, message.id, message.source], [3, 'bad', source])
    assert.match(message.reason, /a constraint of the database/)
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['a', 'b', 'c', 'd'])
    assert.deepEqual(node2.cluster.quarantine.list(source), [message])
    assert.equal(node2.of(node1).refused, undefined)
    assert.deepEqual(node2.gaps(), [])

    // It is still refused, then accepted.
    await assert.rejects(node2.cluster.quarantine.replay(source), { code: 'internal' })
    assert.equal(node2.of(node1).quarantined, 1)
    node2.host.beforeApply = undefined
    assert.deepEqual(await node2.cluster.quarantine.replay(source), { applied: [3], voided: [], kept: [] })
    assert.deepEqual(node2.host.contents('dev', 'dog'), node1.host.contents('dev', 'dog'))
    assert.equal(new Set(node2.host.applied).size, node2.host.applied.length)
  })

  it('can be discarded, and is not read again', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    refuse(node2, (id) => id === 'bad')
    await node1.write(['bad'])
    await eventually('it is refused', () => node2.of(node1).refused)
    await node2.cluster.quarantine.add(source)
    assert.deepEqual(await node2.cluster.quarantine.discard(source), [1])
    await node2.reopen()
    await node1.write(['after'])
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['after'])
  })

  it('does not stop other tables', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    for (const { host } of [node1, node2])
      await host.createTable({ database: 'dev', table: 'cat', primaryKey: 'id', attributes: ['id'] })
    const subscriptions = [{ database: 'dev', table: 'cat', publish: true, subscribe: true }]
    await node1.cluster.updateNode({ node_name: 'node2', subscriptions })
    refuse(node2, (id) => id === 'bad')
    await node1.write(['bad'])
    await eventually('it is refused', () => node2.of(node1).refused)
    await node1.write(['cat-1'], 'cat')
    await eventually('the other table is applied', () => node2.from(node1, 'cat').length === 1)
    assert.equal(node2.of(node1, 'cat').state, 'live')
    assert.equal(node2.of(node1).state, 'stalled')
  })

  it('cannot be quarantined when nothing is refused', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await assert.rejects(node2.cluster.quarantine.add(source), { code: 'subscription_not_stalled', statusCode: 409 })
    await assert.rejects(node2.cluster.quarantine.add({ ...source, table: 'cat' }), { code: 'subscription_not_found' })
    // The last attempt before the quarantine succeeds.
    refuse(node2, (id) => id === 'bad')
    await node1.write(['bad'])
    await eventually('it is refused', () => node2.of(node1).refused)
    node2.host.beforeApply = undefined
    await assert.rejects(node2.cluster.quarantine.add(source), { code: 'subscription_not_stalled' })
    await scene.quiet()
    assert.deepEqual([node2.from(node1), node2.cluster.quarantine.list()], [['bad'], []])
  })

  it('stays in the stream when the database refuses the new checkpoint too', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    node2.host.beforeApply = () => {
      throw new Error('the disk is full')
    }
    await node1.write(['good'])
    await eventually('it is refused', () => node2.of(node1).refused)
    await assert.rejects(node2.cluster.quarantine.add(source), { code: 'internal' })
    assert.equal(node2.of(node1).state, 'stalled')
    node2.host.beforeApply = undefined
    await scene.quiet()
    assert.deepEqual([node2.from(node1), node2.cluster.quarantine.list()], [['good'], []])
  })
})

describe('maxApplyAttempts', { concurrency: true, timeout: 60_000 }, () => {
  const options = { maxApplyAttempts: 2 }

  it('quarantines what is refused that often, and nothing else', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    const attempts: string[] = []
    node2.host.beforeApply = ({ transactions }) => {
      const [first, second] = transactions
      if (first?.id === 'bad' && !second) attempts.push(first.id)
      if (transactions.some(({ id }) => id === 'bad')) throw new Error('refused')
    }
    await openOn(node1, node2, ['a', 'bad', 'b'], options)
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['a', 'b'])
    assert.equal(attempts.length, 2)
    assert.deepEqual(
      node2.cluster.quarantine.list().map(({ id }) => id),
      ['bad'],
    )
    assert.equal(node2.events['replication:quarantined']!.length, 1)
  })

  it('quarantines nothing while the database refuses empty batches', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    await node2.reopen(options)
    await scene.quiet()
    let refusals = 0
    node2.host.beforeApply = () => {
      refusals++
      throw new Error('the disk is full')
    }
    await node1.write(numbered('t', 3))
    await eventually('it is refused often', () => refusals >= 8)
    assert.equal(node2.of(node1).state, 'stalled')
    node2.host.beforeApply = undefined
    await scene.quiet()
    assert.deepEqual(node2.from(node1), numbered('t', 3))
    assert.deepEqual(node2.cluster.quarantine.list(), [])
  })

  it('stops after ten in a row', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    refuse(node2, (id) => id.startsWith('bad'))
    await openOn(node1, node2, [...numbered('bad', 12), 'good'], { maxApplyAttempts: 1 })
    await eventually('it is stalled at the eleventh', () => node2.of(node1).refused?.id === 'bad-10')
    assert.equal(node2.cluster.quarantine.list().length, 10)
    await node2.cluster.quarantine.add(source)
    await eventually('it is stalled at the next', () => node2.of(node1).refused?.id === 'bad-11')
    await node2.cluster.quarantine.add(source)
    await scene.quiet()
    assert.deepEqual(node2.from(node1), ['good'])
    // An applied transaction ends the row.
    await node1.write(['bad-again'])
    await eventually('it is quarantined', () => node2.cluster.quarantine.list().length === 13)
  })
})

describe('a record that does not fit the local table', { concurrency: true, timeout: 60_000 }, () => {
  const wrong: [string, unknown, RegExp][] = [
    ['no key', { name: 'Rex' }, /a record has no primary key 'id'/],
    ['the key null', { id: null }, /must be a string, a finite number or a bigint, received null/],
    ['the key NaN', { id: Number.NaN }, /received NaN/],
    ['an object as its key', { id: { a: 1 } }, /received object/],
  ]
  for (const [name, record, reason] of wrong)
    it(`with ${name} is not passed to the database: the table is stalled`, async (test) => {
      const scene = new Scene(test)
      const [node1, node2] = await pair(scene)
      const passed: unknown[] = []
      node2.host.beforeApply = ({ transactions }) => void passed.push(...transactions)
      await writeUnchecked(node1, [record as Record<string, unknown>])
      const { error, refused } = await eventually('it is refused', () => {
        const status = node2.of(node1)
        return status.refused && status
      })
      assert.match(error!, reason)
      assert.equal(refused!.id, 'unchecked')
      await node2.cluster.quarantine.add(source)
      await node1.write(['after'])
      await scene.quiet()
      assert.deepEqual(node2.from(node1), ['after'])
      assert.equal(passed.length, 1)
    })

  it('is recognized in every write, deletes included', () => {
    const table = { database: 'dev', table: 'dog' }
    const fault = (...ids: unknown[]) => recordFault([{ operation: 'delete', ...table, ids: ids as string[] }], 'id')
    assert.equal(fault('a', 1, 2n, ''), undefined)
    assert.match(fault('a', Number.POSITIVE_INFINITY)!, /received Infinity/)
    assert.match(fault(['a'])!, /received array/)
    assert.match(recordFault([insert('dog', { id: 1 }, Object.create({ id: 2 }))], 'id')!, /no primary key/)
  })
})

/** Commits records at `node` that no host accepts. */
function writeUnchecked(node: MemoryNode, records: Record<string, unknown>[]): Promise<void> {
  const transaction = { id: 'unchecked', timestamp: node.host.timestamp!(), writes: [insert('dog', ...records)] }
  node.host.outbox.push(transaction)
  return node.cluster.publish(transaction)
}

describe('a table with another primary key than at its source', { concurrency: true, timeout: 60_000 }, () => {
  const byName = { ...dog, primaryKey: 'name', attributes: ['name'] }

  /** node1 has dropped the table and created it with the primary key `name`. */
  async function changed(test: TestContext) {
    const scene = new Scene(test)
    const [node1, node2] = await pair(scene)
    node1.host.dropTable('dev', 'dog')
    await node1.host.createTable(byName)
    return { scene, node1, node2 }
  }
  const reason = /the primary key of the table is 'id' here and 'name' on node1/

  it('is stalled when the nodes meet again, although nothing is written, until one of them changes', async (test) => {
    const { scene, node1, node2 } = await changed(test)
    await node1.reopen()
    await eventually('it is stalled', () => reason.test(node2.of(node1).error ?? ''))
    assert.equal(node2.of(node1).state, 'stalled')
    await assert.rejects(node2.cluster.quarantine.add(source), { code: 'subscription_not_stalled' })
    await eventually('the other direction is stalled too', () => node1.of(node2).state === 'stalled')
    node2.host.dropTable('dev', 'dog')
    await node2.host.createTable(byName)
    await node1.host.write('one', insert('dog', { name: 'Rex' }))
    await eventually('it is applied', () => node2.host.get('dev', 'dog', 'Rex'))
    await scene.quiet()
  })

  it('is stalled at the first record while both nodes stay connected', async (test) => {
    const { node1, node2 } = await changed(test)
    await node1.host.write('one', insert('dog', { name: 'Rex' }))
    await eventually('it is stalled', () => /no primary key 'id'|'name' on node1/.test(node2.of(node1).error ?? ''))
    assert.deepEqual(node2.host.contents('dev', 'dog'), [])
  })
})
