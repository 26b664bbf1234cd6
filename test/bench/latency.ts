// One transaction at a time, from `publish` on one node to `apply` on the other, compared with the plain client on the same path.

import { subscribe } from '../support/cluster.ts'
import { atMax, type Contender, compare, type Figures } from './compare.ts'
import { type Arrival, lone, percentile } from './lone.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import { emptyStream, meshClient, RawPublisher, RawReader, storeClient } from './raw-client.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { messageOf, transactionsOf } from './transactions.ts'

const SIZE = 200
const table = 'dog'
const rawName = 'raw publish, raw pull'
const coreName = 'core publish'

async function figuresOf(samples: number, arrival: Arrival, send: () => Promise<unknown>): Promise<Figures> {
  const times = await lone({ arrival, send, isEnough: (count) => count >= samples })
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
}

class ArrivalHost extends NullHost {
  readonly arrival: Arrival = { arrived: () => {} }

  override async apply(batch: Parameters<NullHost['apply']>[0]): Promise<void> {
    this.arrival.arrived()
    await super.apply(batch)
  }
}

async function* rowsOf(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const { samples } = options
  const hosts = [new ArrivalHost([table]), new ArrivalHost([table])] as const
  const [one, two] = await startNodes(scene, hosts)
  await subscribe(one, two, { [table]: 'publish' })
  const next = transactionsOf(one.cluster, table, SIZE)
  const message = messageOf(one.cluster, table, SIZE)

  const store = await storeClient(scene, one)
  const publisher = await RawPublisher.open(store, one.name, 'raw')
  const [here, there] = [await meshClient(scene, one), await meshClient(scene, two)]
  const raw: Arrival = { arrived: () => {} }
  await RawReader.open({ client: there, node: one.name, table: 'raw', take: () => raw.arrived() })
  const core: Arrival = { arrived: () => {} }
  there.subscribe('bench.core', { callback: () => core.arrived() })
  await there.flush()

  const contenders: Contender[] = [
    { name: 'enmesh', run: () => figuresOf(samples, hosts[1].arrival, () => one.cluster.publish(next())) },
    {
      name: rawName,
      run: () =>
        figuresOf(samples, raw, () => new Promise<void>((settled, failed) => publisher.send(message, settled, failed))),
    },
    { name: coreName, run: () => figuresOf(samples, core, async () => here.publish('bench.core', message)) },
  ]
  const of = (figure: string, limit: string) => ({ what: `latency ${figure}, ms`, figure, enmesh: 'enmesh', limit })
  const comparisons = [
    { ...of('p50', rawName), target: atMax(1.2) },
    { ...of('p99', rawName), target: atMax(1.5) },
    of('p50', coreName),
    of('p99', coreName),
  ]
  yield* await compare(contenders, comparisons, { on: 'no database', entries: samples }, options)
  await emptyStream(store, 'raw')
}

export const latency: Part = {
  name: 'latency',
  legend: [
    'One transaction of 200 bytes at a time, the next when it has been applied and acknowledged; all ends in one process.',
    'core publish: only the path through the same four servers, without storage. Medians of the rounds.',
  ],
  columns: ['what', 'on', 'limit is', 'samples a round'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
