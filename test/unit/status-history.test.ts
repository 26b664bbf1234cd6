// What the status page remembers: samples of ten minutes, rates, and events, all of bounded size.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { EventLog } from '../../lib/status-page/event-log.ts'
import { eventLine } from '../../lib/status-page/event-text.ts'
import { History, SAMPLE_INTERVAL_MS } from '../../lib/status-page/history.ts'
import { Monitor } from '../../lib/status-page/monitor.ts'
import type { Snapshot } from '../../lib/status-page.ts'
import { TestClock } from '../../lib/testing.ts'
import { StatusView } from '../support/status-view.ts'

const dog = { node: 'node2', database: 'dev', table: 'dog' }
const nothing = { committed: 0, applied: 0, copied: 0, lag: 0, lagSeconds: 0 }

function open(t: TestContext) {
  const clock = new TestClock({ stopped: true, start: 1_000_000 })
  const source = new StatusView()
  const monitor = new Monitor(source.view, clock)
  t.after(() => monitor.close())
  return { clock, source, monitor, snapshot: () => JSON.parse(monitor.snapshot()) as Snapshot }
}

test('samples are kept for ten minutes, oldest first, and older ones are dropped', () => {
  const history = new History()
  for (let index = 0; index < 1_000; index++)
    history.record(index * SAMPLE_INTERVAL_MS, { ...nothing, committed: index * 20, lag: index }, [])
  const { times, values } = history.node()
  assert.equal(times.length * SAMPLE_INTERVAL_MS, 600_000)
  assert.deepEqual([times[0], times.at(-1)], [700 * SAMPLE_INTERVAL_MS, 999 * SAMPLE_INTERVAL_MS])
  assert.deepEqual([values.lag[0], values.lag.at(-1), values.committed.at(-1)], [700, 999, 10])
})

test('a table has samples from when it was known, and none where it was missing; without samples it is dropped', () => {
  const history = new History()
  const record = (time: number, tables: Parameters<History['record']>[2]) =>
    history.record(time * 1_000, nothing, tables)
  record(0, [])
  record(2, [{ key: 'a', applied: 5, lag: 1 }])
  record(4, [{ key: 'a', applied: 25, lag: 2, sent: 3, sentEpoch: 'e', sentLag: 4 }])
  record(6, [])
  record(8, [{ key: 'a', applied: 26, lag: 0, sent: 1, sentEpoch: 'another' }])
  const { values } = history.table('a')!
  assert.deepEqual(values.lag, [null, 1, 2, null, 0])
  assert.deepEqual(values.applied, [null, 0, 10, null, 0.5])
  // Numbers of another epoch are not compared.
  assert.deepEqual(values.sent, [null, 0, 0, null, 0])
  assert.deepEqual(values.sentLag, [null, null, 4, null, null])
  for (let time = 10; time < 620; time += 2) record(time, [])
  assert.equal(history.table('a'), undefined)
})

test('a counter that begins again shows no negative rate', () => {
  const history = new History()
  history.record(0, { ...nothing, committed: 100 }, [])
  history.record(2_000, { ...nothing, committed: 0 }, [])
  assert.deepEqual(history.node().values.committed, [0, 0])
})

test('rates of a table are those of the last ten seconds, in both directions', async (t) => {
  const { clock, source, snapshot } = open(t)
  const rates = () => [snapshot().tables[0]!.received!.rate, snapshot().tables[0]!.sent!.rate]
  for (let second = 0; second < 20; second++) {
    source.apply(source.statuses[0]!, 30)
    source.replicas.get('dog')![0]!.appliedIndex! += 7
    await clock.advance(1_000)
  }
  assert.deepEqual(rates(), [30, 7])
  assert.equal(snapshot().peers[0]!.received!.rate, 30)
  await clock.advance(10_000)
  assert.deepEqual(rates(), [0, 0])
})

