// The host contract: reading the rows of a table with their timestamps, of hosts that implement `readRows`.

import assert from 'node:assert/strict'
import type { KeyedRow, PrimaryKey } from '../../host/host.ts'
import { manyRows, REPETITIONS, storedSequence, whenVisible } from './atomicity.ts'
import { at, cat, dog, type HostCase, type HostScene, insert, remove, timestampsOf, update, upsert } from './scene.ts'

const ROWS = 40
/** Begins with the name of another table. */
const dogs = { database: 'dev', table: 'dogs' }

const nameOf = (key: PrimaryKey) => `${typeof key} ${key}`
const namesOf = (rows: readonly KeyedRow[]) => rows.map(({ key }) => nameOf(key))
const sorted = (texts: readonly string[]) => [...texts].sort()
const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

/** Rows with the keys 0 to `ROWS` - 1, in no order that a database would choose. */
async function writeRows(scene: HostScene, table = dog): Promise<void> {
  const ids = numbers(ROWS).map((index) => (index * 17) % ROWS)
  for (const id of ids) await scene.apply(at(id), insert({ id, name: `dog ${id}` }, table))
}

const KEYS: PrimaryKey[] = [
  ...[0, 1, -1.5, 1e300, 1e-300, 2 ** 53 - 1, -(2 ** 53) + 1, 10, 9],
  ...[2n ** 60n + 1n, 2n ** 60n + 2n, -(2n ** 60n) - 1n],
  ...['0', '1', '10', '9n', 'a', 'A', 'ab', 'a b', 'ä', '𝄞', '\uffff', '"[]', 'a\u0000b', 'a\u0000', 'x'.repeat(200)],
]

