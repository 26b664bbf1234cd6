// The host contract: tombstones that are dropped, and the horizon below which no write brings an absent row back, of hosts that
// implement `horizon`.

import assert from 'node:assert/strict'
import type { Batch } from '../../host/host.ts'
import { at, cat, dog, type HostCase, type HostScene, insert, remove, timestampsOf, update, upsert } from './scene.ts'

const raise = (scene: HostScene, time: number, more: Partial<Batch> = {}) =>
  scene.host.apply(scene.batch([], { horizon: at(time), ...more }))

export const horizonCases: Record<string, HostCase> = {
  'a horizon is stored with its batch, and never gets lower': async (scene) => {
    await scene.tables(dog, cat)
    assert.equal(await scene.host.horizon!(dog), undefined)
    await scene.apply(at(1), insert({ id: 1 }))
    assert.equal(await scene.host.horizon!(dog), undefined)
    await raise(scene, 50)
    await raise(scene, 40)
    await scene.apply(at(60), insert({ id: 2 }))
    assert.equal(await scene.host.horizon!(dog), at(50))
    await raise(scene, 60)
    if (scene.subject.reopen) await scene.reopen()
    assert.equal(await scene.host.horizon!(dog), at(60))
    assert.equal(await scene.host.horizon!(cat), undefined, 'each table has a separate horizon')
    const missing = { database: 'dev', table: 'table_that_is_not_there' }
    const batch = scene.batch([scene.transaction(at(1), insert({ id: 1 }, missing))], { horizon: at(70) })
    await assert.rejects(async () => scene.host.apply(batch))
    assert.equal(await scene.host.horizon!(dog), at(60), 'a rejected batch does not change it')
  },
  'a write at or below the horizon to an absent row is ignored, and counted': async (scene) => {
    await scene.tables(dog, cat)
    await raise(scene, 50)
    const writes = [insert({ id: 1 }), update({ id: 1, name: 'Rex' }), upsert({ id: 1 }), remove(1)]
    const old = writes.map((write) => scene.transaction(at(40), write))
    const batch = scene.batch([...old, scene.transaction(at(50), insert({ id: 1 }), insert({ id: 2 }))])
    const result = await scene.host.apply(batch)
    for (const id of [1, 2]) await scene.has(undefined, id)
    if (scene.host.readRows) assert.deepEqual(await scene.rows(), [], 'not even a tombstone is stored')
    assert.deepEqual(await scene.host.loadCheckpoint(batch.source), batch.checkpoint, 'the checkpoint is stored')
    if (result?.ignoredWrites !== undefined) assert.equal(result.ignoredWrites, 6)
    if (result?.changedRows !== undefined) assert.equal(result.changedRows, 0)
    await scene.apply(at(51), insert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
    await scene.apply(at(1), insert({ id: 1, name: 'cat' }, cat))
    await scene.has({ name: 'cat' }, 1, cat)
  },
  'rows and tombstones that exist take writes below the horizon': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(10), insert({ id: 1, name: 'Rex' }), insert({ id: 2 }), remove(3))
    await raise(scene, 50)
    await scene.apply(at(20), update({ id: 1, name: 'Max' }), remove(2), insert({ id: 3, name: 'Ida' }))
    await scene.has({ id: 1, name: 'Max' })
    await scene.has(undefined, 2)
    await scene.has({ id: 3, name: 'Ida' }, 3)
  },
  'acceptOld passes the horizon': async (scene) => {
    await scene.tables(dog)
    await raise(scene, 50)
    const old = scene.transaction(at(10), insert({ id: 1, name: 'Rex' }), remove(2))
    const result = await scene.host.apply(scene.batch([old], { acceptOld: true }))
    await scene.has({ id: 1, name: 'Rex' })
    if (result?.ignoredWrites !== undefined) assert.equal(result.ignoredWrites, 0)
    await scene.apply(at(9), insert({ id: 1, name: 'older' }), insert({ id: 2 }), insert({ id: 3 }))
    await scene.has({ id: 1, name: 'Rex' })
    for (const id of [2, 3]) await scene.has(undefined, id)
  },
  'the horizon of a batch does not hold for its own writes': async (scene) => {
    await scene.tables(dog)
    const batch = scene.batch([scene.transaction(at(10), insert({ id: 1, name: 'Rex' }))], { horizon: at(50) })
    await scene.host.apply(batch)
    await scene.has({ id: 1, name: 'Rex' })
    await scene.apply(at(10), insert({ id: 2 }))
    await scene.has(undefined, 2)
  },
}

export const tombstoneCases: Record<string, HostCase> = {
  'a delete does not come undone when its tombstone is dropped': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(10), insert({ id: 1, name: 'Rex' }), insert({ id: 2 }), insert({ id: 3 }), insert({ id: 4 }))
    await scene.apply(at(20), remove(1))
    await scene.apply(at(40), remove(2))
    await scene.apply(at(15), remove(3))
    await scene.apply(at(30), update({ id: 3, name: 'newer' }))
    const { dropTombstones } = scene.subject
    await dropTombstones!.call(scene.subject, dog.database, dog.table, at(5))
    assert.equal(await scene.host.horizon!(dog), undefined, 'no tombstone is dropped, so there is no horizon')
    await dropTombstones!.call(scene.subject, dog.database, dog.table, at(40))
    if (scene.subject.reopen) await scene.reopen()
    assert.equal(await scene.host.horizon!(dog), at(20), 'the highest timestamp of a dropped tombstone')
    assert.equal(await scene.row(1), undefined, 'the tombstone is dropped')
    assert.deepEqual(timestampsOf((await scene.row(2))!), { timestamp: at(40), updated: {} }, 'a later one stays')
    assert.ok((await scene.row(4))?.record, 'an old record is no tombstone')
    await scene.has({ name: 'newer' }, 3)
    for (const write of [insert({ id: 1, name: 'old' }), update({ id: 1, name: 'old' }), upsert({ id: 1 })])
      await scene.apply(at(12), write)
    await scene.has(undefined, 1)
    // The copy of a node that was away for long, as a repair.
    const stale = { timestamp: at(10), record: { id: 1, name: 'Rex' }, updated: { name: at(18) } }
    await scene.host.apply(scene.copy([{ key: 1, row: stale }], { acceptOld: false }))
    await scene.has(undefined, 1)
    await scene.apply(at(21), insert({ id: 1, name: 'again' }))
    await scene.has({ id: 1, name: 'again' })
  },
}

export const droppedHorizonCases: Record<string, HostCase> = {
  'dropping a table removes its horizon, and no others': async (scene) => {
    await scene.tables(dog, cat)
    await raise(scene, 50)
    await raise(scene, 50, { source: { node: 'node2', ...cat } })
    await scene.subject.dropTable!(dog.database, dog.table)
    await scene.tables(dog)
    if (scene.subject.reopen) await scene.reopen()
    assert.equal(await scene.host.horizon!(dog), undefined)
    assert.equal(await scene.host.horizon!(cat), at(50))
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }))
    await scene.has({ id: 1, name: 'Rex' })
  },
}
