// The initial copy of a table to a new node, compared with a plain client that moves the same pages.

import { ClusterError, type Payload } from '../../lib/index.ts'
import { eventually, subscriptionsOf, type TestNode } from '../support/cluster.ts'
import { atLeast, bounded, type Contender, compare } from './compare.ts'
import { type Arrival, lone, percentile } from './lone.ts'
import { bytesInUse } from './measure.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { applyingPages, movingPages, rawApplies, rawMoves } from './raw-pages.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { databases, dog, type RowsHost } from './rows-host.ts'
import { nextId } from './transactions.ts'

/** Bytes of a row. */
const SIZE = 200
const text = 'x'.repeat(SIZE - 10)
const MAX_ROUNDS = 3
/** A round copies enough rows to optimise the code. */
const WARM_UP_ROUNDS = 1
const MEGABYTE = 2 ** 20
/** ms between two samples of the memory. */
const LOOK = 20
/** ms. */
const TIMEOUT = 600_000
const OPERATION_TIMEOUT = 60_000
/** ms between two lone transactions. */
const PAUSE = 5

type Copied = Payload<'replication:copied'>

/** Subscribes to the table; `during` runs when the first rows are applied. Resolves when all rows are copied. */
async function copied(one: TestNode, two: TestNode, target: RowsHost, during = () => {}): Promise<Copied> {
  target.onApplied = (batch) => {
    if (!batch.isCopy) return
    target.onApplied = undefined
    during()
  }
  // Not AbortSignal.timeout, which would keep the manager and its database in memory until then.
  const timeout = new AbortController()
  const timer = setTimeout(() => timeout.abort(new Error(`not copied within ${TIMEOUT} ms`)), TIMEOUT)
  const end = two.cluster.events.once('replication:copied', { signal: timeout.signal })
  // It may fail before it is awaited.
  end.catch(() => {})
  const request = { node_name: one.name, subscriptions: subscriptionsOf({ [dog.table]: 'subscribe' }) }
  try {
    await repeated(`${two.name} agrees with ${one.name}`, () => two.cluster.updateNode(request))
    return await end
  } finally {
    clearTimeout(timer)
  }
}

/** Repeats an operation while the nodes do not reach each other: a large heap stops this process for seconds. */
const repeated = <T>(what: string, operation: () => Promise<T>): Promise<T> =>
  eventually(
    what,
    () =>
      operation().catch((error: unknown) => {
        if (error instanceof ClusterError && error.retryable) return undefined
        throw error
      }),
    OPERATION_TIMEOUT,
  )

/** Ends the subscription and removes the copied rows, so that the next copy begins with the first row. */
async function forget(one: TestNode, two: TestNode, target: RowsHost): Promise<void> {
  await repeated(`${two.name} removes ${one.name}`, () => two.cluster.removeNode({ node_name: one.name }))
  target.clear()
  const source = { node: one.name, ...dog }
  await eventually('the subscription has ended', async () => (await target.loadCheckpoint(source)) === undefined)
}

type Nodes = { one: TestNode; two: TestNode; source: RowsHost; target: RowsHost }

function enmesh({ one, two, target }: Nodes): Contender {
  return {
    name: 'enmesh',
    run: async () => {
      const before = process.cpuUsage()
      const { rows, ms } = await copied(one, two, target)
      const { user, system } = process.cpuUsage(before)
      await forget(one, two, target)
      return { rate: (rows * 1_000) / ms, cpu: (user + system) / rows }
    },
  }
}

/** Bytes of the heap in use before, at most during and after a copy, and after the copied table is removed. */
async function memoryRow({ one, two, target }: Nodes, identity: Pick<Row, 'on' | 'entries'>): Promise<Row> {
  const before = await bytesInUse()
  const peak = { heap: 0, rss: 0 }
  const rss = process.memoryUsage().rss
  const look = setInterval(() => {
    const usage = process.memoryUsage()
    peak.heap = Math.max(peak.heap, usage.heapUsed)
    peak.rss = Math.max(peak.rss, usage.rss)
  }, LOOK)
  try {
    await copied(one, two, target)
  } finally {
    clearInterval(look)
  }
  const after = await bytesInUse()
  await forget(one, two, target)
  const removed = await bytesInUse()
  const bytes = { before, peak: peak.heap, after, removed, 'RSS before': rss, 'RSS peak': peak.rss }
  const figures = Object.fromEntries(Object.entries(bytes).map(([name, size]) => [name, size / MEGABYTE]))
  return { what: 'memory of a copy, MB', ...identity, list: 'this process', figures }
}

