// The applier: each transaction is applied once, by whatever path it arrives, together with its checkpoint.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Batch, Checkpoint, RemoteTable, RemoteTransaction, Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import type { ApplierOptions } from '../../lib/replication/subscribe/applier-options.ts'
import { loadCheckpoint } from '../../lib/replication/subscribe/checkpoint-version.ts'
import { MemoryHost } from '../support/memory-host.ts'

const from = (node: string): RemoteTable => ({ node, database: 'dev', table: 'dog' })

/** A transaction that `node` committed at `place` of its stream, at `sequence` of the stream of the relaying node. */
const transaction = (
  sequence: number,
  where: { node?: string; epoch?: string; place?: number; relayedBy?: string[]; id?: string } = {},
): RemoteTransaction => {
  const { node = 'node1', epoch = 'e1', place = sequence, relayedBy = [] } = where
  return {
    id: where.id ?? `${node}-${place}`,
    timestamp: makeTimestamp(place, 0, node),
    writes: [],
    origin: { node, epoch, index: place, relayedBy },
    sequence,
    index: sequence,
  }
}

function start(options: Partial<ApplierOptions> = {}) {
  const host = new MemoryHost([['dev', 'dog']])
  const relayed: Transaction[] = []
  const applier = new Applier({
    host,
    node: 'local',
    relayEnabled: false,
    counters: replicationCounters(),
    relay: (all) => void relayed.push(...all),
    validate() {},
    ...options,
  })
  const stored = async (node: string) => (await loadCheckpoint(host, from(node)))!
  return { host, relayed, applier, stored }
}

const at = (sequence: number, epoch = 'e1'): Checkpoint => ({ epoch, sequence, index: sequence })
const range = (index: number, count = 1) => ({ epoch: 'e1', index, count })

describe('a transaction', () => {
  it('of the local node is not applied, by whatever path it returns', async () => {
    const { host, applier } = start()
    const echoes = [
      transaction(1, { node: 'local', relayedBy: ['node1'] }),
      transaction(2, { node: 'node3', relayedBy: ['local', 'node1'] }),
    ]
    await applier.apply(from('node1'), [...echoes, transaction(3)], at(3))
    assert.deepEqual(host.applied, ['node1-3'])
  })

  it('that arrived by another path is not applied again, in either order', async () => {
    const { host, applier } = start()
    await applier.apply(from('node1'), [transaction(1), transaction(2)], at(2))
    const again = [
      transaction(1, { place: 2, relayedBy: ['node2'] }),
      transaction(2, { place: 3, relayedBy: ['node2'] }),
    ]
    await applier.apply(from('node2'), again, at(2, 'f1'))
    await applier.apply(from('node1'), [transaction(3), transaction(4)], at(4))
    assert.deepEqual(host.applied, ['node1-1', 'node1-2', 'node1-3', 'node1-4'])
  })

  it('that was applied in the previous epoch is not applied again when it arrives by another path in the new epoch', async () => {
    const { host, applier } = start()
    const texts = [transaction(1), transaction(2), transaction(3)]
    await applier.apply(from('node1'), texts, at(3))
    // The stream was lost, and the new one begins with its unacknowledged transactions.
    await applier.move(from('node1'), at(2, 'e2'), { replayed: 2 })
    const again = [1, 2, 3].map((place) => transaction(place, { epoch: 'e2', place, relayedBy: ['node2'] }))
    await applier.apply(from('node2'), again, at(3, 'f1'))
    assert.deepEqual(host.applied, ['node1-1', 'node1-2', 'node1-3', 'node1-3'])
  })

  it('that arrived by this path before is not applied again, whether in an earlier batch or the same', async () => {
    const { host, applier } = start()
    const relayed = (sequence: number, place: number) =>
      transaction(sequence, { node: 'node3', place, relayedBy: ['node1'] })
    await applier.apply(from('node1'), [relayed(1, 7)], at(1))
    await applier.apply(from('node1'), [relayed(2, 7), relayed(3, 8), relayed(4, 8)], at(4))
    assert.deepEqual(host.applied, ['node3-7', 'node3-8'])
  })

  it('at the same sequence of another epoch is a different transaction', async () => {
    const { host, applier } = start()
    await applier.apply(from('node1'), [transaction(1)], at(1))
    await applier.apply(from('node1'), [transaction(1, { epoch: 'e2', id: 'new' })], at(1, 'e2'))
    assert.deepEqual(host.applied, ['node1-1', 'new'])
  })

  it('that is older than applied ones, but was not applied itself, is applied', async () => {
    const { host, applier } = start()
    await applier.apply(from('node2'), [transaction(1, { place: 5, relayedBy: ['node2'] })], at(1, 'f1'))
    await applier.apply(
      from('node1'),
      [4, 5, 6].map((place) => transaction(place)),
      at(6),
    )
    assert.deepEqual(host.applied, ['node1-5', 'node1-4', 'node1-6'])
  })

  it('is applied again within a replay, and not behind it', async () => {
    const { host, applier } = start()
    const all = [1, 2, 3].map((place) => transaction(place))
    await applier.apply(from('node2'), all, at(3, 'f1'))
    await applier.move(from('node2'), { ...at(0, 'f1'), replayUntil: 2 })
    await applier.apply(from('node2'), all, { ...at(3, 'f1'), replayUntil: 2 })
    assert.deepEqual(host.applied.slice(3), ['node1-1', 'node1-2'])
  })

  it('of an origin without sequences is applied each time', async () => {
    const { host, applier } = start()
    const { origin: _, ...rest } = transaction(1)
    const bare: RemoteTransaction = { ...rest, origin: { node: 'old', relayedBy: [] } }
    await applier.apply(from('node1'), [bare], at(1))
    await applier.apply(from('node2'), [bare], at(1, 'f1'))
    assert.equal(host.applied.length, 2)
  })
})

