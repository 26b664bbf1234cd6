// The cost of idle subscriptions: memory of the subscriber, and processor time of all processes.

import { setTimeout as delay } from 'node:timers/promises'
import { ClusterError } from '../../lib/index.ts'
import { ANNOUNCE_FOR_MS } from '../../lib/replication/publish/local-streams.ts'
import { eventually, type SpawnedNode, serversOf, type TestNode } from '../support/cluster.ts'
import { sharesOf } from '../support/usage.ts'
import { below, bounded } from './compare.ts'
import { bytesInUse } from './measure.ts'
import { playing, type Scene } from './nodes.ts'
import { NullHost } from './null-host.ts'
import type { Part, PartOptions, Row } from './report.ts'

/** Seconds. Heartbeats come every second. Readers renew their requests 60 seconds after they began, which is within the second period. */
const WATCHED = { without: 10, subscribed: 45 }
/** ms until the effects of a change are over. Heartbeats carry the position of a new stream for 30 seconds. */
const SETTLE = { without: 2_000, subscribed: ANNOUNCE_FOR_MS }
const SUBSCRIBE_TIMEOUT = 120_000
type Shares = { subscriber: number; publisher: number; servers: number }

/** Percent of one core in an idle period. */
async function watch(subscriber: TestNode, publisher: SpawnedNode, period: keyof typeof WATCHED): Promise<Shares> {
  const pids = await serversOf([subscriber, publisher])
  await delay(SETTLE[period])
  const groups = [[process.pid], [publisher.child.pid!], pids]
  const [mine = 0, theirs = 0, four = 0] = await sharesOf(groups, WATCHED[period] * 1_000)
  return { subscriber: mine, publisher: theirs, servers: four }
}

/** Resolves when all subscriptions are live. */
async function subscribeTo(node: TestNode, other: SpawnedNode, tables: readonly string[]): Promise<void> {
  const subscriptions = tables.map((table) => ({ database: 'dev', table, publish: false, subscribe: true }))
  await eventually(
    `${node.name} agrees with ${other.name}`,
    () =>
      node.cluster.updateNode({ node_name: other.name, subscriptions }).catch((error: unknown) => {
        if (error instanceof ClusterError && error.code === 'node_not_listening') return undefined
        throw error
      }),
    SUBSCRIBE_TIMEOUT,
  )
  await eventually(
    'all are read',
    async () => {
      await delay(100)
      const all = node.cluster.subscriptions()
      return all.length === tables.length && all.every(({ state }) => state === 'live')
    },
    SUBSCRIBE_TIMEOUT,
  )
}

async function* rowsOf(scene: Scene, { subscriptions }: PartOptions): AsyncIterable<Row> {
  const tables = Array.from({ length: subscriptions }, (_, index) => `table${index}`)
  // In a separate process, because this process measures the subscriber.
  const publisher = await scene.spawn('publisher')
  const subscriber = await scene.start('subscriber', {
    routes: [publisher.ports.cluster],
    options: { host: new NullHost(tables), requestTimeout: SUBSCRIBE_TIMEOUT },
  })
  const without = await watch(subscriber, publisher, 'without')
  const memory = await bytesInUse()
  const started = performance.now()
  await subscribeTo(subscriber, publisher, tables)
  const seconds = (performance.now() - started) / 1_000
  const found = await watch(subscriber, publisher, 'subscribed')
  const bytes = (await bytesInUse()) - memory

  const row = (what: string, list: string, figures: Row['figures']): Row => ({
    what,
    on: 'no database',
    list,
    entries: subscriptions,
    figures,
  })
  yield row('memory a subscription, KB', 'subscriber', bounded(bytes / subscriptions / 1_024, undefined, below(20)))
  yield row('cpu, % of a core', 'subscriber', bounded(found.subscriber, without.subscriber, below(1)))
  yield row('cpu, % of a core', 'publisher', bounded(found.publisher, without.publisher, below(1)))
  yield row('cpu, % of a core', 'four servers', bounded(found.servers, without.servers, below(3)))
  yield row('until all are live, s', 'subscriber', bounded(seconds))
}

export const idle: Part = {
  name: 'idle',
  legend: [
    'One node subscribes to that many tables of another, and nothing is written. The subscriber is this process; the publisher',
    `is a separate process. Processor time is that of ${WATCHED.subscribed} s, in which each reader renews its request once, as it does every minute. They begin`,
    `${ANNOUNCE_FOR_MS / 1_000} s after the streams were created: until then heartbeats carry their positions. without: of the same nodes before they subscribe. Memory:`,
    'the heap, all garbage collected.',
  ],
  columns: ['what', 'on', 'of', 'subscriptions'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
