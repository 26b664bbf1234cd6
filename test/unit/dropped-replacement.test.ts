// A table was emptied to be replaced by a copy, and then a source serves no rows any more: what was applied of it is missing, and shown so.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Checkpoint } from '../../lib/host/host.ts'
import { beginCopy, requestedCopy } from '../../lib/replication/copy/copy-position.ts'
import { positionOfCheckpoint, stateIn } from '../../lib/replication/positions/applied-state.ts'
import { advice } from '../../lib/status-page/advice.ts'
import { eventually } from '../support/cluster.ts'
import { CopyPair, type CopySource } from '../support/copy-pair.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'

/** Two sources with two rows each, which are here. `serving`: the sources that serve rows. */
async function replicated(test: TestContext) {
  const host = new MemoryHost([['dev', 'dog']])
  const pair = await CopyPair.open(test, { host, names: ['node1', 'node2'] })
  const serving = new Set(['node1', 'node2'])
  pair.rows.serves = (({ node }: { node: string }) => serving.has(node)) as never
  let whenEmptied = () => {}
  Object.assign(host, {
    emptyTable: async ({ source, checkpoint }: { source: CopySource['source']; checkpoint: Checkpoint }) => {
      host.rows.delete(JSON.stringify(['dev', 'dog']))
      await host.apply({ source, transactions: [], checkpoint })
      whenEmptied()
    },
  })
  await pair.subscribe()
  for (const each of pair.sources) for (const key of ['a', 'b']) each.commit(insert('dog', { id: key + each.name }))
  await pair.live()
  pair.copied.length = 0
  const replace = async (onEmptied: () => void) => {
    whenEmptied = onEmptied
    await pair.replicator.requestCopy(pair.source.source, { replace: true })
  }
  const ids = () => pair.host.contents('dev', 'dog').map(({ id }) => id)
  const stateOf = async (source: CopySource, index: number) => {
    const checkpoint = (await pair.checkpoint(source))!
    return stateIn(positionOfCheckpoint(source.name, checkpoint, false), checkpoint.epoch, index)
  }
  return { pair, serving, replace, ids, stateOf, sources: pair.sources as [CopySource, CopySource] }
}

it('a table that was emptied for a copy stays so, whatever is asked meanwhile', () => {
  const emptied = { ...requestedCopy(undefined, true), replace: 'emptied' } as const
  for (const replace of [true, false]) {
    assert.deepEqual(requestedCopy(emptied, replace), emptied)
    assert.deepEqual(requestedCopy(beginCopy(undefined, 'table_replaced'), replace).emptied, true)
  }
  assert.equal(requestedCopy(requestedCopy(undefined, true)).replace, undefined)
})

describe('a source that serves no rows any more after the table was emptied', {
  concurrency: true,
  timeout: 30_000,
}, () => {
  it('leaves what was applied of it missing until a copy ends, also after a restart, and the others are copied', async (test) => {
    const { pair, serving, replace, ids, stateOf, sources } = await replicated(test)
    const [one, two] = sources
    await replace(() => {
      serving.delete('node1')
      pair.rows.beforePage = (_) => {
        if (!serving.has('node1')) throw new Error('no rows are served')
      }
    })
    await eventually('the copy of node1 has ended', async () => !(await pair.checkpoint(one))!.copy)
    pair.rows.beforePage = undefined
    await pair.copies(1)
    assert.deepEqual(
      [pair.copied, ids()],
      [[{ node: 'node2', reason: 'table_replaced', rows: 2 }], ['anode2', 'bnode2']],
    )
    await pair.restart()
    await pair.live()
    const lost = async () => [pair.status(one).unrepairedGaps, await stateOf(one, 2), await stateOf(two, 2)]
    assert.deepEqual(await lost(), [1, 'missing', 'applied'])
    one.commit(insert('dog', { id: 'c' }))
    await pair.live()
    assert.deepEqual([await stateOf(one, 2), await stateOf(one, 3)], ['missing', 'applied'])
    serving.add('node1')
    await pair.replicator.requestCopy(one.source)
    await pair.copies(2)
    assert.deepEqual(await lost(), [undefined, 'applied', 'applied'])
    assert.deepEqual(ids().sort(), ['anode1', 'anode2', 'bnode1', 'bnode2', 'c'])
  })

  it('does so too when it is another one than the table was replaced from', async (test) => {
    const { pair, serving, replace, ids, stateOf, sources } = await replicated(test)
    const [one, two] = sources
    await replace(() => void serving.delete('node2'))
    await pair.copies(1)
    await pair.live()
    const states = [await stateOf(one, 2), await stateOf(two, 2)]
    assert.deepEqual(
      [ids(), states],
      [
        ['anode1', 'bnode1'],
        ['applied', 'missing'],
      ],
    )
    assert.deepEqual([pair.status(one).unrepairedGaps, pair.status(two).unrepairedGaps], [undefined, 1])
  })

  it('gets its rows back from the new copy and, when its subscription is added again, from its stream', async (test) => {
    const { pair, serving, replace, ids, sources } = await replicated(test)
    const [one, two] = sources
    const timestamp = two.clock.timestamp()
    one.host.commitAs({ id: 'relayed', timestamp, writes: [insert('dog', { id: 'anode2' })] })
    await replace(() => void serving.delete('node2'))
    await pair.copies(1)
    await pair.live()
    assert.deepEqual([ids(), pair.status(two).unrepairedGaps], [['anode1', 'anode2', 'bnode1'], 1])
    // What the advice names.
    assert.match(
      advice.gap_not_repaired,
      /cluster\.copy\(source\).* serves no rows.* remove the subscription, and add it .* start_time/,
    )
    await assert.rejects(pair.replicator.requestCopy(two.source), { code: 'rows_not_served' })
    await pair.reconcile(one)
    await pair.replicator.setStart(two.source, { id: '1', startTime: '2026-01-01T00:00:00.000Z' })
    await pair.reconcile()
    await pair.live()
    assert.deepEqual(
      [ids().sort(), pair.status(two).unrepairedGaps],
      [['anode1', 'anode2', 'bnode1', 'bnode2'], undefined],
    )
  })
})