export const readCases: Record<string, HostCase> = {
  'readRows returns every row of the table once, in one order, in pages of any size': async (scene) => {
    await scene.tables(dog, cat, dogs)
    await writeRows(scene)
    for (const table of [cat, dogs])
      for (const id of [5, 500]) await scene.apply(at(1), insert({ id, name: 'other' }, table))
    const order = namesOf(await scene.rows())
    assert.deepEqual(sorted(order), sorted(numbers(ROWS).map(nameOf)), 'each row once')
    for (const limit of [1, 3, ROWS, 10 * ROWS])
      assert.deepEqual(namesOf(await scene.rows(dog, limit)), order, `the order with pages of ${limit}`)
    for (const id of [3, 30]) await scene.apply(at(1_000), update({ id, name: 'changed' }), remove(id + 1))
    assert.deepEqual(namesOf(await scene.rows()), order, 'the order after changes of rows')
  },
  'readRows of a table without rows returns no rows': async (scene) => {
    await scene.tables(dog, cat)
    await scene.apply(at(1), insert({ id: 1 }, cat))
    assert.deepEqual(await scene.host.readRows!(dog, { limit: 10 }), [])
    assert.deepEqual(await scene.host.readRows!(dog, { limit: 10, after: 1 }), [])
    assert.deepEqual(await scene.host.readRows!(dog, { keys: [1, 'a'] }), [])
  },
  'readRows with keys returns those rows that exist, tombstones included': async (scene) => {
    await scene.tables(dog)
    await writeRows(scene)
    await scene.apply(at(1_000), remove(7), remove(900))
    const rows = await scene.host.readRows!(dog, { keys: [900, 3, 'a', '3', 7, 901, 2n ** 60n + 1n] })
    assert.deepEqual(sorted(namesOf(rows)), sorted([3, 7, 900].map(nameOf)))
    for (const { key, row } of rows) assert.equal(row.record?.name, key === 3 ? 'dog 3' : undefined)
    assert.deepEqual(await scene.host.readRows!(dog, { keys: [] }), [])
  },
  'readRows returns the timestamps of rows, tombstones and attributes': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }))
    await scene.apply(at(5), update({ id: 1, age: 5 }))
    await scene.apply(at(3), update({ id: 1, size: 2 }))
    await scene.apply(at(2), remove(2))
    await scene.apply(at(4), update({ id: 3, name: 'Ida' }))
    await scene.apply(at(1), insert({ id: 4, name: 'Max' }))
    await scene.apply(at(9), update({ id: 4, age: 9 }))
    await scene.apply(at(6), remove(4))
    const rows = new Map((await scene.rows()).map(({ key, row }) => [key, row]))
    const has = (key: number, record: object | undefined, timestamp: string, updated = {}) => {
      const row = rows.get(key)
      assert.ok(row, `row ${key}`)
      assert.deepEqual(timestampsOf(row), { timestamp, updated }, `timestamps of row ${key}`)
      if (!record) return assert.equal(row.record, undefined, `row ${key} is a tombstone`)
      for (const [name, value] of Object.entries(record))
        assert.deepEqual(row.record?.[name], value, `attribute ${name} of row ${key}`)
    }
    has(1, { id: 1, name: 'Rex', age: 5, size: 2 }, at(1), { age: at(5), size: at(3) })
    has(2, undefined, at(2))
    has(3, { id: 3, name: 'Ida' }, '', { name: at(4) })
    has(4, { age: 9 }, at(6), { age: at(9) })
    assert.ok([null, undefined].includes(rows.get(4)?.record?.name as null), 'the delete removes what is older')
  },
  'readRows returns values unchanged': async (scene) => {
    await scene.tables(dog)
    const bytes = Uint8Array.of(0, 255, 128)
    const record = { id: 1, at: new Date(1_700_000_000_123), big: 2n ** 60n, text: 'ä \u0000', deep: [{ a: [true] }] }
    await scene.apply(at(1), insert({ ...record, bytes }))
    const [found] = await scene.rows()
    for (const [name, value] of Object.entries(record)) assert.deepEqual(found?.row.record?.[name], value, name)
    assert.ok(found?.row.record?.bytes instanceof Uint8Array, 'bytes are a Uint8Array')
    assert.deepEqual([...found.row.record.bytes], [...bytes])
  },
  'readRows returns every kind of primary key, and continues after it': async (scene) => {
    await scene.tables(dog)
    for (const [index, id] of KEYS.entries()) await scene.apply(at(index), insert({ id, name: nameOf(id) }))
    const rows = await scene.rows(dog, 1_000)
    assert.deepEqual(sorted(namesOf(rows)), sorted(KEYS.map(nameOf)))
    for (const { key, row } of rows) assert.deepEqual([row.record?.id, row.record?.name], [key, nameOf(key)])
    assert.deepEqual(namesOf(await scene.rows(dog, 1)), namesOf(rows))
    for (const [index, { key }] of rows.entries()) {
      const rest = namesOf(await scene.host.readRows!(dog, { after: key, limit: 1_000 }))
      const expected = namesOf(rows.slice(index + 1))
      assert.deepEqual(rest, expected.slice(0, rest.length), `after ${nameOf(key)}`)
      if (expected.length > 0) assert.ok(rest.length > 0, `a page after ${nameOf(key)} is empty`)
      assert.deepEqual(namesOf(await scene.host.readRows!(dog, { keys: [key] })), [nameOf(key)])
    }
  },
  'readRows sees what is committed when it is called, also between two pages': async (scene) => {
    await scene.tables(dog)
    await writeRows(scene)
    const order = (await scene.rows()).map(({ key }) => key as number)
    const [changed, deleted, local] = [order[ROWS - 1]!, order[ROWS - 2]!, order[ROWS - 3]!]
    const found = await scene.host.readRows!(dog, { limit: 10 })
    const changes = [
      update({ id: changed, name: 'changed' }),
      remove(deleted),
      update({ id: order[0]!, name: 'changed' }),
    ]
    await scene.apply(at(1_000), ...changes)
    for (let id = 1_000; id < 1_005; id++) await scene.apply(at(id), insert({ id, name: 'new' }))
    await scene.subject.commit?.([upsert({ id: local, name: 'changed' })], at(1_000, 'node1'))
    found.push(...(await scene.rows(dog, 10, found.at(-1)?.key)))
    const stayed = found.filter(({ key }) => (key as number) < ROWS)
    assert.deepEqual(
      stayed.map(({ key }) => key),
      order,
      'rows that stay are read once, in the same order',
    )
    const nameNow = (key: number) => found.find((each) => each.key === key)!.row.record?.name
    assert.equal(nameNow(changed), 'changed')
    assert.equal(nameNow(deleted), undefined)
    if (scene.subject.commit) assert.equal(nameNow(local), 'changed')
    const names = namesOf(found)
    assert.equal(new Set(names).size, names.length, 'no row is read twice')
    assert.equal((await scene.row(order[0]!))?.record?.name, 'changed')
    const all = namesOf(await scene.rows())
    assert.equal(all.length, ROWS + 5, 'new rows are read')
  },
  'readRows never shows a part of a batch, nor rows without their checkpoint': async (scene) => {
    await scene.tables(dog)
    for (let round = 1; round <= REPETITIONS; round++) {
      const { batch, keys } = manyRows(scene, round)
      await whenVisible(
        () => scene.host.apply(batch),
        async () => (await scene.host.readRows!(dog, { keys: [keys[0]!] })).length > 0,
        async () => {
          const message = 'readRows returns committed rows only'
          assert.equal(await storedSequence(scene), round, message)
          assert.equal((await scene.host.readRows!(dog, { keys })).length, keys.length, message)
        },
      )
    }
  },
  'rows that two databases copy from each other end equal, timestamps included': async (scene) => {
    const other = await scene.another()
    for (const each of [scene, other]) await each.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }), insert({ id: 2, name: 'Ida' }))
    await scene.apply(at(9), update({ id: 1, size: 9 }), update({ id: 3, name: 'Max' }))
    await scene.apply(at(5), remove(2), remove(4))
    await other.apply(at(5, 'node3'), update({ id: 1, name: 'Bo' }), insert({ id: 2, age: 7 }))
    await other.apply(at(4, 'node3'), insert({ id: 3, name: 'Kim', age: 1 }), insert({ id: 4, name: 'gone' }))
    const [rows, others] = [await scene.rows(), await other.rows()]
    await scene.host.apply(scene.copy(others))
    await other.host.apply(other.copy(rows))
    assert.deepEqual(await comparable(other), await comparable(scene))
    for (const each of [scene, other]) {
      await each.has({ id: 1, name: 'Bo', age: 3, size: 9 }, 1)
      await each.has({ id: 2, age: 7 }, 2)
      await each.has({ id: 3, name: 'Max', age: 1 }, 3)
      await each.has(undefined, 4)
    }
  },
}

