// What a subscriber reports to its sources, and what a source takes: reports that are refused, late, replayed, or not compared with the stream.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { stateIn } from '../../lib/replication/positions/applied-state.ts'
import type { PositionReport, PositionReports } from '../../lib/replication/positions/position-report.ts'
import { PositionReporter } from '../../lib/replication/positions/position-reporter.ts'
import { ReplicaPositions } from '../../lib/replication/positions/replica-positions.ts'
import { eventually, TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }
const report = (table: typeof dog, index: number): PositionReport => ({
  ...{ ...table, epoch: 'e', sequence: index, index },
  session: 'first',
})

describe('a subscriber', { timeout: 30_000 }, () => {
  function reporter(refuses: (table: string) => boolean) {
    const clock = new TestClock({ stopped: true })
    const sent: PositionReports[] = []
    const index = { dog: 1, cat: 1 }
    const created = new PositionReporter({
      timers: clock,
      sources: () => [dog, cat].map((table) => ({ node: 'node1', ...table })),
      report: ({ table }) => report({ database: 'dev', table }, index[table as 'dog' | 'cat']),
      isUp: () => true,
      send: async (_, reports) => {
        sent.push(reports)
        return reports.tables.filter(({ table }) => refuses(table))
      },
    })
    const tablesSent = () => sent.splice(0).map(({ tables }) => tables.map(({ table }) => table))
    return { clock, created, index, sent, tablesSent }
  }

  it('reports other tables at once, while the source does not publish one of them yet', async () => {
    let isRefused = true
    const { clock, created, index, sent, tablesSent } = reporter((table) => isRefused && table === 'cat')
    created.start()
    await clock.advance(60_000)
    const attempts = tablesSent()
    assert.deepEqual(attempts[0], ['dog', 'cat'])
    assert.ok(attempts.length > 3 && attempts.length < 15, `${attempts.length} attempts`)
    created.watch('node1', [dog])
    await eventually('it is answered', () => sent.length > 0)
    tablesSent()
    for (let next = 2; next < 12; next++) {
      index.dog = next
      created.mark({ node: 'node1', ...dog })
      created.mark({ node: 'node1', ...cat })
      await eventually('the change is reported at once', () => sent.length > 0)
      assert.deepEqual(tablesSent(), [['dog']])
    }
    isRefused = false
    await clock.advance(60_000)
    assert.ok(tablesSent().some((tables) => tables.includes('cat')))
    await clock.advance(60_000)
    assert.deepEqual(tablesSent(), [])
    created.close()
  })
})

describe('a source', () => {
  function source() {
    const clock = new TestClock({ stopped: true })
    const stream = { epoch: 'e', sequence: 5, index: 5 }
    const server = { session: 'first' }
    const previous: (number | undefined)[] = []
    const replicas = new ReplicaPositions({
      timers: clock,
      index: { subscribersOf: () => ['node2'] },
      publisher: {
        endOf: () => stream,
        recentPositions: () => [],
      },
      storedAt: async () => undefined,
      session: () => server.session,
      reported: (_, __, before) => void previous.push(before?.position.index),
    })
    let order = 0
    const take = (instance: string, position: PositionReport, at = ++order) =>
      replicas.accept('node2', { instance, order: at, tables: [position] })
    const applied = () => replicas.reportOf({ node: 'node2', ...dog })?.position.index
    return { clock, server, replicas, take, applied, previous }
  }

  it('believes no position that was not compared with the stream in the present session of its servers', () => {
    const { server, take, applied, previous, replicas } = source()
    take('one', { ...report(dog, 3), session: '' })
    assert.equal(applied(), undefined)
    take('one', report(dog, 4))
    assert.equal(applied(), 4)
    take('one', report(dog, 5))
    // Database and stream may be restored together: they have the same epoch.
    server.session = 'second'
    assert.equal(applied(), undefined)
    take('one', { ...report(dog, 5), session: 'first' })
    assert.equal(applied(), undefined)
    assert.equal(replicas.replicas(dog)[0]!.appliedIndex, 5)
    take('one', { ...report(dog, 2), session: 'second' })
    assert.equal(applied(), 2)
    assert.deepEqual(previous, [undefined, 4, undefined])
  })

  it('takes no report of an earlier process, unless that runs on', async () => {
    const { clock, take, applied } = source()
    assert.deepEqual(take('one', report(dog, 2)), [])
    assert.deepEqual(take('two', report(dog, 3)), [])
    assert.deepEqual(take('one', report(dog, 1)), [dog])
    assert.equal(applied(), 3)
    await clock.advance(61_000)
    assert.deepEqual(take('one', report(dog, 4)), [])
    assert.equal(applied(), 4)
  })

  it('does not count what a copy still brings to a subscriber that began behind messages which are gone', () => {
    const { take, replicas } = source()
    const uncounted = { ...report(dog, 5), index: 0 }
    const state = (index: number) => stateIn(replicas.reportOf({ node: 'node2', ...dog })!.position, 'e', index)
    take('one', { ...uncounted, isCopying: true })
    assert.deepEqual([state(1), state(5), state(6)], ['copying', 'copying', 'ahead'])
    take('one', { ...report(dog, 6), copying: [[1, 5]], isCopying: true })
    assert.deepEqual([state(5), state(6)], ['copying', 'applied'])
    take('one', { ...uncounted, sequence: 6 })
    assert.equal(state(5), 'applied')
  })
})
