// The host contract: tables, rows and their values.

import assert from 'node:assert/strict'
import { at, cat, dog, type HostCase, insert, remove, update, upsert } from './scene.ts'

export const rowCases: Record<string, HostCase> = {
  'info has a version': async ({ host }) => {
    assert.equal(typeof host.info().version, 'string')
  },
  'createTable creates a table and its database, and does nothing when the table exists': async (scene) => {
    await scene.tables(dog, cat)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }))
    await scene.tables(dog)
    await scene.has({ id: 1, name: 'Rex' })
    const described = (await scene.host.describe()).filter(({ database }) => database === 'dev')
    assert.deepEqual(described.map(({ table, primaryKey }) => [table, primaryKey]).sort(), [
      ['cat', 'id'],
      ['dog', 'id'],
    ])
    for (const { attributes } of described)
      for (const name of ['id', 'name'])
        assert.ok(Array.isArray(attributes) && attributes.includes(name), `describe names the attribute '${name}'`)
  },
  'apply inserts, updates, upserts and deletes': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }), insert({ id: 2, name: 'Ida' }))
    await scene.has({ id: 1, name: 'Rex', age: 3 })
    await scene.apply(at(2), update({ id: 1, age: 4 }))
    await scene.has({ id: 1, name: 'Rex', age: 4 })
    await scene.apply(at(3), upsert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
    await scene.lacks('age')
    await scene.apply(at(4), remove(1))
    await scene.has(undefined)
    await scene.has({ id: 2, name: 'Ida' }, 2)
  },
  'a transaction may write several tables': async (scene) => {
    await scene.tables(dog, cat)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }), insert({ id: 1, name: 'Tom' }, cat))
    await scene.has({ id: 1, name: 'Rex' })
    await scene.has({ id: 1, name: 'Tom' }, 1, cat)
  },
  'an update of a missing record inserts it': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), update({ id: 1, name: 'Rex' }))
    await scene.has({ id: 1, name: 'Rex' })
  },
  'the writes of a transaction are applied in order': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }), remove(1), insert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
  },
  'apply counts the rows that are different now, if it counts them': async (scene) => {
    await scene.tables(dog)
    const first = scene.batch([
      scene.transaction(at(2), insert({ id: 1, name: 'Rex' }), insert({ id: 2 })),
      scene.transaction(at(3), update({ id: 1, age: 4 }), remove(3)),
    ])
    const second = scene.batch([scene.transaction(at(1), upsert({ id: 1, name: 'older' }), upsert({ id: 4 }))])
    const counts: number[] = []
    for (const batch of [first, first, second]) {
      const { changedRows, ignoredWrites = 0 } = (await scene.host.apply(batch)) ?? {}
      assert.equal(ignoredWrites, 0, 'no write is ignored without a horizon')
      if (changedRows !== undefined) counts.push(changedRows)
    }
    if (counts.length > 0) assert.deepEqual(counts, [3, 0, 1], 'changed rows of two batches and a repeated one')
  },
  'numbers and strings are different keys': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'number' }), insert({ id: '1', name: 'text' }))
    await scene.has({ name: 'number' }, 1)
    await scene.has({ name: 'text' }, '1')
  },
  'values are stored unchanged': async (scene) => {
    await scene.tables(dog)
    const record = {
      id: 1,
      text: 'ä 𝄞 \u0000 "',
      none: null,
      no: false,
      real: 0.1,
      big: 2 ** 53 - 1,
      list: [1, [2, {}]],
      deep: { a: { b: [] } },
    }
    await scene.apply(at(1), insert(record))
    await scene.has(record)
  },
  'dates, bytes and integers beyond 2^53 are stored unchanged': async (scene) => {
    await scene.tables(dog)
    const bytes = Uint8Array.of(0, 255, 128)
    const record = { id: 1, at: new Date(1_700_000_000_123), big: 2n ** 60n, bytes }
    await scene.apply(at(1), insert(record))
    if (scene.subject.reopen) await scene.reopen()
    await scene.has({ at: record.at, big: record.big })
    const stored = (await scene.subject.read('dev', 'dog', 1))?.bytes
    assert.ok(stored instanceof Uint8Array, 'bytes are a Uint8Array')
    assert.deepEqual([...stored], [...bytes])
  },
}
