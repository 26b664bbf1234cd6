// Waiting for another node: the time of `replicated` beside the way there alone, and there and back of the plain client; the rate of writes with
// and without waiting; and what the reports cost while nothing is written.

import type { Transaction } from '../../lib/index.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { PositionReporter } from '../../lib/replication/positions/position-reporter.ts'
import { ReplicaPositions } from '../../lib/replication/positions/replica-positions.ts'
import { ReplicationWaits } from '../../lib/replication/positions/replication-waits.ts'
import { Watches } from '../../lib/replication/positions/watches.ts'
import { FRAME_LIMITS } from '../../lib/replication/publish/frame-queue.ts'
import { LocalStreams } from '../../lib/replication/publish/local-streams.ts'
import { MemoryNetwork, TestClock } from '../../lib/testing.ts'
import { subscribe } from '../support/cluster.ts'
import { arriving } from './arrival.ts'
import { atMax, bounded, type Contender, compare, type Figures } from './compare.ts'
import { flow, type Send } from './flow.ts'
import { type Arrival, lone, percentile } from './lone.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import { emptyStream, meshClient, RawPublisher, RawReader, storeClient } from './raw-client.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { CALLS, messageOf, publishing, transactionsOf } from './transactions.ts'

const SIZE = 200
const table = 'dog'
const oneWay = 'publish to applied'
const thereAndBack = 'raw, there and back'
const on = 'no database'

const figuresOf = (times: readonly number[]): Figures => ({ p50: percentile(times, 0.5), p99: percentile(times, 0.99) })

/** Times from the call to the answer, the shortest first. */
async function answered(samples: number, call: () => Promise<unknown>): Promise<Figures> {
  const times: number[] = []
  while (times.length < samples) {
    const started = performance.now()
    await call()
    times.push(performance.now() - started)
  }
  return figuresOf(times.sort((a, b) => a - b))
}

type Nodes = Awaited<ReturnType<typeof startNodes>>

class ArrivalHost extends NullHost {
  readonly arrival: Arrival = { arrived: () => {} }

  override async apply(batch: Parameters<NullHost['apply']>[0]): Promise<void> {
    this.arrival.arrived()
    await super.apply(batch)
  }
}

async function* timesOf(scene: Scene, [one, two]: Nodes, applied: Arrival, options: PartOptions): AsyncIterable<Row> {
  const samples = Math.ceil(options.samples / 2)
  const next = transactionsOf(one.cluster, table, SIZE)
  const message = messageOf(one.cluster, table, SIZE)
  const store = await storeClient(scene, one)
  const publisher = await RawPublisher.open(store, one.name, 'raw')
  const [here, there] = [await meshClient(scene, one), await meshClient(scene, two)]
  const arrival: Arrival = { arrived: () => {} }
  await RawReader.open({ client: there, node: one.name, table: 'raw', take: () => arrival.arrived() })
  let answer = () => {}
  here.subscribe('bench.answer', { callback: () => answer() })
  await here.flush()
  const send = () => new Promise<void>((settled, failed) => publisher.send(message, settled, failed))
  const roundTrip = async () => {
    const back = new Promise<void>((resolve) => {
      answer = resolve
    })
    arrival.arrived = () => there.publish('bench.answer', 'applied')
    await Promise.all([send(), back])
  }
  const replicatedOnce = () => one.cluster.replicated(next(), { nodes: 1 })
  const contenders: Contender[] = [
    { name: 'replicated', run: () => answered(samples, replicatedOnce) },
    {
      name: oneWay,
      run: async () => {
        const publish = () => one.cluster.publish(next())
        return figuresOf(await lone({ arrival: applied, send: publish, isEnough: (count) => count >= samples }))
      },
    },
    { name: thereAndBack, run: () => answered(samples, roundTrip) },
  ]
  const of = (figure: string, limit: string) => ({
    what: `replicated(1) ${figure}, ms`,
    figure,
    enmesh: 'replicated',
    limit,
  })
  const comparisons = [
    { ...of('p50', oneWay), target: atMax(2.2) },
    of('p99', oneWay),
    of('p50', thereAndBack),
    of('p99', thereAndBack),
  ]
  yield* await compare(contenders, comparisons, { on, entries: samples }, options)
  await emptyStream(store, 'raw')
}

