// Single inserts over HTTP on the reference host, which replicates them to another node; each node is a process.

import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { NodeProcess } from '../support/node-process.ts'
import { residentOf, usedByAll } from '../support/usage.ts'
import { atLeast, atMax, bounded, rowOf } from './compare.ts'
import { flow } from './flow.ts'
import { InsertClient } from './insert-client.ts'
import { median } from './measure.ts'
import { playing, type Scene } from './nodes.ts'
import type { Part, PartOptions, Row } from './report.ts'

const AT_ONCE = 32
/** Rows that are inserted before the measurement. */
const WARM_UP = 4_000
/** Rows of a round: a number and not a time, because the memory grows with the rows. */
const COUNT = 1_500
const text = 'x'.repeat(190)
const table = 'dog'
/**
 * Five times HarperDB 4.3.0 on the same machine: that did 434 with `fetch` as the client, whose 0.3 ms are a fifteenth of its two cores'
 * time for an insert, so at most 480 with this client.
 */
const RATE = 2_400
const MEGABYTES = 130

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

/** Pids by the column that has their processor time. */
async function processesOf(one: NodeProcess, two: NodeProcess): Promise<Record<string, readonly number[]>> {
  const servers = await Promise.all([one, two].map((node) => node.serverPids()))
  return {
    'cpu us': [one.pid],
    'other node': [two.pid],
    servers: servers.flatMap((each) => Object.values(each)),
    client: [process.pid],
  }
}

/** Rows in a second, and µs of processor time for each row until it has arrived. */
async function roundOf(client: InsertClient, two: NodeProcess, pids: Record<string, readonly number[]>) {
  const used = () => Promise.all(Object.values(pids).map(usedByAll))
  const [before, started] = [await used(), performance.now()]
  await flow((inserted, failed) => client.insert(inserted, failed), { window: AT_ONCE, count: COUNT })
  const seconds = (performance.now() - started) / 1_000
  await eventually('all rows have arrived', async () => (await two.count('dev', table)) === client.count)
  const after = await used()
  const cpu = Object.keys(pids).map((name, at) => [name, ((after[at]! - before[at]!) * 1e6) / COUNT] as const)
  return { rate: COUNT / seconds, ...Object.fromEntries(cpu) } as Record<string, number>
}

async function* rowsOf(scene: Scene, { rounds }: PartOptions): AsyncIterable<Row> {
  const [one, two] = await start(scene)
  const subscriptions = [{ database: 'dev', table, publish: true, subscribe: false }]
  await one.operation({ operation: 'create_schema', schema: 'dev' })
  await one.operation({ operation: 'create_table', schema: 'dev', table, hash_attribute: 'id' })
  await eventually('the nodes agree', () =>
    one.operation({ operation: 'add_node', node_name: two.name, subscriptions }).catch(() => undefined),
  )
  const client = new InsertClient({ url: one.url, table, text, connections: AT_ONCE })
  scene.afterwards(async () => client.close())
  await flow((inserted, failed) => client.insert(inserted, failed), { window: AT_ONCE, count: WARM_UP })
  const pids = await processesOf(one, two)
  const found: Record<string, number>[] = []
  while (found.length < rounds) found.push(await roundOf(client, two, pids))
  const rss = await residentOf(one.pid)
  const same = { on: 'LMDB', list: '-', entries: client.count }
  const middle = (name: string) => median(found.map((each) => each[name]!))
  yield rowOf({ ...same, what: 'insert over HTTP, rows/s' }, () => ({
    ...bounded(middle('rate'), undefined, atLeast(RATE)),
    ...Object.fromEntries(Object.keys(pids).map((name) => [name, middle(name)])),
  }))
  yield rowOf({ ...same, what: 'RSS of the node after that, MB' }, () => bounded(rss, undefined, atMax(MEGABYTES)))
}

export const inserts: Part = {
  name: 'inserts',
  legend: [
    `Inserts of one row of 200 bytes over HTTP, ${AT_ONCE} at once, on a node in its own process that replicates them to another. The client is in`,
    'this process. cpu us: processor time of the node for each insert; the columns after it: of the other node, of the four servers and of the',
    'client, which share the same cores. The targets are those of the machine in the documentation.',
  ],
  columns: ['what', 'on', 'of', 'rows'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
