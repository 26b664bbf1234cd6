// Calls of `apply` that the host rejects although it commits them, or commits after their time limit: each transaction is applied once.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Batch, Checkpoint, RemoteTable, RemoteTransaction, Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { TestClock } from '../../lib/testing.ts'
import { eventually } from '../support/cluster.ts'
import { Gate } from '../support/gate.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { both, Scene } from '../support/memory-scene.ts'
import fc from '../support/properties.ts'

const source: RemoteTable = { node: 'node1', database: 'dev', table: 'dog' }

const transaction = (sequence: number): RemoteTransaction => ({
  id: `tx-${sequence}`,
  timestamp: makeTimestamp(sequence, 0, 'node1'),
  writes: [],
  origin: { node: 'node1', epoch: 'e1', index: sequence, relayedBy: [] },
  sequence,
  index: sequence,
})
const at = (sequence: number) => ({ epoch: 'e1', sequence, index: sequence })
const range = (index: number) => ({ epoch: 'e1', index, count: 1 })

/** What the host does with one call: commits it and rejects, rejects it, or commits it later than its caller waits. */
type Fault = 'ok' | 'commit then reject' | 'reject' | 'commit late'

class FaultyHost extends MemoryHost {
  /** Of the next calls of `apply`. */
  faults: Fault[] = []
  /** True for the next calls of `loadCheckpoint` that reject. */
  loadFaults: boolean[] = []
  /** Committed checkpoints, with the number of transactions. */
  readonly commits: { checkpoint: Checkpoint; count: number }[] = []
  #late: Promise<void> | undefined

  override async apply(batch: Batch): Promise<void> {
    // As the watched host does: no call of the table before the late one has ended.
    await this.#late
    const fault = this.faults.shift() ?? 'ok'
    if (fault === 'reject') throw new Error('rejected')
    if (fault === 'commit late') {
      this.#late = new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#commit(batch))
      throw new Error('no answer')
    }
    await this.#commit(batch)
    if (fault === 'commit then reject') throw new Error('connection lost while committing')
  }

  async #commit(batch: Batch): Promise<void> {
    await super.apply(batch)
    this.commits.push({ checkpoint: batch.checkpoint, count: batch.transactions.length })
  }

  override async loadCheckpoint(source: RemoteTable): Promise<Checkpoint | undefined> {
    await this.#late
    if (this.loadFaults.shift()) throw new Error('cannot read')
    return super.loadCheckpoint(source)
  }
}

function start(faults: Fault[] = []) {
  const host = new FaultyHost([['dev', 'dog']])
  host.faults = faults
  const counters = replicationCounters()
  const relayed: string[] = []
  const recovered: [count: number, sequence: number][] = []
  const applier = new Applier({
    host,
    node: 'node2',
    relayEnabled: true,
    validate: () => {},
    counters,
    relay: (all: Transaction[]) => void relayed.push(...all.map(({ id }) => id)),
    onRecovered: (_, count, sequence) => void recovered.push([count, sequence]),
  })
  return { host, counters, relayed, recovered, applier }
}

const uncertain: Fault[] = ['commit then reject', 'commit late']

