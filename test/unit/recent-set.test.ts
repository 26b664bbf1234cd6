// At least as many of the last texts are remembered as the capacity says, at most twice as many, and nothing else is.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { RecentSet } from '../../lib/util/recent-set.ts'

it('remembers the last texts, also when their ends are equal', () => {
  for (const name of [(number: number) => `id-${number}`, (number: number) => `${number}-with the same end`])
    for (const capacity of [1, 3, 100]) {
      const set = new RecentSet(capacity)
      assert.equal(set.has(name(0)), false)
      for (let last = 0; last < 5 * capacity; last++) {
        set.add(name(last))
        for (let back = 0; back < Math.min(capacity, last + 1); back++) assert.ok(set.has(name(last - back)))
        if (last >= 2 * capacity) assert.equal(set.has(name(last - 2 * capacity)), false)
        assert.equal(set.has(name(last + 1)), false)
      }
    }
})
