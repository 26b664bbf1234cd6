// Single messages, which HarperDB reads, compared with frames and with the plain client, which has one message in flight as well.

import { type Comparison, compare } from './compare.ts'
import { flow } from './flow.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import { RawPublisher, sending, storeClient } from './raw-client.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { storing } from './storing.ts'
import { CALLS, messageOf, publishing, sizes, transactionsOf } from './transactions.ts'

const [frames, single, many] = ['frames', 'single messages', 'single messages, 8 tables'] as const
const oneInFlight = 'raw client, 1 in flight'
const rawTable = 'raw'
/** One message is in flight for each table. */
const tables = Array.from({ length: 8 }, (_, index) => `dog${index}`)

const against = (limit: string, enmesh: string, what: string): Comparison => ({ what, figure: 'rate', enmesh, limit })
const comparisons: Comparison[] = [
  against(oneInFlight, single, 'publish, tx/s'),
  against(frames, single, 'publish, tx/s'),
  against(oneInFlight, many, 'publish to 8 tables, tx/s'),
  { ...against(oneInFlight, single, 'stored, bytes/tx'), figure: 'stored', isAbsolute: true },
]

async function contendersOf(scene: Scene, size: number, { seconds }: PartOptions) {
  const hosts = () => [new NullHost([...tables, rawTable])]
  const [plain] = await startNodes(scene, hosts())
  const [node] = await startNodes(scene, hosts(), { clustering: { compatibility: 'harperdb4' } })
  const [plainClient, client] = [await storeClient(scene, plain), await storeClient(scene, node)]
  const raw = await RawPublisher.open(client, node.name, rawTable)
  const message = messageOf(node.cluster, tables[0]!, size)
  const publishOn = (at: typeof node, used: readonly string[]) => {
    const next = used.map((table) => transactionsOf(at.cluster, table, size))
    let turn = 0
    return () =>
      flow(
        publishing(at.cluster, () => next[turn++ % next.length]!()),
        { window: CALLS, seconds },
      )
  }
  const one = tables.slice(0, 1)
  const contenders = [
    storing(plainClient, frames, one, publishOn(plain, one)),
    storing(client, single, one, publishOn(node, one)),
    storing(client, many, tables, publishOn(node, tables)),
    storing(client, oneInFlight, [rawTable], () => flow(sending(raw, message), { window: 1, seconds })),
  ]
  return { contenders, bytes: message.byteLength }
}

/** The small size alone: what a transaction costs is waiting, and not its bytes. */
const [{ on, size }] = sizes

const rowsOf = (options: PartOptions): AsyncIterable<Row> =>
  playing(async function* (scene) {
    const { contenders, bytes } = await contendersOf(scene, size, options)
    yield* await compare(contenders, comparisons, { on, entries: bytes }, options)
  })

export const singleMessages: Part = {
  name: 'single',
  legend: [
    'With `clustering.compatibility: harperdb4`, each transaction is a message that HarperDB reads, and one is in flight for each table. Transactions of',
    'one row of that size, acknowledged by the leaf; a host without an outbox. The raw client sends bytes that were encoded before, one after the other.',
  ],
  columns: ['what', 'on', 'limit is', 'message bytes'],
  run: rowsOf,
}
