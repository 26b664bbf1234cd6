// Publishing on one node with acknowledgements, compared with the plain client on the same leaf.

import { headers } from 'nats'
import { leafName } from '../../lib/mesh/nats/configuration.ts'
import type { TestNode } from '../support/cluster.ts'
import { atLeast, atMax, type Comparison, type Contender, compare, type Target } from './compare.ts'
import { flow } from './flow.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import { makeStream, RawPublisher, sending, storeClient, WINDOW } from './raw-client.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { storing } from './storing.ts'
import { CALLS, messageOf, nextId, publishing, sizes, transactionsOf } from './transactions.ts'

const tables = { enmesh: 'dog', inbox: 'inbox', core: 'core', js: 'js' }
const windows = [1, 32, 256]
/** Messages between two flushes. */
const CORE_BATCH = 1_000

const oneInbox = 'raw client, one inbox'
const core = 'core publish, flush'
const jsPublish = (window: number) => `js.publish, ${window}`

/** Bytes of a transaction of 200 bytes in the stream when each was a message. */
const STORED_AS_MESSAGE = 394
/** Of the rates, as ratios, and of the stored bytes. */
type Targets = Readonly<Record<'inbox' | 'js' | 'stored', Target | undefined>>
const targets: Readonly<Record<number, Targets>> = {
  200: { inbox: atLeast(1.5), js: atLeast(6), stored: atMax(Math.floor(0.7 * STORED_AS_MESSAGE)) },
  2000: { inbox: atLeast(1), js: undefined, stored: undefined },
}

const comparisons = (enmesh: string, { inbox, js, stored }: Targets): Comparison[] => {
  const against = (limit: string) => ({ what: 'publish, tx/s', figure: 'rate', enmesh, limit })
  return [
    { ...against(oneInbox), ...(inbox && { target: inbox }) },
    against(core),
    ...windows.slice(0, -1).map((window) => against(jsPublish(window))),
    { ...against(jsPublish(windows.at(-1)!)), ...(js && { target: js }) },
    {
      ...against(oneInbox),
      what: 'stored, bytes/tx',
      figure: 'stored',
      isAbsolute: true,
      ...(stored && { target: stored }),
    },
  ]
}

async function contendersOf(scene: Scene, node: TestNode, size: number, options: PartOptions) {
  const client = await storeClient(scene, node)
  const raw = await RawPublisher.open(client, node.name, tables.inbox)
  await makeStream(client, node.name, tables.core)
  await makeStream(client, node.name, tables.js)
  const { seconds } = options
  const transaction = transactionsOf(node.cluster, tables.enmesh, size)
  const message = messageOf(node.cluster, tables.enmesh, size)
  const subjectIn = (table: string) => `txn.dev.${table}.${leafName(node.name)}`
  const identified = () => {
    const values = headers()
    values.set('Nats-Msg-Id', nextId())
    values.set('origin', node.name)
    return { headers: values }
  }
  const jetStream = client.jetstream()
  const emptying = (table: string, name: string, work: () => Promise<number>) => storing(client, name, [table], work)
  const contenders: Contender[] = [
    emptying(tables.enmesh, 'enmesh', () => flow(publishing(node.cluster, transaction), { window: CALLS, seconds })),
    emptying(tables.inbox, oneInbox, () => flow(sending(raw, message), { window: WINDOW, seconds })),
    emptying(tables.core, core, async () => {
      const end = performance.now() + seconds * 1_000
      let sent = 0
      while (performance.now() < end) {
        for (let count = 0; count < CORE_BATCH; count++) client.publish(subjectIn(tables.core), message, identified())
        sent += CORE_BATCH
        await client.flush()
      }
      return sent
    }),
    ...windows.map((window) =>
      emptying(tables.js, jsPublish(window), () =>
        flow(
          (settled, failed) =>
            void jetStream.publish(subjectIn(tables.js), message, identified()).then(settled, failed),
          { window, seconds },
        ),
      ),
    ),
  ]
  return { contenders, bytes: message.byteLength }
}

async function* rowsOf(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const [node] = await startNodes(scene, [new NullHost(Object.values(tables))])
  for (const [index, { on, size }] of sizes.entries()) {
    const { contenders, bytes } = await contendersOf(scene, node, size, options)
    // The code is the same for both sizes.
    const given = index === 0 ? options : { ...options, warmUpRounds: 1 }
    yield* await compare(contenders, comparisons('enmesh', targets[size]!), { on, entries: bytes }, given)
  }
}

export const publish: Part = {
  name: 'publish',
  legend: [
    'Transactions of one row of that size, acknowledged by the leaf; a host without an outbox. All in one process. The raw',
    `client sends one message a transaction, with ${WINDOW.toLocaleString('en-US')} in flight, which is what enmesh has in flight in full messages. It sends bytes that`,
    "were encoded before; enmesh encodes each transaction. Ratios are medians of the rounds' ratios.",
    'cpu us: processor time of this process for each transaction. stored: in the stream, with headers.',
  ],
  columns: ['what', 'on', 'limit is', 'message bytes'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
