// From `publish` on one node to applied on another, compared with the plain client through the same four servers.

import { subscribe, type TestNode } from '../support/cluster.ts'
import { arriving, rawArriving } from './arrival.ts'
import { atLeast, type Contender, compare } from './compare.ts'
import { type Counter, flow } from './flow.ts'
import { CountingLmdbHost } from './lmdb.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import { WINDOW } from './raw-client.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { CALLS, messageOf, publishing, rowsOf, transactionsOf } from './transactions.ts'

const SIZE = 200
const table = 'dog'
/** Transactions in the outbox of the reference host for each second of a round. */
const OUTBOX = 15_000

const rawName = 'raw publish, raw pull'
/** It encodes and decodes each transaction as enmesh does. */
const codedName = 'raw, MessagePack'
const what = 'publish to applied, tx/s'

/** The contender of enmesh. `send` resolves with the number of transactions when they are acknowledged. */
const contender = (name: string, one: TestNode, applied: Counter, send: () => Promise<number>): Contender =>
  arriving(name, { at: [applied], send, empty: () => one.cluster.purgeStream({ database: 'dev', table }) })

async function* onNoDatabase(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const { seconds } = options
  const hosts = [new NullHost([table]), new NullHost([table])] as const
  const [one, two] = await startNodes(scene, hosts)
  await subscribe(one, two, { [table]: 'publish' })
  const next = transactionsOf(one.cluster, table, SIZE)
  const enmesh = contender('enmesh', one, hosts[1].applied, () =>
    flow(publishing(one.cluster, next), { window: CALLS, seconds }),
  )
  const path = { from: one, to: [two], size: SIZE, seconds }
  const contenders = [
    enmesh,
    await rawArriving(scene, rawName, path),
    await rawArriving(scene, codedName, { ...path, isCoded: true }),
  ]
  const entries = messageOf(one.cluster, table, SIZE).byteLength
  const comparison = { what, figure: 'rate', enmesh: 'enmesh', limit: rawName, target: atLeast(2.5) }
  const coded = { what, figure: 'rate', enmesh: 'enmesh', limit: codedName }
  yield* await compare(contenders, [comparison, coded], { on: 'no database', entries }, options)
}

/** Committed before the measurement, or as part of it. */
async function* onLmdb(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const { seconds } = options
  const hosts = [await CountingLmdbHost.open(scene, [table]), await CountingLmdbHost.open(scene, [table])] as const
  const [one, two] = await startNodes(scene, hosts)
  await subscribe(one, two, { [table]: 'publish' })
  const { applied } = hosts[1]
  const row = rowsOf(SIZE)
  const outbox: Contender = {
    name: 'outbox',
    run: async () => {
      const count = Math.ceil(OUTBOX * seconds)
      const filled = (await hosts[0].fill(one.cluster, table, SIZE, count)).values()
      const send = publishing(one.cluster, () => filled.next().value!)
      return contender('outbox', one, applied, () => flow(send, { window: CALLS, count })).run()
    },
  }
  const commits = contender('commits', one, applied, () => {
    hosts[0].serve(one.cluster)
    return flow((settled, failed) => void hosts[0].commit(table, row()).then(settled, failed), {
      window: WINDOW,
      seconds,
    })
  })
  const contenders = [outbox, commits, await rawArriving(scene, rawName, { from: one, to: [two], size: SIZE, seconds })]
  const entries = messageOf(one.cluster, table, SIZE).byteLength
  const of = (enmesh: string, more: object) => ({ what, figure: 'rate', enmesh, limit: rawName, ...more })
  const comparisons = [
    of('outbox', { target: atLeast(1) }),
    of('commits', { what: 'commit to applied, tx/s', target: atLeast(0.6) }),
  ]
  yield* await compare(contenders, comparisons, { on: 'LMDB', entries }, options)
}

export const endToEnd: Part = {
  name: 'end-to-end',
  legend: [
    'Two nodes, four servers; both managers in one process, and so are both ends of the raw client, whose reader is a pull',
    'consumer without acknowledgements, within the same bounds. It sends one message a transaction, of bytes that were encoded before, and',
    'does not look at what arrives; with MessagePack it encodes and decodes each. Rows of 200 bytes. No database: a host that does nothing.',
    'LMDB: the reference host at both ends; the transactions are in its outbox before the measurement. commit to applied:',
    'the measurement includes the commits.',
  ],
  columns: ['what', 'on', 'limit is', 'message bytes'],
  async *run(options) {
    yield* playing((scene) => onNoDatabase(scene, options))
    yield* playing((scene) => onLmdb(scene, options))
  },
}
