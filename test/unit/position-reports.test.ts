// What a subscriber reports to its sources, and what a source takes: reports that are refused, late, replayed, or beyond the stream.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { PositionReport, PositionReports } from '../../lib/replication/positions/position-report.ts'
import { PositionReporter } from '../../lib/replication/positions/position-reporter.ts'
import { eventually, TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }
const report = (table: typeof dog, index: number): PositionReport => ({ ...table, epoch: 'e', sequence: index, index })

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
