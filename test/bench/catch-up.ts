// Catching up with a backlog after an absence, compared with a plain client that reads the same stream.

import { reading, subscribe, type TestNode } from '../support/cluster.ts'
import { atLeast, atMax, bounded, type Contender, compare, type Figures, rowOf } from './compare.ts'
import { Counter, flow } from './flow.ts'
import { median } from './measure.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import { meshClient, RawPublisher, RawReader, sending, storeClient, WINDOW } from './raw-client.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { CALLS, messageOf, publishing, transactionsOf } from './transactions.ts'

const SIZE = 200
const table = 'dog'
/** Has one transaction a message. */
const rawTable = 'raw'
const rawName = 'raw pull'
/** ms between two samples of the memory. */
const LOOK = 20
const MEGABYTE = 2 ** 20
/** Rounds of a large backlog. */
const MAX_ROUNDS = 2
/** The heap is flat when its peak in the second half of a backlog is at most this many times the one in the first half. */
const FLAT = 1.5

/** Receives `count` transactions from the first on; `begin` starts it. Memory is the peak of this process meanwhile. */
async function taking(count: number, counter: Counter, begin: () => Promise<unknown>): Promise<Figures> {
  const before = counter.count
  const cpuBefore = process.cpuUsage()
  const peak = { heap: 0, rss: 0 }
  /** Peak of the heap in the first and in the second half. */
  const halves: [number, number] = [0, 0]
  const look = setInterval(() => {
    const { heapUsed, rss } = process.memoryUsage()
    peak.heap = Math.max(peak.heap, heapUsed / MEGABYTE)
    peak.rss = Math.max(peak.rss, rss / MEGABYTE)
    const half = counter.count - before < count / 2 ? 0 : 1
    halves[half] = Math.max(halves[half], heapUsed / MEGABYTE)
  }, LOOK)
  try {
    const first = counter.reach(before + 1).then(() => performance.now())
    const [started] = await Promise.all([first, begin()])
    const taken = counter.count - before
    await counter.reach(before + count)
    const seconds = (performance.now() - started) / 1_000
    const { user, system } = process.cpuUsage(cpuBefore)
    return { rate: (count - taken) / seconds, cpu: (user + system) / count, ...peak, growth: halves[1] / halves[0] }
  } finally {
    clearInterval(look)
  }
}

function enmesh(two: TestNode, host: NullHost, back: () => void, backlog: number, growths: number[]): Contender {
  return {
    name: 'enmesh',
    run: async () => {
      await two.cluster.close()
      back()
      const figures = await taking(backlog, host.applied, () => two.reopen())
      growths.push(figures.growth!)
      return figures
    },
  }
}

/** Connects for each round: enmesh restarts the servers between rounds. */
function raw(scene: Scene, [one, two]: readonly [TestNode, TestNode, ...TestNode[]], backlog: number): Contender {
  return {
    name: rawName,
    run: async () => {
      const received = new Counter()
      const client = await meshClient(scene, two)
      let reader: RawReader | undefined
      try {
        return await taking(backlog, received, async () => {
          reader = await RawReader.open({ client, node: one.name, table: rawTable, take: () => received.add(1) })
        })
      } finally {
        reader?.close()
        await client.close()
      }
    },
  }
}

async function* rowsOf(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const { backlog } = options
  const hosts = [new NullHost([table, rawTable]), new NullHost([table])] as const
  const nodes = await startNodes(scene, hosts)
  const [one, two] = nodes
  await subscribe(one, two, { [table]: 'publish' })
  await one.cluster.publish(transactionsOf(one.cluster, table, SIZE)())
  await hosts[1].applied.reach(1)
  const back = hosts[1].remember()
  const next = transactionsOf(one.cluster, table, SIZE)
  await flow(publishing(one.cluster, next), { window: CALLS, count: backlog })
  await reading(two, one, table, 120_000)
  const publisher = await RawPublisher.open(await storeClient(scene, one), one.name, rawTable)
  await flow(sending(publisher, messageOf(one.cluster, table, SIZE)), { window: WINDOW, count: backlog })

  const growths: number[] = []
  const contenders = [enmesh(two, hosts[1], back, backlog, growths), raw(scene, nodes, backlog)]
  const rounds = Math.min(options.rounds, MAX_ROUNDS)
  const of = (what: string, figure: string) => ({ what, figure, enmesh: 'enmesh', limit: rawName })
  const comparisons = [
    { ...of('catch-up, tx/s', 'rate'), target: atLeast(3) },
    of('peak heap, MB', 'heap'),
    of('peak RSS, MB', 'rss'),
  ]
  const entries = backlog
  const same = { on: 'no database', entries }
  yield* await compare(contenders, comparisons, same, { ...options, rounds, warmUp: 0 })
  const growth = () => bounded(median(growths), undefined, atMax(FLAT))
  yield rowOf({ what: 'peak heap, second half / first', ...same, list: '-' }, growth)
}

export const catchUp: Part = {
  name: 'catch-up',
  legend: [
    `A backlog of transactions of ${SIZE} bytes on another node, from the first that arrives to the last; at most ${MAX_ROUNDS} rounds and no`,
    'warm-up. The raw client reads the same transactions, one a message, within the same bounds. Memory is the peak of this process meanwhile, which',
    'also runs the remote node; garbage of one contender remains when the next begins.',
  ],
  columns: ['what', 'on', 'limit is', 'transactions'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
