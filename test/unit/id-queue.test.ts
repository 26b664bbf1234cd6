// A queue whose entries are found by id, compared with a list; as many ids of removed entries are remembered as it says.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { IdQueue } from '../../lib/util/id-queue.ts'
import { randomNumbers } from '../support/random.ts'

type Entry = { id: string; number: number }

it('finds entries and remembers the last that left, also when their numbers start again', () => {
  for (const name of [(number: number) => `id-${number}`, (number: number) => `${number}-with the same end`])
    for (const remembered of [0, 1, 3, 100, 1_000]) {
      const next = randomNumbers(remembered + 1)
      const queue = new IdQueue<Entry>(remembered, 2_500)
      const list: Entry[] = []
      const left: string[] = []
      for (let number = 0; number < 6_000; number++) {
        const entry = { id: name(number), number }
        assert.equal(queue.has(entry.id) || queue.remembers(entry.id), false)
        queue.push(entry)
        list.push(entry)
        // Sometimes it is empty, sometimes it has several hundreds.
        const most = number % 2_000 < 800 ? 700 : 2
        while (list.length > 0 && (list.length > most || next() < 0.2)) {
          assert.equal(queue.shift(), list[0])
          left.push(list.shift()!.id)
        }
        const some = Math.floor(next() * list.length)
        assert.equal(queue.at(some), list[some])
        if (list[some]) assert.equal(queue.get(list[some].id), list[some])
        const known = left.at(-1 - Math.floor(next() * remembered))
        if (known !== undefined && remembered > 0) assert.ok(queue.remembers(known) && !queue.has(known))
      }
      assert.equal(queue.length, list.length)
      assert.deepEqual([...queue], list)
      const last = left.length - remembered
      for (const [at, id] of left.entries()) assert.equal(queue.remembers(id), at >= last)
    }
})

it('does not remember what left unremembered', () => {
  const queue = new IdQueue<Entry>(10)
  queue.push({ id: 'rejected', number: 0 })
  queue.shift({ isRemembered: false })
  assert.equal(queue.remembers('rejected'), false)
})

it('finds the newest of two entries with the same id', () => {
  const queue = new IdQueue<Entry>(10)
  queue.push({ id: 'same', number: 1 })
  queue.shift()
  const second = { id: 'same', number: 2 }
  queue.push(second)
  assert.equal(queue.get('same'), second)
  assert.equal(queue.remembers('same'), false)
  assert.equal(queue.shift(), second)
  assert.equal(queue.remembers('same'), true)
  assert.equal(queue.shift(), undefined)
  assert.equal(queue.at(0), undefined)
})
