// The host contract: rows that the database stored before clustering, without timestamps, of hosts that implement `setBaseTimestamp`.

import assert from 'node:assert/strict'
import { makeTimestamp } from '../../host/hybrid-clock.ts'
import { comparable } from './rows-read.ts'
import { at, dog, type HostCase, type HostScene, remove, timestampsOf, update, upsert } from './scene.ts'

const baseOf = (node: string) => makeTimestamp(0, 0, node)

const store = (scene: HostScene, record: Record<string, unknown>) =>
  scene.subject.storeExisting!(dog.database, dog.table, record)

export const existingCases: Record<string, HostCase> = {
  'rows without timestamps have the base timestamp, also after a restart': async (scene) => {
    await scene.tables(dog)
    await store(scene, { id: 1, name: 'Rex', age: 3 })
    await scene.host.setBaseTimestamp!(baseOf('node1'))
    const expected = { timestamp: baseOf('node1'), updated: {} }
    assert.deepEqual(timestampsOf((await scene.row(1))!), expected)
    assert.deepEqual(timestampsOf((await scene.rows())[0]!.row), expected)
    await scene.has({ id: 1, name: 'Rex', age: 3 })
    if (!scene.subject.reopen) return
    await scene.reopen()
    scene.host.setBaseTimestamp!(baseOf('node1'))
    assert.deepEqual(timestampsOf((await scene.row(1))!), expected)
  },
  'any write wins over a row without a timestamp, and an update keeps its other attributes': async (scene) => {
    await scene.tables(dog)
    scene.host.setBaseTimestamp!(baseOf('node1'))
    for (const id of [1, 2, 3]) await store(scene, { id, name: 'Rex', age: 3 })
    await scene.apply(at(1), update({ id: 1, name: 'Max' }), upsert({ id: 2, name: 'Ida' }), remove(3))
    await scene.has({ id: 1, name: 'Max', age: 3 })
    await scene.has({ id: 2, name: 'Ida' }, 2)
    await scene.lacks('age', 2)
    await scene.has(undefined, 3)
    assert.deepEqual(timestampsOf((await scene.row(1))!), { timestamp: baseOf('node1'), updated: { name: at(1) } })
  },
  'a row that is updated while clustering is disabled gets the base timestamp later': async (scene) => {
    if (!scene.subject.commit) return
    await scene.tables(dog)
    await store(scene, { id: 1, name: 'Rex', age: 3 })
    await scene.subject.commit([update({ id: 1, name: 'Max' })], at(1, 'node1'))
    scene.host.setBaseTimestamp!(baseOf('node1'))
    const expected = { timestamp: baseOf('node1'), updated: { name: at(1, 'node1') } }
    assert.deepEqual(timestampsOf((await scene.row(1))!), expected)
    await scene.has({ id: 1, name: 'Max', age: 3 })
  },
  'two databases with different rows of one key copy from each other and end equal': async (scene) => {
    const other = await scene.another()
    for (const each of [scene, other]) await each.tables(dog)
    scene.host.setBaseTimestamp!(baseOf('node1'))
    other.host.setBaseTimestamp!(baseOf('node2'))
    await store(scene, { id: 1, name: 'first', age: 1 })
    await store(scene, { id: 2, name: 'only here' })
    await store(scene, { id: 4, name: 'first', age: 4 })
    await scene.apply(at(5), update({ id: 4, name: 'newer' }))
    await store(other, { id: 1, name: 'second' })
    await store(other, { id: 3, name: 'only there' })
    await store(other, { id: 4, name: 'second', age: 5 })
    const [rows, others] = [await scene.rows(), await other.rows()]
    await scene.host.apply(scene.copy(others))
    await other.host.apply(other.copy(rows))
    assert.deepEqual(await comparable(other), await comparable(scene))
    for (const each of [scene, other]) {
      await each.has({ id: 1, name: 'second' }, 1)
      await each.lacks('age', 1)
      await each.has({ id: 2, name: 'only here' }, 2)
      await each.has({ id: 3, name: 'only there' }, 3)
      await each.has({ id: 4, name: 'newer', age: 5 }, 4)
      assert.deepEqual(timestampsOf((await each.row(1))!), { timestamp: baseOf('node2'), updated: {} })
    }
  },
}
