// What cluster_status shows of a subscription that is not in step with its source.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { problemOf } from '../../lib/cluster/subscription-problem.ts'
import type { SubscriptionStatus } from '../../lib/replication/subscribe/subscription-status.ts'

const status = (fields: Partial<SubscriptionStatus>) => fields as SubscriptionStatus
const copy = { reason: 'initial' as const, rows: 1_200 }

it('a copy is shown with the rows so far, or with what it waits for', () => {
  assert.deepEqual(problemOf(status({ state: 'copying', copy }), undefined), {
    state: 'copying',
    reason: '1200 rows copied so far (initial)',
  })
  assert.deepEqual(problemOf(status({ state: 'copying', copy, error: 'the source is busy' }), undefined), {
    state: 'copying',
    reason: 'the source is busy',
  })
})

it('a subscription in step has nothing to show, a refusal comes first', () => {
  assert.equal(problemOf(status({ state: 'live' }), undefined), undefined)
  const refusal = { state: 'refused' as const, reason: 'no such table' }
  assert.deepEqual(problemOf(status({ state: 'copying', copy }), refusal), refusal)
})

it('a stale subscription is shown when nothing else is', () => {
  const stale = { staleSince: Date.UTC(2026, 0, 2) }
  assert.equal(problemOf(status({ state: 'copying', copy, ...stale }), undefined)?.state, 'copying')
  assert.match(
    problemOf(status({ state: 'live', ...stale }), undefined)?.reason ?? '',
    /since 2026-01-02T00:00:00.000Z/,
  )
})