describe('a step that was committed although the host rejected it', () => {
  for (const fault of uncertain)
    it(`counts as done when it is repeated: apply, ${fault}`, async () => {
      const { host, counters, relayed, recovered, applier } = start([fault])
      const apply = () => applier.apply(source, [transaction(1), transaction(2)], at(2))
      await assert.rejects(apply())
      assert.deepEqual([counters.applied, relayed.length], [0, 0])
      assert.equal(await apply(), 2)
      assert.deepEqual(host.applied, ['tx-1', 'tx-2'])
      assert.deepEqual([counters.applied, counters.batches, counters.duplicates, relayed.length], [2, 1, 0, 2])
      assert.deepEqual(recovered, [], 'the caller reports it')
      assert.equal(await applier.apply(source, [transaction(3)], at(3)), 1)
      assert.equal(host.commits.length, 2)
    })

  for (const fault of uncertain)
    it(`counts as done when it is repeated: move, quarantine, release, ${fault}`, async () => {
      const { host, applier } = start()
      await applier.apply(source, [], at(0))
      const steps = [
        () => applier.move(source, at(5), { newGaps: 1, lost: 5 }),
        () => applier.quarantine(source, at(6), range(6), transaction(6)),
        () => applier.releaseQuarantined(source, range(6), [transaction(6)]),
        () => applier.quarantine(source, at(7), range(7), undefined),
        () => applier.releaseQuarantined(source, range(7)),
      ]
      const results: unknown[] = []
      for (const step of steps) {
        host.faults = [fault]
        await assert.rejects(step())
        results.push(await step())
      }
      assert.deepEqual(results, [undefined, true, 1, true, 0])
      const stored = (await host.loadCheckpoint(source))!
      assert.deepEqual([stored.sequence, stored.gaps, stored.quarantined], [7, { count: 1, lost: 5 }, undefined])
      assert.deepEqual(host.applied, ['tx-6'])
      assert.equal(host.commits.length, 1 + steps.length)
    })

  it('is reported once when the subscriber reads again instead', async () => {
    const { host, counters, relayed, recovered, applier } = start(['commit then reject'])
    await assert.rejects(applier.apply(source, [transaction(1), transaction(2)], at(2)))
    assert.equal((await applier.loadCheckpoint(source))?.sequence, 2)
    assert.deepEqual([counters.applied, relayed.length, recovered], [2, 2, [[2, 2]]])
    assert.equal(await applier.apply(source, [transaction(3)], at(3)), 1)
    assert.deepEqual([host.applied.length, recovered.length], [3, 1])
  })

  it('makes the subscriber read again when it goes on with a smaller batch', async () => {
    const { host, recovered, applier } = start(['commit then reject'])
    await assert.rejects(applier.apply(source, [transaction(1), transaction(2)], at(2)))
    const isLost = (error: unknown) => error instanceof MeshError && error.code === 'reader_lost'
    await assert.rejects(applier.apply(source, [transaction(1)], at(1)), isLost)
    assert.equal((await host.loadCheckpoint(source))?.sequence, 2)
    assert.deepEqual([host.applied.length, recovered], [2, [[2, 2]]])
    assert.equal((await applier.loadCheckpoint(source))?.sequence, 2)
    assert.equal(await applier.apply(source, [transaction(3)], at(3)), 1)
  })

  it('counts as done when a message was released in between', async () => {
    const { host, counters, applier } = start()
    await applier.quarantine(source, at(1), range(1), transaction(1))
    host.faults = ['commit then reject']
    const apply = () => applier.apply(source, [transaction(2)], at(2))
    await assert.rejects(apply())
    assert.equal(await applier.releaseQuarantined(source, range(1), [transaction(1)]), 1)
    assert.equal(await apply(), 1)
    const stored = (await host.loadCheckpoint(source))!
    assert.deepEqual([stored.sequence, stored.quarantined, counters.applied], [2, undefined, 2])
    assert.deepEqual(host.applied, ['tx-2', 'tx-1'])
  })

  it('is known to the other sources of the table', async () => {
    const { host, applier } = start(['commit then reject'])
    await assert.rejects(applier.apply(source, [transaction(1)], at(1)))
    const relayed = { ...transaction(1), origin: { ...transaction(1).origin, relayedBy: ['node3'] } }
    assert.equal(await applier.apply({ ...source, node: 'node3' }, [relayed], { epoch: 'f', sequence: 1 }), 0)
    assert.deepEqual(host.applied, ['tx-1'])
  })
})