/** Writes to the table until `isEnough`. Resolves with the sorted times from `publish` to applied, in ms. */
async function loneWrites({ one, target }: Nodes, isEnough: (count: number) => boolean): Promise<number[]> {
  const arrival: Arrival = { arrived: () => {} }
  target.onApplied = ({ isCopy, transactions }) => isCopy || transactions.length === 0 || arrival.arrived()
  const send = () =>
    one.cluster.publish({
      id: nextId(),
      timestamp: one.cluster.timestamp(),
      writes: [{ operation: 'upsert', ...dog, records: [{ id: 0, text }] }],
    })
  try {
    return await lone({ arrival, send, isEnough, pause: PAUSE })
  } finally {
    target.onApplied = undefined
  }
}

async function* latencyRows(nodes: Nodes, identity: Pick<Row, 'on' | 'entries'>): AsyncIterable<Row> {
  const { one, two, target } = nodes
  let isCopied = false
  let running: Promise<number[]> | undefined
  await copied(one, two, target, () => {
    running = loneWrites(nodes, () => isCopied)
    // It may fail before it is awaited.
    running.catch(() => {})
  })
  isCopied = true
  const during = await running!
  const without = await loneWrites(nodes, (count) => count >= during.length)
  await forget(one, two, target)
  for (const [name, share] of [
    ['p50', 0.5],
    ['p99', 0.99],
    ['max', 1],
  ] as const) {
    const what = `lone transaction ${name}, ms`
    yield {
      what,
      ...identity,
      list: 'no copy',
      figures: { ...bounded(percentile(during, share), percentile(without, share)), samples: during.length },
    }
  }
}

async function* rowsOf(
  scene: Scene,
  options: PartOptions,
  on: string,
  create: (rows: number) => RowsHost,
): AsyncIterable<Row> {
  const { rows } = options
  const [source, target] = [create(rows), create(0)]
  const [one, two] = await startNodes(scene, [source, target])
  const nodes = { one, two, source, target }
  const ends = { from: one, to: two, rows }
  const contenders = [
    enmesh(nodes),
    await movingPages(scene, ends, source),
    await applyingPages(scene, ends, source, () => create(0)),
  ]
  const of = (limit: string) => ({ what: 'copy, rows/s', figure: 'rate', enmesh: 'enmesh', limit })
  const comparisons = [{ ...of(rawMoves), target: atLeast(0.5) }, of(rawApplies)]
  const identity = { on, entries: rows }
  const rounds = Math.min(options.rounds, MAX_ROUNDS)
  yield* await compare(contenders, comparisons, identity, { ...options, rounds, warmUpRounds: WARM_UP_ROUNDS })
  yield await memoryRow(nodes, identity)
  yield* latencyRows(nodes, identity)
}

export const copy: Part = {
  name: 'copy',
  legend: [
    `The initial copy of a table with rows of ${SIZE} bytes; both managers in one process, and so are both ends of the raw client. ${rawMoves}:`,
    'the same pages, each requested when the one before has arrived, not read. applied: with the work that both databases need, no',
    'checks and no checkpoint. MemoryHost stores the rows; no database: rows are created when they are read, and not stored.',
    `At most ${MAX_ROUNDS} rounds. Lone transactions write to the table that is being copied, one at a time, ${PAUSE} ms apart. Memory: the heap, without`,
    'garbage except in the peak; removed: the copied table is gone again.',
  ],
  columns: ['what', 'on', 'limit is', 'rows'],
  async *run(options) {
    for (const { on, create } of databases(options))
      yield* playing((scene) => rowsOf(scene, options, on, (rows) => create(rows, text)))
  },
}
