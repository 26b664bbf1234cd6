// `cluster_status` of a mesh with dead nodes, which must not delay the answer.

import { eventually } from '../support/cluster.ts'
import { reasonOf } from './compare.ts'
import { measure } from './measure.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import type { Part, PartOptions, Row } from './report.ts'

const NODES = 20
const DEAD = 5
const table = 'dog'

async function* rowsOf(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const hosts = Array.from({ length: NODES }, () => new NullHost([table]))
  const [asked, ...others] = await startNodes(scene, hosts)
  const subscriptions = [{ database: 'dev', table, publish: true, subscribe: false }]
  for (const { name } of others)
    await eventually(`${asked.name} agrees with ${name}`, () =>
      asked.cluster.updateNode({ node_name: name, subscriptions }).catch(() => undefined),
    )
  const row = async (what: string, open: number): Promise<Row> => {
    const identity = { what, on: 'no database', list: 'all of the mesh', entries: NODES }
    const run = async () => {
      const { connections } = await asked.cluster.status()
      const answered = connections.filter(({ status }) => status === 'open').length
      if (answered !== open) throw new Error(`${answered} of ${open} nodes are shown as open`)
    }
    try {
      return { ...identity, figures: await measure({ run }, NODES, options) }
    } catch (error) {
      return { ...identity, figures: {}, failed: reasonOf(error) }
    }
  }
  yield await row('cluster_status, all there', NODES - 1)
  await Promise.all(others.slice(-DEAD).map(({ cluster }) => cluster.close()))
  yield await row(`cluster_status, ${DEAD} dead`, NODES - 1 - DEAD)
}

export const status: Part = {
  name: 'status',
  legend: [
    `One of ${NODES} nodes, on twice as many servers, asks all others; then ${DEAD} of them are ended. All nodes in one process.`,
  ],
  columns: ['what', 'on', 'of', 'nodes'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
