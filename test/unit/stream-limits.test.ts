// What an unset maximum age means: a week where rows can be copied instead, and no limit elsewhere.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { DEFAULT_MAX_AGE, effectiveLimits } from '../../lib/cluster/stream-limits.ts'

it('is 7 days for a node that serves rows, and no limit for one that does not', () => {
  assert.equal(DEFAULT_MAX_AGE, 604_800)
  assert.deepEqual(effectiveLimits({ maxMsgs: 5 }, true), { maxMsgs: 5, maxAge: DEFAULT_MAX_AGE })
  assert.deepEqual(effectiveLimits({ maxMsgs: 5 }, false), { maxMsgs: 5 })
})

it('is the number that the file has; 0 is no limit', () => {
  for (const servesRows of [true, false]) {
    assert.deepEqual(effectiveLimits({ maxAge: 60 }, servesRows), { maxAge: 60 })
    assert.deepEqual(effectiveLimits({ maxAge: 0, maxBytes: 1 }, servesRows), { maxBytes: 1 })
  }
})
