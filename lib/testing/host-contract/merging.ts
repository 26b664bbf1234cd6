// The host contract: the last writer wins, attribute by attribute, in any order of arrival.

import type { Write } from '../../host/host.ts'
import { at, dog, type HostCase, insert, remoteTable, remove, update, upsert } from './scene.ts'

export const mergeCases: Record<string, HostCase> = {
  'an older insert or upsert does not undo a newer one': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(2), upsert({ id: 1, name: 'new' }))
    await scene.apply(at(1), upsert({ id: 1, name: 'old' }))
    await scene.apply(at(1), insert({ id: 1, name: 'old' }))
    await scene.has({ id: 1, name: 'new' })
  },
  'equal times are decided by the node name, in any order of arrival': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1, 'node3'), upsert({ id: 1, name: 'node3' }))
    await scene.apply(at(1, 'node2'), upsert({ id: 1, name: 'node2' }))
    await scene.apply(at(1, 'node2'), upsert({ id: 2, name: 'node2' }))
    await scene.apply(at(1, 'node3'), upsert({ id: 2, name: 'node3' }))
    await scene.has({ name: 'node3' }, 1)
    await scene.has({ name: 'node3' }, 2)
  },
  'a delete wins over older writes that arrive later, also for a record that never existed': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(5), remove(1))
    await scene.apply(at(4), insert({ id: 1, name: 'Rex' }))
    await scene.apply(at(3), update({ id: 1, name: 'Rex' }))
    await scene.has(undefined)
    await scene.apply(at(6), insert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
  },
  'a tombstone stays: after later batches, and after an older delete of the same record': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(10), insert({ id: 1, name: 'Rex' }))
    await scene.apply(at(20), remove(1))
    await scene.apply(at(15), remove(1))
    for (let id = 100; id < 300; id++) await scene.apply(at(id), insert({ id }), remove(id))
    await scene.host.deleteCheckpoint(remoteTable('node2'))
    await scene.apply(at(16), insert({ id: 1, name: 'Rex' }))
    await scene.apply(at(17), update({ id: 1, name: 'Rex' }))
    await scene.apply(at(18), upsert({ id: 1, name: 'Rex' }))
    await scene.has(undefined)
    await scene.apply(at(21), upsert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
  },
  'an older delete does not undo a newer write': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(2), insert({ id: 1, name: 'Rex' }))
    await scene.apply(at(1), remove(1))
    await scene.has({ id: 1, name: 'Rex' })
  },
  'updates of different attributes both survive, in any order of arrival': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }))
    await scene.apply(at(3), update({ id: 1, age: 4 }))
    await scene.apply(at(2), update({ id: 1, name: 'Max', age: 9 }))
    await scene.has({ id: 1, name: 'Max', age: 4 })
  },
  'an older insert that arrives late sets the attributes that newer updates did not set': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(2), update({ id: 1, age: 4 }))
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }))
    await scene.has({ id: 1, name: 'Rex', age: 4 })
  },
  'every order of arrival gives the same record': async (scene) => {
    await scene.tables(dog)
    const writes: [number, Write][] = [
      [1, insert({ id: 0, a: 1, b: 1, c: 1 })],
      [2, update({ id: 0, a: 2, b: 2 })],
      [3, remove(0)],
      [4, update({ id: 0, c: 4 })],
      [5, upsert({ id: 0, b: 5 })],
      [6, update({ id: 0, a: 6 })],
    ]
    const orders = permutations(writes.map((_, index) => index)).filter((_, index) => index % 24 === 0)
    for (const [number, order] of orders.entries()) {
      const key = 100 + number
      for (const index of order) {
        const [time, write] = writes[index]!
        const mine: Write =
          write.operation === 'delete'
            ? { ...write, ids: [key] }
            : { ...write, records: write.records.map((each) => ({ ...each, id: key })) }
        await scene.apply(at(time), mine)
      }
      await scene.has({ id: key, a: 6, b: 5 }, key)
      await scene.lacks('c', key)
    }
  },
}

const permutations = <T>(items: readonly T[]): T[][] =>
  items.length < 2
    ? [[...items]]
    : items.flatMap((item, index) => permutations(items.toSpliced(index, 1)).map((rest) => [item, ...rest]))
