// Timestamps of one node from several threads and processes: unique, and higher than those that were issued or seen before.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { HybridClock, makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { type TimestampSource, timestampAfter, timestampsFrom } from '../../lib/index.ts'
import { MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { systemTime } from '../../lib/util/timers.ts'
import { programArguments } from '../support/program.ts'
import fc from '../support/properties.ts'
import { committedTimestamps, openShared } from '../support/shared-database.ts'
import { temporaryDirectory } from './store-fixture.ts'

const DRIFT_MS = 60_000
const START = 1_700_000_000_000

type Step =
  | { kind: 'issue' | 'thread' }
  | { kind: 'share' }
  | { kind: 'pass' | 'merge' | 'resume'; ms: number; counter: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('issue' as const, 'thread' as const) }) },
  fc.record({ kind: fc.constant('share' as const) }),
  fc.record({
    kind: fc.constantFrom('pass' as const, 'merge' as const, 'resume' as const),
    ms: fc.integer({ min: -3, max: 3 }),
    counter: fc.oneof(
      fc.nat(2),
      fc.integer({ min: 0x7ffe, max: 0x8001 }),
      fc.integer({ min: 0xfffffe, max: 0xffffff }),
    ),
  }),
)

test('every timestamp is higher than all that were issued or seen before, whatever thread issues it', (t) => {
  let now = START
  t.mock.method(systemTime, 'now', () => now)
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      now = START
      const clock = new HybridClock('node1', DRIFT_MS, () => now)
      let thread: ReturnType<typeof timestampsFrom> | undefined
      let highest = ''
      const check = (timestamp: string) => {
        assert.ok(timestamp > highest, `${timestamp} after ${highest}`)
        highest = timestamp
      }
      for (const each of steps)
        if (each.kind === 'issue') check(clock.timestamp())
        else if (each.kind === 'thread') check((thread ?? clock).timestamp())
        else if (each.kind === 'share') thread = timestampsFrom({ node: 'node1', memory: clock.share() })
        else if (each.kind === 'pass') now += each.ms
        else if (each.kind === 'merge' || each.kind === 'resume') {
          // A name that is higher than that of the node.
          const seen = makeTimestamp(now + each.ms, each.counter, 'node2')
          if (each.kind === 'merge') clock.merge(seen)
          else clock.resume(seen)
          if (seen > highest) highest = seen
        }
      assert.ok(clock.last.slice(0, 19) >= highest.slice(0, 19))
    }),
    { numRuns: 300 },
  )
})

test('worker threads and the main thread issue each timestamp once, in the order of what they have seen', async (t) => {
  const COUNT = 2_000
  const clock = new HybridClock('node1', DRIFT_MS)
  const source: TimestampSource = { node: 'node1', memory: clock.share() }
  const file = pathToFileURL(programArguments('support/timestamp-worker.ts').at(-1)!).href
  // Without the compiled programs: tsx does not register itself in threads.
  const program = `import('tsx/esm/api').then(({ register }) => register()).then(() => import('${file}'))`
  const workers = [1, 2].map(() => new Worker(program, { eval: true, workerData: source }))
  t.after(() => Promise.all(workers.map((worker) => worker.terminate())))
  const issued: string[] = []
  for (let round = 0; round < 3; round++) {
    const before = clock.timestamp()
    const answers = workers.map(async (worker) => {
      worker.postMessage(COUNT)
      return (await once(worker, 'message'))[0] as string[]
    })
    const local = Array.from({ length: COUNT }, () => clock.timestamp())
    for (const list of [local, ...(await Promise.all(answers))]) {
      assert.ok(list[0]! > before)
      assert.deepEqual(list, [...list].sort())
      issued.push(...list)
    }
    issued.push(before)
  }
  assert.equal(new Set(issued).size, issued.length)
  assert.ok(clock.timestamp() > issued.sort().at(-1)!)
})

test('other threads get no timestamps during a restamp and after the end of the manager', async (t) => {
  const network = new MemoryNetwork()
  const host = new MemoryHost({ tables: [{ database: 'dev', table: 'dog' }] })
  const cluster = await startCluster(1, { network, host: () => host })
  t.after(() => cluster.close())
  const manager = cluster.node('node1').cluster
  const source = manager.timestampSource()
  const thread = timestampsFrom(source)
  assert.ok(thread.timestamp() < manager.timestamp())
  const { restamp } = host
  let attempts = 0
  host.restamp = async (...args) => {
    assert.throws(() => thread.timestamp(), { code: 'restamping' })
    assert.throws(() => manager.timestampSource(), { code: 'restamping' })
    attempts++
    return restamp.apply(host, args)
  }
  await manager.restamp()
  assert.equal(attempts, 1)
  const before = manager.timestamp()
  assert.ok(thread.timestamp() > before)
  assert.equal(manager.timestampSource().memory, source.memory)
  await cluster.node('node1').stop()
  assert.throws(() => thread.timestamp(), { code: 'closed' })
  assert.throws(() => manager.timestampSource(), { code: 'closed' })
})

test('a restamp that ends after the manager has closed does not start other threads again', () => {
  const clock = new HybridClock('node1', DRIFT_MS)
  const thread = timestampsFrom({ node: 'node1', memory: clock.share() })
  clock.stopThreads('restamping')
  clock.timestamp()
  clock.stopThreads('closed')
  clock.resumeThreads()
  assert.throws(() => thread.timestamp(), { code: 'closed' })
})

test('processes that commit into one database issue each timestamp once, in the order of commit', async (t) => {
  const COUNT = 100
  const path = join(await temporaryDirectory(t), 'database')
  const database = openShared(path)
  t.after(() => database.close())
  const clock = new HybridClock('node1', DRIFT_MS)
  const args = [...programArguments('support/timestamp-process.ts'), path, 'node1', String(COUNT)]
  const others = promisify(execFile)(process.execPath, args)
  const local: string[] = []
  let isOver = false
  const other = others
    .finally(() => {
      isOver = true
    })
    .then(({ stdout }) => JSON.parse(stdout) as string[])
  // A failure is reported where it is awaited.
  other.catch(() => {})
  t.after(() => {
    isOver = true
    others.child.kill('SIGKILL')
  })
  while (!isOver) {
    const next = (last: string | undefined) => {
      if (last !== undefined) clock.resume(last)
      return clock.timestamp()
    }
    local.push(...committedTimestamps(database, 'node1', 20, next))
    await delay(2)
  }
  const remote = await other
  const all = [...local, ...remote]
  assert.equal(remote.length, COUNT)
  assert.equal(new Set(all).size, all.length)
  for (const list of [local, remote]) assert.deepEqual(list, [...list].sort())
})

test('an invalid timestamp is no start', () => {
  assert.throws(() => timestampAfter('yesterday', 'node1'), TypeError)
  const future = makeTimestamp(systemTime.now() + 10 * DRIFT_MS, 5, 'node9')
  assert.equal(timestampAfter(future, 'node1'), `${future.slice(0, 13)}000006-node1`)
  assert.ok(timestampAfter(undefined, 'node1') < future)
})
