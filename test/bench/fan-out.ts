// Transactions of one node to three others, and around a ring, compared with the plain client.

import type { NatsConnection } from 'nats'
import { subscribe, type TestNode } from '../support/cluster.ts'
import { arriving, rawArriving } from './arrival.ts'
import { type Contender, compare } from './compare.ts'
import { Counter, flow } from './flow.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import { emptyStream, meshClient, RawPublisher, RawReader, sending, storeClient, WINDOW } from './raw-client.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { CALLS, messageOf, publishing, transactionsOf } from './transactions.ts'

const SIZE = 200
const table = 'dog'
const rawTable = 'raw'
const rawFan = 'raw publish, 3 pulls'
const rawRing = 'raw, relayed'

/** Sends on the first node until everything has arrived at these databases. */
function enmesh(nodes: readonly TestNode[], at: readonly NullHost[], seconds: number): Contender {
  const { cluster } = nodes[0]!
  const send = publishing(cluster, transactionsOf(cluster, table, SIZE))
  return arriving('enmesh', {
    at: at.map(({ applied }) => applied),
    send: () => flow(send, { window: CALLS, seconds }),
    empty: () => Promise.all(nodes.map((node) => node.cluster.purgeStream({ database: 'dev', table }))),
  })
}

/** Copies the stream of `from` into the stream of `to`, within the window. */
async function relay(scene: Scene, from: TestNode, to: TestNode, client: NatsConnection): Promise<void> {
  const publisher = await RawPublisher.open(client, to.name, rawTable)
  let inFlight = 0
  const stored = () => {
    inFlight--
    reader.refill()
  }
  const ignore = () => {}
  const reader = await RawReader.open({
    client: await meshClient(scene, to),
    node: from.name,
    table: rawTable,
    hasRoom: () => inFlight < WINDOW / 2,
    take: (message) => {
      inFlight++
      publisher.send(message.data, stored, ignore)
    },
  })
}

/** As enmesh does it: the first node also reads the transactions that come back. */
async function rawAround(scene: Scene, nodes: readonly TestNode[], seconds: number): Promise<Contender> {
  const [one, two, three] = nodes as [TestNode, TestNode, TestNode]
  const clients = [await storeClient(scene, one), await storeClient(scene, two), await storeClient(scene, three)]
  const publisher = await RawPublisher.open(clients[0]!, one.name, rawTable)
  await relay(scene, one, two, clients[1]!)
  await relay(scene, two, three, clients[2]!)
  const back = new Counter()
  const reader = { client: await meshClient(scene, one), node: three.name, table: rawTable }
  await RawReader.open({ ...reader, take: () => back.add(1) })
  const send = sending(publisher, messageOf(one.cluster, table, SIZE))
  return arriving(rawRing, {
    at: [back],
    send: () => flow(send, { window: WINDOW, seconds }),
    empty: () => Promise.all(clients.map((client) => emptyStream(client, rawTable))),
  })
}

const hostsFor = (count: number) => Array.from({ length: count }, () => new NullHost([table]))

async function* fanRows(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const hosts = hostsFor(4)
  const nodes = await startNodes(scene, hosts)
  const [one, ...others] = nodes
  for (const other of others) await subscribe(one, other, { [table]: 'publish' })
  const contenders = [
    enmesh(nodes.slice(0, 1), hosts.slice(1), options.seconds),
    await rawArriving(scene, rawFan, { from: one, to: others, size: SIZE, seconds: options.seconds }),
  ]
  const comparison = { what: '1 to 3 nodes, tx/s', figure: 'rate', enmesh: 'enmesh', limit: rawFan }
  const entries = messageOf(one.cluster, table, SIZE).byteLength
  yield* await compare(contenders, [comparison], { on: 'no database', entries }, options)
}

async function* ringRows(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const hosts = hostsFor(3)
  const nodes = await startNodes(scene, hosts, { clustering: { republishMessages: true } })
  for (const [index, node] of nodes.entries())
    await subscribe(node, nodes[(index + 1) % nodes.length]!, { [table]: 'publish' })
  const contenders = [enmesh(nodes, hosts.slice(2), options.seconds), await rawAround(scene, nodes, options.seconds)]
  const comparison = { what: 'ring of 3, tx/s', figure: 'rate', enmesh: 'enmesh', limit: rawRing }
  const entries = messageOf(nodes[0].cluster, table, SIZE).byteLength
  yield* await compare(contenders, [comparison], { on: 'no database', entries }, options)
}

export const fanOut: Part = {
  name: 'fan-out',
  legend: [
    'Until all that one node published is applied on three others; and in a ring with republishMessages, in which each node',
    'relays to the next, until the third has applied everything. All nodes in one process, all ends of the',
    'raw client as well; it waits until everything has come back to the first node.',
  ],
  columns: ['what', 'on', 'limit is', 'message bytes'],
  async *run(options) {
    yield* playing((scene) => fanRows(scene, options))
    yield* playing((scene) => ringRows(scene, options))
  },
}