describe('a stored checkpoint that neither is the one before the step nor the one after it', () => {
  const isLost = (error: unknown) => error instanceof MeshError && error.code === 'reader_lost'

  it('is adopted, and the subscriber reads again from it', async () => {
    const { host, applier } = start()
    await applier.apply(source, [transaction(1), transaction(2), transaction(3)], at(3))
    host.faults = ['reject']
    await assert.rejects(applier.apply(source, [transaction(4)], at(4)), /rejected/)
    const [key] = host.checkpoints.keys()
    host.checkpoints.set(key!, { epoch: 'e1', sequence: 1 })
    await assert.rejects(applier.apply(source, [transaction(4)], at(4)), isLost)
    await assert.rejects(applier.apply(source, [transaction(4)], at(4)), isLost)
    assert.equal(applier.checkpointOf(source)?.sequence, 1)
    assert.equal((await applier.loadCheckpoint(source))?.sequence, 1)
    assert.equal(await applier.apply(source, [transaction(2)], at(2)), 1)
  })

  it('keeps what another writer has changed in the rest of it', async () => {
    const { host, applier } = start()
    await applier.apply(source, [transaction(1)], at(1))
    host.faults = ['commit then reject']
    await assert.rejects(applier.apply(source, [transaction(2)], at(2)))
    const [key] = host.checkpoints.keys()
    host.checkpoints.set(key!, { ...host.checkpoints.get(key!)!, quarantined: { e0: [[4, 4]] } })
    assert.equal(await applier.apply(source, [transaction(2)], at(2)), 1)
    await applier.apply(source, [transaction(3)], at(3))
    assert.deepEqual((await host.loadCheckpoint(source))?.quarantined, { e0: [[4, 4]] })
  })
})

/** One message of the stream of `source`: valid, gone, or unreadable. */
type Item = 'valid' | 'gone' | 'unreadable'

const scenario = fc.record({
  items: fc.array(fc.constantFrom<Item>('valid', 'valid', 'gone', 'unreadable'), { minLength: 1, maxLength: 30 }),
  batches: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 10 }),
  faults: fc.array(fc.constantFrom<Fault>('ok', 'commit then reject', 'reject', 'commit late'), { maxLength: 60 }),
  loadFaults: fc.array(fc.boolean(), { maxLength: 10 }),
  giveUps: fc.array(fc.boolean(), { maxLength: 20 }),
})

type World = ReturnType<typeof start> & { reported: number }

/** Repeats a call until it succeeds, or must read again. */
async function retry<T>(call: () => Promise<T>): Promise<T> {
  for (;;)
    try {
      return await call()
    } catch (error) {
      if (error instanceof MeshError) throw error
      await new Promise((resolve) => setImmediate(resolve))
    }
}

/** A subscriber: reads from the checkpoint on, in batches; after a rejection it may restart instead of repeating its call. */
async function subscribe(scene: World, items: readonly Item[], batches: readonly number[], giveUps: boolean[]) {
  const { applier } = scene
  let round = 0
  const attempt = async <T>(call: () => Promise<T>): Promise<T> => {
    try {
      return await call()
    } catch (error) {
      if (error instanceof MeshError || giveUps.shift()) throw new MeshError('reader_lost', 'restarts')
      return retry(call)
    }
  }
  const next = async (sequence: number) => {
    const item = items[sequence]
    if (item === 'gone') {
      await attempt(() => applier.move(source, at(sequence + 1), { newGaps: 1, lost: 1 }))
    } else if (item === 'unreadable')
      await attempt(() => applier.quarantine(source, at(sequence + 1), range(sequence + 1), undefined))
    else {
      const size = batches[round++ % batches.length]!
      let end = sequence
      while (end < items.length && end < sequence + size && items[end] === 'valid') end++
      const transactions = Array.from({ length: end - sequence }, (_, index) => transaction(sequence + index + 1))
      const applied = await attempt(() => applier.apply(source, transactions, at(end)))
      scene.reported += applied
    }
  }
  for (;;) {
    const { sequence } = (await retry(() => applier.loadCheckpoint(source))) ?? at(0)
    if (sequence >= items.length) return
    try {
      while ((applier.checkpointOf(source)?.sequence ?? 0) < items.length)
        await next(applier.checkpointOf(source)?.sequence ?? 0)
    } catch (error) {
      if (!(error instanceof MeshError)) throw error
    }
  }
}

