// Two nodes, one of them in a separate process, that replicate many tables in both directions.

import { setTimeout as delay } from 'node:timers/promises'
import { eventually, quiet, serversOf, TestCluster } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { residentOf, residentOfAll, sharesOf } from '../support/usage.ts'

const PATIENCE = 300_000
/** Idle ms before and during the measurement. */
const SETTLE = 3_000
/** Readers renew their requests once a minute. */
const WATCHED = { before: 20_000, after: 60_000 }

/** `watched`: ms for which the idle cost is measured. */
export async function manyTables(count: number, watched = WATCHED): Promise<Record<string, number>> {
  const cluster = new TestCluster()
  try {
    const names = Array.from({ length: count }, (_, index) => `table${index}`)
    const tables = names.map((name): [string, string] => ['dev', name])
    const options = { requestTimeout: 60_000, publishTimeout: 60_000 }
    const [node1, node2] = await cluster.startAll(['node1', 'node2'], { tables, options })
    const servers = await serversOf([node1!, node2!])
    await eventually('they meet', () => node1!.cluster.network().then(({ nodes }) => nodes.length === 2))
    const [idleBefore = 0, serversBefore = 0] = await sharesOf([[process.pid], servers], watched.before)
    const memoryBefore = await residentOf(process.pid)
    const serverMemory = await residentOfAll(servers)

    const subscriptions = tables.map(([database, table]) => ({ database, table, publish: true, subscribe: true }))
    const started = performance.now()
    await node1!.cluster.configureCluster({ connections: [{ node_name: 'node2', subscriptions }] })
    const answered = (performance.now() - started) / 1_000
    const isLive = () =>
      [node1!, node2!].every(({ cluster }) => {
        const all = cluster.subscriptions()
        return all.length === count && all.every(({ state }) => state === 'live')
      })
    await eventually('all are read', () => delay(50).then(isLive), PATIENCE)
    const live = (performance.now() - started) / 1_000

    await delay(Math.min(SETTLE, watched.after))
    const [idle = 0, idleServers = 0] = await sharesOf([[process.pid], servers], watched.after)
    const memory = await residentOf(process.pid)
    const wroteAt = performance.now()
    await Promise.all(names.map((name) => node1!.host.write(`first of ${name}`, insert(name, { id: 1 }))))
    await quiet([node1!, node2!], PATIENCE)
    return {
      'answered, s': answered,
      'ms/table': (1_000 * answered) / count,
      'all live, s': live,
      'a write in each, s': (performance.now() - wroteAt) / 1_000,
      'process, MB more': memory - memoryBefore,
      'servers, MB more': (await residentOfAll(servers)) - serverMemory,
      'process idle, % more': idle - idleBefore,
      'servers idle, % more': idleServers - serversBefore,
    }
  } finally {
    await cluster.close()
  }
}
