// The queue and the map of tables.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { TableMap } from '../../lib/mesh/table-map.ts'
import { Fifo } from '../../lib/util/fifo.ts'

it('a queue keeps the order at any length, also when its ring grows', () => {
  const queue = new Fifo<number>()
  let [pushed, taken] = [0, 0]
  for (let round = 1; round <= 50; round++) {
    for (let count = 0; count < round * 100; count++) queue.push(pushed++)
    assert.equal(queue.at(0), taken)
    assert.equal(queue.at(queue.length - 1), pushed - 1)
    assert.equal(queue.at(queue.length), undefined)
    for (let count = 0; count < round * 90; count++) assert.equal(queue.shift(), taken++)
    assert.equal(queue.length, pushed - taken)
  }
  while (queue.length > 0) assert.equal(queue.shift(), taken++)
  assert.equal(taken, pushed)
  assert.equal(queue.shift(), undefined)
  assert.equal(queue.length, 0)
})

it('a map of tables separates similar names, and calls make once for a missing table', () => {
  const map = new TableMap<string | undefined>()
  const calls: string[] = []
  const make = ({ database, table }: { database: string; table: string }) => {
    calls.push(`${database} ${table}`)
    return table === 'none' ? undefined : `${database} ${table}`
  }
  for (let round = 0; round < 2; round++) {
    assert.equal(map.get({ database: 'a', table: 'b.c' }, make), 'a b.c')
    assert.equal(map.get({ database: 'a.b', table: 'c' }, make), 'a.b c')
    assert.equal(map.get({ database: 'constructor', table: '__proto__' }, make), 'constructor __proto__')
    assert.equal(map.get({ database: 'a', table: 'none' }, make), undefined)
  }
  assert.equal(calls.length, 4)
  map.set({ database: 'a', table: 'b.c' }, 'another')
  assert.deepEqual([...map.values()], ['another', undefined, 'a.b c', 'constructor __proto__'])
})
