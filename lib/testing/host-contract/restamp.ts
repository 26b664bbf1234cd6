// The host contract: rewriting timestamps of the future, and transactions that void timestamps, of hosts
// that implement `restamp`.

import assert from 'node:assert/strict'
import type { VoidedRange } from '../../host/host.ts'
import { HybridClock, wallTimeOf } from '../../host/hybrid-clock.ts'
import { Restamp } from '../../host/restamp.ts'
import { at, dog, type HostCase, type HostScene, insert, remove, update, upsert } from './scene.ts'

/** ms after the fixed start of `at`: the present, and a time that is too far in the future. */
const NOW = 1_000_000
const FUTURE = 9_000_000
const DRIFT_MS = 1_000

const presentTime = wallTimeOf(at(NOW))

async function restamp({ host }: HostScene): Promise<Restamp> {
  const plan = new Restamp({
    node: 'node1',
    limit: presentTime + DRIFT_MS,
    highest: at(FUTURE + 1_000, 'node1'),
    createClock: () => new HybridClock('node1', DRIFT_MS, () => presentTime),
  })
  await host.restamp!(plan)
  return plan
}

export const restampCases: Record<string, HostCase> = {
  'restamp keeps the records, and later writes win over them': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }))
    await scene.apply(at(FUTURE, 'node1'), update({ id: 1, age: 4 }))
    await scene.apply(at(FUTURE, 'node1'), upsert({ id: 2, name: 'Ida' }))
    await scene.apply(at(FUTURE, 'node1'), remove(3))
    const { result } = await restamp(scene)
    assert.equal(result!.rows.length, 3)
    await scene.has({ id: 1, name: 'Rex', age: 4 })
    await scene.has({ id: 2, name: 'Ida' }, 2)
    await scene.has(undefined, 3)
    await scene.apply(at(NOW - 1), upsert({ id: 2, name: 'older' }))
    await scene.apply(at(NOW - 1), upsert({ id: 3, name: 'older' }))
    await scene.has({ name: 'Ida' }, 2)
    await scene.has(undefined, 3)
    await scene.apply(at(NOW + 500), update({ id: 1, age: 5 }), upsert({ id: 2, name: 'newer' }))
    await scene.has({ name: 'Rex', age: 5 })
    await scene.has({ name: 'newer' }, 2)
  },
  'restamp returns the last timestamp to the present, and has nothing to do the second time': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(FUTURE, 'node1'), insert({ id: 1, name: 'Rex' }))
    assert.equal(await scene.host.lastTimestamp(), at(FUTURE, 'node1'))
    const { result } = await restamp(scene)
    if (scene.subject.reopen) await scene.reopen()
    assert.equal(await scene.host.lastTimestamp(), result!.lastTimestamp)
    assert.deepEqual((await restamp(scene)).result!.rows, [])
  },
  'restamp appends the rewritten rows to the outbox': async (scene) => {
    if (!scene.host.readOutbox) return
    await scene.tables(dog)
    await scene.commit('before', insert({ id: 9 }))
    await scene.apply(at(FUTURE, 'node1'), insert({ id: 1, name: 'Rex' }))
    const { result } = await restamp(scene)
    const [before, ...added] = await scene.outbox()
    assert.deepEqual(scene.named([before!]), ['before'])
    assert.deepEqual(added, result!.transactions)
    assert.deepEqual(
      added.map(({ voids }) => voids?.node),
      ['node1'],
    )
  },
  'apply of a transaction that voids timestamps wins over them, and over no others': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(FUTURE, 'node1'), upsert({ id: 1, name: 'voided' }), upsert({ id: 2, name: 'voided' }))
    await scene.apply(at(FUTURE + 1), upsert({ id: 2, name: 'other node' }))
    const voids: VoidedRange = { node: 'node1', from: at(NOW, ''), to: at(FUTURE + 10, 'node1') }
    const rewritten = scene.transaction(
      at(NOW, 'node1'),
      upsert({ id: 1, name: 'new' }),
      upsert({ id: 2, name: 'new' }),
    )
    await scene.host.apply(scene.batch([{ ...rewritten, voids }]))
    await scene.has({ name: 'new' }, 1)
    await scene.has({ name: 'other node' }, 2)
  },
}