/** All rows by key, without attributes that the database adds. */
export async function comparable(scene: HostScene): Promise<unknown[]> {
  const rows = (await scene.rows()).map(({ key, row }) => {
    const record = row.record && ['id', 'name', 'age', 'size'].map((name) => row.record?.[name] ?? null)
    return { key, record, timestamp: row.timestamp, updated: row.updated ?? {} }
  })
  return rows.sort((a, b) => (nameOf(a.key) < nameOf(b.key) ? -1 : 1))
}

export const durableReadCases: Record<string, HostCase> = {
  'rows are read in the same order after a restart': async (scene) => {
    await scene.tables(dog)
    await writeRows(scene)
    await scene.apply(at(1_000), remove(11), update({ id: 3, name: 'changed' }))
    const before = await scene.rows()
    await scene.reopen()
    const after = await scene.rows()
    assert.deepEqual(namesOf(after), namesOf(before))
    for (const [index, { row }] of after.entries())
      assert.deepEqual(timestampsOf(row), timestampsOf(before[index]!.row), 'timestamps are the same')
    const rest = await scene.rows(dog, 7, before[9]!.key)
    assert.deepEqual(namesOf(rest), namesOf(before.slice(10)), 'reading continues after a key')
  },
}

export const droppedReadCases: Record<string, HostCase> = {
  'a table that is dropped and created again has no rows to read': async (scene) => {
    await scene.tables(dog, cat)
    await writeRows(scene)
    await scene.apply(at(1_000), remove(1))
    await scene.apply(at(1), insert({ id: 1, name: 'other' }, cat))
    await scene.subject.dropTable!(dog.database, dog.table)
    await scene.tables(dog)
    assert.deepEqual(await scene.rows(), [])
    assert.equal((await scene.rows(cat)).length, 1)
  },
}

export const goneRowCases: Record<string, HostCase> = {
  'readRows continues after a row that is gone, and omits dropped tombstones': async (scene) => {
    await scene.tables(dog)
    await writeRows(scene)
    const order = (await scene.rows()).map(({ key }) => key as number)
    for (const index of [9, 10, 20]) await scene.apply(at(1_000), remove(order[index]!))
    assert.deepEqual(namesOf(await scene.rows()), order.map(nameOf), 'tombstones are read')
    await scene.subject.dropTombstones!(dog.database, dog.table, at(2_000))
    const rest = await scene.rows(dog, 7, order[9]!)
    const expected = order.filter((_, index) => index > 10 && index !== 20)
    assert.deepEqual(namesOf(rest), expected.map(nameOf))
    assert.deepEqual(await scene.host.readRows!(dog, { keys: [order[9]!] }), [])
  },
}
