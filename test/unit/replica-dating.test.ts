// After a restart, the source asks its streams how long its subscribers have been behind: a few requests at once, whatever their number.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { ReplicaPositions } from '../../lib/replication/positions/replica-positions.ts'
import { TestClock } from '../../lib/testing.ts'

it('the times of many late subscribers are asked for a few at once', async () => {
  const clock = new TestClock({ stopped: true })
  const tables = Array.from({ length: 100 }, (_, index) => ({ database: 'dev', table: `t${index}` }))
  let [running, most] = [0, 0]
  const asked = new Set<string>()
  const replicas = new ReplicaPositions({
    timers: clock,
    index: { subscribersOf: () => ['node2'] },
    publisher: { endOf: () => ({ epoch: 'e', sequence: 9, index: 9 }), recentPositions: () => [] },
    session: () => 's',
    storedAt: async ({ table }) => {
      running++
      most = Math.max(most, running)
      await new Promise((resolve) => setImmediate(resolve))
      running--
      asked.add(table)
      if (table === 't0') throw new Error('no answer')
      return clock.now() - 60_000
    },
    reported: () => {},
  })
  replicas.start()
  // As after a time in which another process had the name of this node.
  replicas.close()
  replicas.start()
  const position = { epoch: 'e', sequence: 5, index: 5, session: 's' }
  replicas.accept('node2', { instance: 'i', order: 1, tables: tables.map((each) => ({ ...each, ...position })) })
  for (let turn = 0; turn < 1_000 && asked.size < tables.length; turn++) {
    await clock.advance(1_000)
    await new Promise((resolve) => setImmediate(resolve))
  }
  assert.ok(most <= 8, `${most} at once`)
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(replicas.replica({ node: 'node2', ...tables[99]! })!.lagSeconds! >= 60)
  replicas.close()
})
