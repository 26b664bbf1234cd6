// A copy applies fewer rows at once to a database that blocks the process meanwhile, so that live transactions get their turn.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { SliceSize } from '../../lib/replication/copy/slice-size.ts'
import { eventually, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { hostWithRows } from '../support/rows-before.ts'

/** As a database does that works in this thread. */
function block(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

describe('the rows that are applied at once', () => {
  it('become fewer while they block the process, down to 100, and more again', async () => {
    const slice = new SliceSize(500)
    const sizes: number[] = []
    for (let step = 0; step < 4; step++) {
      await slice.run(async () => block(6))
      sizes.push(slice.rows)
    }
    assert.deepEqual(sizes, [250, 125, 100, 100])
    // One step may take longer than it should on a busy machine.
    for (let step = 0; step < 100 && slice.rows < 500; step++) await slice.run(async () => {})
    assert.equal(slice.rows, 500)
  })

  it('stay as many for a database that works elsewhere, however long it takes', async () => {
    const slice = new SliceSize(500)
    for (let step = 0; step < 3; step++)
      await slice.run(async () => {
        await nextTurn()
        block(6)
      })
    assert.equal(slice.rows, 500)
  })

  it('are never more than the option, and adapt also when the database refuses them', async () => {
    const slice = new SliceSize(10)
    const refused = slice.run(async () => {
      block(6)
      throw new Error('refused')
    })
    await assert.rejects(refused, /refused/)
    assert.equal(slice.rows, 10)
    await slice.run(async () => {})
    assert.equal(slice.rows, 10)
  })

  it('are few in a copy to a database that takes long for each', async (test) => {
    const dog = { database: 'dev', table: 'dog' }
    const target = new MemoryHost()
    const sizes: number[] = []
    target.beforeApply = ({ isCopy, transactions }) => {
      if (!isCopy || transactions.length === 0) return
      sizes.push(transactions.length)
      block(transactions.length * 0.02)
    }
    const network = new MemoryNetwork()
    const cluster = await startCluster(2, {
      network,
      subscribe: false,
      host: (name) => (name === 'node1' ? hostWithRows('node1', 5_000) : target),
    })
    test.after(async () => {
      await cluster.close()
      await network.close()
    })
    const two = cluster.node('node2').cluster
    let isCopied = false
    two.on('replication:copied', () => {
      isCopied = true
    })
    await two.addNode({ node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] })
    await eventually('the rows are copied', () => isCopied)
    assert.equal(sizes[0], 500)
    assert.ok(Math.max(...sizes.slice(-20)) <= 250, sizes.join(' '))
    assert.equal(target.records('dev', 'dog').length, 5_000)
  })
})