async function* ratesOf([one, two]: Nodes, hosts: readonly NullHost[], options: PartOptions): AsyncIterable<Row> {
  const { seconds } = options
  const next = transactionsOf(one.cluster, table, SIZE)
  const waiting: Send = (settled, failed) => {
    const transaction: Transaction = next()
    void one.cluster.replicated(transaction, { nodes: [two.name], timeout: 60_000 }).then(settled, failed)
  }
  const contender = (name: string, send: Send) =>
    arriving(name, {
      at: [hosts[1]!.applied],
      send: () => flow(send, { window: CALLS, seconds }),
      empty: () => one.cluster.purgeStream({ database: 'dev', table }),
    })
  const contenders = [contender('waiting', waiting), contender('publish', publishing(one.cluster, next))]
  const comparison = { what: 'rate, transactions/s', figure: 'rate', enmesh: 'waiting', limit: 'publish' }
  yield* await compare(contenders, [comparison], { on, entries: CALLS }, options)
}

/** Seconds of the clock that pass. */
const IDLE_SECONDS = 600

/** Percent of one core of everything that reports and takes reports, for so many tables in both directions. */
async function idleShare(count: number): Promise<number> {
  const clock = new TestClock({ stopped: true })
  const network = new MemoryNetwork({ clock })
  const mesh = network.mesh('node1')
  await mesh.open('node1', { hub: [], leaf: [] }, { state() {}, linked() {}, rejected() {}, certificatesChanged() {} })
  const streams = new LocalStreams({
    ...{ mesh, node: 'node1', logger: silentLogger, frames: { ...FRAME_LIMITS, inFlight: 4 }, requestTimeout: 60_000 },
    loadPosition: async () => undefined,
    savePosition: async () => {},
    mayShowMore: () => false,
    interrupted: () => {},
  })
  const tables = Array.from({ length: count }, (_, index) => ({ database: 'dev', table: `table${index}` }))
  for (const each of tables) await streams.ensure(each)
  const index = { subscribersOf: () => ['node2'] }
  const publisher = {
    endOf: (each: (typeof tables)[0]) => streams.endOf(each),
    recentPositions: () => streams.recentPositions(),
    locate: async () => [],
  }
  const { timers } = mesh
  const isUp = () => true
  const session = () => 's'
  const storedAt = async () => undefined
  const replicas = new ReplicaPositions({ timers, index, publisher, session, storedAt, reported: () => {} })
  const watches = new Watches({ timers, isUp, send: async () => {} })
  const waits = new ReplicationWaits({ timers, publisher, replicas, index, watches })
  const reporter = new PositionReporter({
    ...{ timers, isUp },
    sources: () => tables.map((each) => ({ node: 'node2', ...each })),
    report: ({ database, table }) => ({ database, table, epoch: 'e', sequence: 1, index: 1, session: 's' }),
    send: async (_, reports) => {
      replicas.accept('node2', reports)
      return []
    },
  })
  for (const each of [reporter, replicas, waits]) each.start()
  await clock.advance(60_000)
  const { user, system } = process.cpuUsage()
  await clock.advance(IDLE_SECONDS * 1_000)
  const used = process.cpuUsage({ user, system })
  for (const each of [reporter, replicas, waits]) each.close()
  streams.close()
  await network.close()
  return (used.user + used.system) / 1_000 / (IDLE_SECONDS * 10)
}

async function* rowsOf(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const hosts = [new NullHost([table]), new ArrivalHost([table])] as const
  const nodes = await startNodes(scene, hosts)
  await subscribe(nodes[0], nodes[1], { [table]: 'publish' })
  yield* timesOf(scene, nodes, hosts[1].arrival, options)
  yield* ratesOf(nodes, hosts, options)
  const { subscriptions: entries } = options
  const figures = bounded(await idleShare(entries), undefined, atMax(0.2))
  yield { what: 'idle cpu of the reports, % of a core', on, list: '-', entries, figures }
}

export const replicated: Part = {
  name: 'replicated',
  legend: [
    'One transaction of 200 bytes at a time, until another node has applied it and this one knows; all ends in one process. Publish to applied: the',
    'way there alone, of enmesh. There and back: the plain client, which stores it, reads it there and answers with a message. Rate: as many calls at once as enmesh has in flight, of replicated and of publish.',
    `Idle: processor time of all parts that report, take reports and wait, over ${IDLE_SECONDS} s of a test clock, for tables in both directions.`,
  ],
  columns: ['what', 'on', 'limit is', 'samples, calls, tables'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