describe('the checkpoint', () => {
  it('is stored together with its transactions, and stays the same when the database rejects them', async () => {
    const { host, applier, stored } = start()
    host.refusal = new Error('not now')
    await assert.rejects(applier.apply(from('node1'), [transaction(1)], at(1)), /not now/)
    assert.equal(applier.checkpointOf(from('node1')), undefined)
    await applier.apply(from('node1'), [transaction(1)], at(1))
    assert.deepEqual(host.applied, ['node1-1'])
    assert.deepEqual(applier.checkpointOf(from('node1')), await stored('node1'))
  })

  it('is read from the database when reading begins', async () => {
    const { host, applier } = start()
    await applier.apply(from('node1'), [transaction(1)], at(1))
    // The database was restored from a backup.
    await host.apply({ source: from('node1'), transactions: [], checkpoint: at(0) })
    await applier.loadCheckpoint(from('node1'))
    assert.deepEqual(applier.checkpointOf(from('node1')), at(0))
  })

  it('contains a stream as one range, whatever the origins of its transactions are', async () => {
    const { applier, stored } = start()
    await applier.move(from('node1'), at(0))
    const mixed = [
      transaction(1),
      transaction(2, { node: 'node3', place: 9, relayedBy: ['node1'] }),
      transaction(3),
      transaction(4, { node: 'node3', place: 10, relayedBy: ['node1'] }),
    ]
    await applier.apply(from('node1'), mixed.slice(0, 2), at(2))
    await applier.apply(from('node1'), mixed.slice(2), at(4))
    assert.deepEqual((await stored('node1')).applied, {
      node1: { e1: [[1, 4, makeTimestamp(3, 0, 'node1')]] },
      node3: { e1: [[9, 10, makeTimestamp(10, 0, 'node3')]] },
    })
  })

  it('keeps applied ranges, quarantine and gaps when its position changes', async () => {
    const { applier, stored } = start()
    await applier.apply(from('node1'), [transaction(1)], at(1))
    await applier.quarantine(from('node1'), at(2), range(2), undefined)
    await applier.move(from('node1'), at(4), { newGaps: 1, lost: 2 })
    const kept = {
      applied: { node1: { e1: [[1, 1, makeTimestamp(1, 0, 'node1')]] } },
      quarantined: { e1: [[2, 2]] },
      gaps: { count: 1, lost: 2 },
      unrepairedGaps: 1,
    }
    assert.deepEqual(await stored('node1'), { ...at(4), ...kept })
    await applier.move(from('node1'), at(0, 'e2'))
    assert.deepEqual(await stored('node1'), { ...at(0, 'e2'), ...kept })
    await applier.apply(from('node1'), [], at(0, 'e2'))
    assert.deepEqual(await stored('node1'), { ...at(0, 'e2'), ...kept })
    await applier.move(from('node1'), at(5, 'e2'), { newGaps: 1, lost: 5 })
    const { gaps, unrepairedGaps } = await stored('node1')
    assert.deepEqual([gaps, unrepairedGaps], [{ count: 2, lost: 7 }, 2])
  })

  it('of a dropped source has no effect', async () => {
    const { host, applier } = start()
    await applier.apply(from('node2'), [transaction(1, { relayedBy: ['node2'] })], at(1, 'f1'))
    applier.dropCheckpoint('node2')
    await applier.apply(from('node1'), [transaction(1)], at(1))
    assert.equal(host.applied.length, 2)
  })
})