test('snapshots are pushed every two seconds and soon after an event, but not for each of many events', async (t) => {
  const { clock, source, monitor } = open(t)
  const received: Snapshot[] = []
  monitor.watch((text) => received.push(JSON.parse(text)))
  await clock.advance(10_000)
  assert.equal(received.length, 5)
  source.emit('peer:down', { node: 'node2' })
  await clock.advance(500)
  assert.equal(received.length, 6)
  for (let index = 0; index < 1_000; index++) {
    source.emit('peer:up', { node: `node${index}` })
    await clock.advance(1)
  }
  assert.ok(received.length <= 9, `${received.length} snapshots`)
  assert.equal(received.at(-1)!.events.length, 200)
})

test('nothing is computed for pages that nobody has open, and a snapshot is shared for half a second', async (t) => {
  const { clock, source, monitor } = open(t)
  let computed = 0
  const health = source.view.health
  source.view.health = () => {
    computed++
    return health()
  }
  source.emit('peer:down', { node: 'node2' })
  await clock.advance(60_000)
  assert.equal(computed, 0)
  for (let index = 0; index < 10; index++) monitor.snapshot()
  assert.equal(computed, 1)
})

test('collecting ends after the manager is closed, with a last snapshot', async (t) => {
  const { clock, source, monitor } = open(t)
  const states: string[] = []
  monitor.watch((text) => states.push((JSON.parse(text) as Snapshot).state))
  await clock.advance(2_000)
  source.state = 'closed'
  await clock.advance(60_000)
  assert.deepEqual(states, ['open', 'closed'])
  assert.equal(monitor.ended.aborted, true)
})

test('repeated events are one record with a count, for ten seconds', () => {
  const log = new EventLog()
  const refused = (attempts: number) => ({ level: 'error', text: `attempt ${attempts}`, ...dog }) as const
  for (let index = 1; index <= 5; index++) log.add('replication:stalled', refused(index), index * 1_000)
  log.add('replication:stalled', { ...refused(1), table: 'cat' }, 6_000)
  log.add('replication:stalled', refused(6), 30_000)
  assert.deepEqual(
    log.newest().map(({ table, text, count }) => [table, text, count]),
    [
      ['dog', 'attempt 6', undefined],
      ['cat', 'attempt 1', undefined],
      ['dog', 'attempt 5', 5],
    ],
  )
})

test('the same change of many tables of a node is one record without a table', () => {
  const log = new EventLog()
  for (const table of ['a', 'b', 'c'])
    log.add('subscription:state', eventLine('subscription:state', stateOf('live', 'pending', table))!, 0)
  const [record, ...others] = log.newest()
  assert.deepEqual([others.length, record!.node, record!.table, record!.count], [0, 'node2', undefined, 3])
  for (const table of ['a', 'b', 'c'])
    log.add('subscription:state', eventLine('subscription:state', stateOf('pending', 'live', table))!, 1)
  assert.deepEqual([log.newest().length, log.newest()[0]!.count], [2, 3])
})

const stateOf = (previous: string, state: string, table = 'dog') =>
  ({ source: { ...dog, table }, state, previous }) as Parameters<typeof eventLine<'subscription:state'>>[1]

test('a subscription that becomes live is news only after a problem, and catching up never is', () => {
  const log = new EventLog()
  const change = (previous: string, state: string) => {
    const line = eventLine('subscription:state', stateOf(previous, state))
    if (line) log.add('subscription:state', line, 0)
  }
  for (const [previous, state] of [
    'pending live',
    'live catching-up',
    'catching-up live',
    'live copying',
    'copying live',
  ].map((each) => each.split(' ')))
    change(previous!, state!)
  assert.deepEqual(log.newest(), [])
  change('live', 'stalled')
  change('stalled', 'catching-up')
  assert.deepEqual(
    log.newest().map(({ text }) => text),
    ['stalled → catching-up', 'live → stalled'],
  )
})

test('texts of events are bounded', () => {
  const log = new EventLog()
  log.add('peer:down', { level: 'error', text: 'x'.repeat(10_000) }, 0)
  assert.ok(log.newest()[0]!.text.length < 500)
})
