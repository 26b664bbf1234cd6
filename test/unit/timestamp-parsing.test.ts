// The time of a timestamp is read by characters: exactly the texts of the format have one.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makeTimestamp, wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import fc from '../support/properties.ts'

const format = /^[0-9a-f]{12}-[0-9a-f]{6}-./

const expected = (text: string): number => (format.test(text) ? Number.parseInt(text.slice(0, 12), 16) : Number.NaN)

test('texts with one changed character are timestamps exactly if they have the format', () => {
  const valid = makeTimestamp(1_700_000_000_000, 1, 'node1')
  assert.equal(wallTimeOf(valid), 1_700_000_000_000)
  const characters = [...'0 9afgAF/:`@-.\n\r\u2028\u2029é', '']
  for (let at = 0; at <= valid.length; at++)
    for (const each of characters)
      for (const text of [valid.slice(0, at) + each + valid.slice(at + 1), valid.slice(0, at) + each])
        assert.equal(wallTimeOf(text), expected(text), JSON.stringify(text))
})

test('every timestamp has the time that it was made of', () => {
  fc.assert(
    fc.property(fc.nat({ max: 8.64e15 }), fc.nat({ max: 0xffffff }), fc.string(), (time, counter, node) => {
      const text = makeTimestamp(time % 2 ** 48, counter, node)
      assert.equal(wallTimeOf(text), expected(text))
    }),
  )
})