describe('concurrent batches', () => {
  it('are applied one after the other, when two paths deliver the same transaction', async () => {
    const { host, applier } = start()
    const waiting: (() => void)[] = []
    host.beforeApply = () => new Promise((resolve) => void waiting.push(resolve))
    const both = [
      applier.apply(from('node1'), [transaction(1)], at(1)),
      applier.apply(from('node2'), [transaction(1, { place: 1, relayedBy: ['node2'] })], at(1, 'f1')),
    ]
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(waiting.length, 1)
    host.beforeApply = undefined
    waiting[0]!()
    assert.deepEqual(await Promise.all(both), [1, 0])
    assert.deepEqual(host.applied, ['node1-1'])
  })

  it('continue after a rejected one', async () => {
    const { host, applier } = start()
    host.refusal = new Error('not now')
    const outcomes = await Promise.allSettled([
      applier.apply(from('node1'), [transaction(1)], at(1)),
      applier.apply(from('node2'), [transaction(1, { node: 'node2' })], at(1)),
    ])
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'fulfilled'],
    )
  })
})

describe('relaying', () => {
  it('puts transactions into the outbox in the same transaction of the database, then publishes them', async () => {
    const seen: [relayed: string[], publishedBefore: number][] = []
    const { host, relayed, applier } = start({ relayEnabled: true })
    host.beforeApply = ({ relay = [] }: Batch) => void seen.push([relay.map(({ id }) => id), relayed.length])
    host.refusal = new Error('not now')
    await assert.rejects(applier.apply(from('node1'), [transaction(1)], at(1)))
    assert.deepEqual([relayed, host.outbox], [[], []])
    await applier.apply(from('node1'), [transaction(1), transaction(2, { node: 'node3', relayedBy: ['node1'] })], at(2))
    // Parts of one transaction are relayed separately: the first relaying node gives each a separate id.
    assert.deepEqual(seen, [[['node1-1:dev.dog', 'node3-2'], 0]])
    assert.deepEqual(relayed, host.outbox)
    assert.deepEqual(
      relayed.map(({ origin }) => origin),
      [
        { node: 'node1', epoch: 'e1', index: 1, relayedBy: ['local'] },
        { node: 'node3', epoch: 'e1', index: 2, relayedBy: ['node1', 'local'] },
      ],
    )
  })

  it('excludes applied transactions, and is off unless enabled', async () => {
    const { host, relayed, applier } = start({ relayEnabled: true })
    await applier.apply(from('node1'), [transaction(1, { node: 'local', relayedBy: ['node1'] })], at(1))
    assert.deepEqual([relayed, host.outbox], [[], []])
    const other = start()
    await other.applier.apply(from('node1'), [transaction(1)], at(1))
    assert.deepEqual([other.relayed, other.host.outbox], [[], []])
  })
})

describe('a quarantined message', () => {
  it('is in the checkpoint until it is released', async () => {
    const { host, applier, stored } = start()
    assert.equal(await applier.quarantine(from('node1'), at(1), range(1), transaction(1)), true)
    assert.equal(await applier.quarantine(from('node1'), at(2), range(2), undefined), true)
    assert.deepEqual((await stored('node1')).quarantined, { e1: [[1, 2]] })
    assert.equal(await applier.releaseQuarantined(from('node1'), range(1), [transaction(1)]), 1)
    assert.deepEqual((await stored('node1')).quarantined, { e1: [[2, 2]] })
    assert.equal(await applier.releaseQuarantined(from('node1'), range(2)), 0)
    assert.deepEqual([(await stored('node1')).quarantined, host.applied], [undefined, ['node1-1']])
  })

  it('counts as applied, so that another path does not apply it', async () => {
    const { host, applier } = start()
    await applier.quarantine(from('node1'), at(1), range(1), transaction(1))
    await applier.apply(from('node2'), [transaction(1, { relayedBy: ['node2'] })], at(1, 'f1'))
    assert.deepEqual(host.applied, [])
  })

  it('is not kept when it arrived by another path', async () => {
    const { applier, stored } = start()
    await applier.apply(from('node2'), [transaction(1, { relayedBy: ['node2'] })], at(1, 'f1'))
    assert.equal(await applier.quarantine(from('node1'), at(1), range(1), transaction(1)), false)
    assert.deepEqual([(await stored('node1')).quarantined, (await stored('node1')).sequence], [undefined, 1])
  })

  it('that was unreadable is not applied if its transaction arrived by another path meanwhile', async () => {
    const { host, applier } = start()
    const other = transaction(1, { node: 'node3', place: 4, relayedBy: ['node1'] })
    await applier.quarantine(from('node1'), at(1), range(1), undefined)
    await applier.apply(from('node2'), [transaction(1, { node: 'node3', place: 4, relayedBy: ['node2'] })], at(1, 'f1'))
    assert.equal(await applier.releaseQuarantined(from('node1'), range(1), [other], false), 0)
    assert.deepEqual(host.applied, ['node3-4'])
  })
})
