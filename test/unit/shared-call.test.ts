// A shared call: one at a time, its result is reused for a while, and `fresh` never returns what was called for earlier.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedCall } from '../../lib/util/shared-call.ts'
import { systemTimers } from '../../lib/util/timers.ts'

function open() {
  const clock = { now: 0 }
  const answers: ((value: number) => void)[] = []
  let running = 0
  let most = 0
  const call = () => {
    most = Math.max(most, ++running)
    return new Promise<number>((resolve, reject) => {
      answers.push((value) => (value < 0 ? reject(new Error('not now')) : resolve(value)))
    }).finally(() => running--)
  }
  const shared = new SharedCall(call, { timers: { ...systemTimers, elapsed: () => clock.now }, maxAge: 1_000 })
  return { clock, answers, shared, most: () => most }
}
const turn = () => new Promise((resolve) => setImmediate(resolve))

test('callers share a call in progress, and its result until it is too old', async () => {
  const { clock, answers, shared } = open()
  const first = [shared.get(), shared.get()]
  await turn()
  answers[0]!(1)
  assert.deepEqual(await Promise.all(first), [1, 1])
  clock.now += 1_000
  assert.equal(await shared.get(), 1)
  clock.now += 1
  const second = shared.get()
  await turn()
  answers[1]!(2)
  assert.deepEqual([await second, shared.latest, answers.length], [2, 2, 2])
})

test('a fresh result is of a call that began later, which all callers of that time share', async () => {
  const { answers, shared, most } = open()
  const first = shared.get()
  await turn()
  const fresh = [shared.fresh(), shared.fresh()]
  answers[0]!(1)
  assert.equal(await first, 1)
  await turn()
  answers[1]!(2)
  assert.deepEqual(await Promise.all(fresh), [2, 2])
  assert.deepEqual([answers.length, most()], [2, 1])
})

test('an invalid result is not returned again, nor is that of a call in progress', async () => {
  const { answers, shared } = open()
  const first = shared.get()
  await turn()
  shared.invalidate()
  const second = shared.get()
  answers[0]!(1)
  assert.equal(await first, 1)
  await turn()
  answers[1]!(2)
  assert.equal(await second, 2)
})

test('a rejection reaches all callers and is not kept', async () => {
  const { answers, shared } = open()
  const calls = [shared.get(), shared.get(), shared.fresh()].map((call) => call.catch((error: Error) => error.message))
  await turn()
  answers[0]!(-1)
  await turn()
  answers[1]!(3)
  assert.deepEqual(await Promise.all(calls), ['not now', 'not now', 3])
  assert.equal(shared.latest, 3)
})