/** An operator who applies quarantined messages, and repeats later what failed. */
async function release(scene: World, isDone: () => boolean) {
  const released = new Set<number>()
  const quarantined = () =>
    Object.values(scene.applier.checkpointOf(source)?.quarantined ?? {}).flatMap((ranges) =>
      ranges.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, index) => from + index)),
    )
  while (!isDone() || quarantined().length > 0) {
    for (const sequence of quarantined()) {
      released.add(sequence)
      const call = scene.applier.releaseQuarantined(source, range(sequence), [transaction(sequence)], false)
      const applied = await call.catch(() => 0)
      scene.reported += applied
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  return released
}

it('random faults: each transaction is committed once, and gaps, quarantine, relays and counts are right', async () => {
  const property = fc.asyncProperty(scenario, async ({ items, batches, faults, loadFaults, giveUps }) => {
    const scene: World = { ...start([...faults]), reported: 0 }
    const { host, counters, relayed, recovered } = scene
    host.loadFaults = [...loadFaults]
    let done = false
    const subscribing = subscribe(scene, items, batches, [...giveUps]).finally(() => {
      done = true
    })
    await Promise.all([subscribing, release(scene, () => done)])
    host.loadFaults = []
    const expected = items.flatMap((item, index) => (item === 'gone' ? [] : [`tx-${index + 1}`]))
    assert.deepEqual([...host.applied].sort(), [...expected].sort())
    assert.equal(relayed.length, expected.length)
    assert.equal(new Set(relayed).size, expected.length)
    assert.equal(counters.applied, expected.length)
    await scene.applier.loadCheckpoint(source)
    const recoveredCount = recovered.reduce((sum, [count]) => sum + count, 0)
    assert.equal(scene.reported + recoveredCount, expected.length)
    const stored = await host.loadCheckpoint(source)
    const gone = items.filter((item) => item === 'gone').length
    assert.deepEqual(stored?.gaps, gone > 0 ? { count: gone, lost: gone } : undefined)
    assert.deepEqual([stored?.sequence, stored?.quarantined], [items.length, undefined])
  })
  await fc.assert(property, { numRuns: 300 })
})

describe('a subscription', () => {
  for (const fault of uncertain)
    it(`applies a transaction once when the database answers: ${fault}`, async (test) => {
      const clock = new TestClock()
      const scene = new Scene(test, { clock })
      const node1 = await scene.start('node1')
      const node2 = await scene.start('node2')
      const late = new Gate(test)
      await node1.cluster.addNode({ node_name: 'node2', subscriptions: both })
      await eventually('it is live', () => node2.of(node1)?.state === 'live')
      const apply = node2.host.apply.bind(node2.host)
      let isFirst = true
      node2.host.apply = async (batch) => {
        if (!isFirst || batch.transactions.length === 0) return apply(batch)
        isFirst = false
        if (fault === 'commit late') await late.pass()
        await apply(batch)
        if (fault === 'commit then reject') throw new Error('connection lost while committing')
      }
      const applied: number[] = []
      node2.cluster.on('replication:applied', ({ transactions }) => void applied.push(transactions))
      await node1.write(['one'])
      if (fault === 'commit late') {
        await late.reached
        await clock.advance(31_000)
        await eventually('it is overdue', () => /has not answered/.test(node2.of(node1).error ?? ''))
        late.open()
      }
      await eventually('it is applied', () => applied.length === 1)
      await node1.write(['two'])
      await eventually('the next one is applied', () => applied.length === 2)
      assert.deepEqual(node2.host.applied, ['one', 'two'])
      assert.deepEqual([applied, node2.cluster.metrics()!.apply.applied], [[1, 1], 2])
    })
})
