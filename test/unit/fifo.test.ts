// A queue of many: what is taken leaves in order, and is held no longer.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { TableMap } from '../../lib/mesh/table-map.ts'
import { Fifo } from '../../lib/util/fifo.ts'

it('a queue gives what it was given, however long it is and whenever it is cut', () => {
  const queue = new Fifo<number>()
  let [given, taken] = [0, 0]
  for (let round = 1; round <= 50; round++) {
    for (let count = 0; count < round * 100; count++) queue.push(given++)
    assert.equal(queue.at(0), taken)
    assert.equal(queue.at(queue.length - 1), given - 1)
    assert.equal(queue.at(queue.length), undefined)
    for (let count = 0; count < round * 90; count++) assert.equal(queue.shift(), taken++)
    assert.equal(queue.length, given - taken)
  }
  while (queue.length > 0) assert.equal(queue.shift(), taken++)
  assert.equal(taken, given)
  assert.equal(queue.shift(), undefined)
  assert.equal(queue.length, 0)
})

it('a map of tables tells apart what only looks alike, and asks once for what is not there', () => {
  const map = new TableMap<string | undefined>()
  const asked: string[] = []
  const make = ({ database, table }: { database: string; table: string }) => {
    asked.push(`${database} ${table}`)
    return table === 'none' ? undefined : `${database} ${table}`
  }
  for (let round = 0; round < 2; round++) {
    assert.equal(map.get({ database: 'a', table: 'b.c' }, make), 'a b.c')
    assert.equal(map.get({ database: 'a.b', table: 'c' }, make), 'a.b c')
    assert.equal(map.get({ database: 'constructor', table: '__proto__' }, make), 'constructor __proto__')
    assert.equal(map.get({ database: 'a', table: 'none' }, make), undefined)
  }
  assert.equal(asked.length, 4)
  map.set({ database: 'a', table: 'b.c' }, 'another')
  assert.deepEqual([...map.values()], ['another', undefined, 'a.b c', 'constructor __proto__'])
})
