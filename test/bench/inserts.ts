// Single inserts over HTTP on the reference host, which replicates them to another node; each node is a process.

import { readFile } from 'node:fs/promises'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { NodeProcess } from '../support/node-process.ts'
import { atLeast, atMax, bounded, rowOf } from './compare.ts'
import { flow } from './flow.ts'
import { median } from './measure.ts'
import { playing, type Scene } from './nodes.ts'
import type { Part, PartOptions, Row } from './report.ts'

const AT_ONCE = 32
/** Rows that are inserted before the measurement. */
const WARM_UP = 2_000
const text = 'x'.repeat(190)
const table = 'dog'
/** 1.45 times what the reference host did when each transaction was a message. */
const RATE = 2_175
const MEGABYTES = 130

/** Resident memory of a process, and its processor time so far in ms. */
async function usageOf(pid: number): Promise<{ rss: number; cpu: number }> {
  const [status, stat] = await Promise.all(['status', 'stat'].map((name) => readFile(`/proc/${pid}/${name}`, 'utf8')))
  const fields = stat!.slice(stat!.lastIndexOf(')') + 2).split(' ')
  return {
    rss: Number(/VmRSS:\s+(\d+)/.exec(status!)?.[1]) / 1_024,
    cpu: (Number(fields[11]) + Number(fields[12])) * 10,
  }
}

let counter = 0
const inserting = (node: NodeProcess) => (settled: () => void, failed: (error: unknown) => void) => {
  const records = [{ id: `row-${counter++}`, text }]
  void node.operation({ operation: 'insert', database: 'dev', table, records }).then(settled, failed)
}

async function start(scene: Scene): Promise<[NodeProcess, NodeProcess]> {
  const [directory, remove] = await temporaryDirectory()
  const nodes: NodeProcess[] = []
  scene.afterwards(async () => {
    for (const node of nodes) await node.stop()
    await remove()
  })
  for (const name of ['node1', 'node2']) {
    const routes = nodes.map(({ ports }) => ({ host: '127.0.0.1', port: ports.cluster }))
    const hubServer = { cluster: { network: { routes } } }
    const node = await NodeProcess.create(directory, name, routes.length > 0 ? { hubServer } : {})
    nodes.push(node)
    await node.start()
  }
  return nodes as [NodeProcess, NodeProcess]
}

async function* rowsOf(scene: Scene, { rounds, seconds }: PartOptions): AsyncIterable<Row> {
  const [one, two] = await start(scene)
  const subscriptions = [{ database: 'dev', table, publish: true, subscribe: false }]
  await one.operation({ operation: 'create_schema', schema: 'dev' })
  await one.operation({ operation: 'create_table', schema: 'dev', table, hash_attribute: 'id' })
  await eventually('the nodes agree', () =>
    one.operation({ operation: 'add_node', node_name: two.name, subscriptions }).catch(() => undefined),
  )
  await flow(inserting(one), { window: AT_ONCE, count: WARM_UP })
  const found: { rate: number; cpu: number }[] = []
  for (let round = 0; round < rounds; round++) {
    const before = await usageOf(one.pid)
    const started = performance.now()
    const count = await flow(inserting(one), { window: AT_ONCE, seconds })
    const rate = (count * 1_000) / (performance.now() - started)
    found.push({ rate, cpu: ((await usageOf(one.pid)).cpu - before.cpu) * (1_000 / count) })
  }
  await eventually('all rows have arrived', async () => (await two.count('dev', table)) === counter)
  const { rss } = await usageOf(one.pid)
  const same = { on: 'LMDB', list: '-', entries: counter }
  yield rowOf({ ...same, what: 'insert over HTTP, rows/s' }, () => ({
    ...bounded(median(found.map((each) => each.rate)), undefined, atLeast(RATE)),
    'cpu us': median(found.map((each) => each.cpu)),
  }))
  yield rowOf({ ...same, what: 'RSS of the node after that, MB' }, () => bounded(rss, undefined, atMax(MEGABYTES)))
}

export const inserts: Part = {
  name: 'inserts',
  legend: [
    `Inserts of one row of 200 bytes over HTTP, ${AT_ONCE} at once, on a node in its own process that replicates them to another. The client is in`,
    'this process. cpu us: processor time of the node for each insert. The targets are those of the machine in the documentation.',
  ],
  columns: ['what', 'on', 'of', 'rows'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
