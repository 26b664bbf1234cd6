// Contenders that send transactions on one node until they have arrived on others: enmesh, or the plain client.

import type { Msg } from 'nats'
import { decodePart, encodePart } from '../../lib/replication/wire/part.ts'
import type { TestNode } from '../support/cluster.ts'
import type { Contender } from './compare.ts'
import { Counter, flow, rateOf, type Send } from './flow.ts'
import type { Scene } from './nodes.ts'
import { emptyStream, meshClient, RawPublisher, RawReader, sending, storeClient, WINDOW } from './raw-client.ts'
import { messageOf, transactionsOf } from './transactions.ts'

export type Arriving = {
  /** The hosts at which all transactions must arrive. */
  at: readonly Counter[]
  /** Resolves with the number of transactions when they are acknowledged. */
  send(): Promise<number>
  /** Cleans up for the next round. */
  empty(): Promise<unknown>
}

export const arriving = (name: string, { at, send, empty }: Arriving): Contender => ({
  name,
  run: async () => {
    const before = at.map(({ count }) => count)
    const figures = await rateOf(async () => {
      const sent = await send()
      await Promise.all(at.map((each, index) => each.reach(before[index]! + sent)))
      return sent
    })
    await empty()
    return figures
  },
})

/** `isCoded`: each transaction is encoded when it is sent, and decoded when it arrives. */
export type RawArriving = {
  from: TestNode
  to: readonly TestNode[]
  size: number
  seconds: number
  isCoded?: boolean
}

/** The plain client publishes on the leaf of one node, and reads on the leaves of others. */
export async function rawArriving(
  scene: Scene,
  name: string,
  { from, to, size, seconds, isCoded = false }: RawArriving,
) {
  const table = isCoded ? 'coded' : 'raw'
  const client = await storeClient(scene, from)
  const publisher = await RawPublisher.open(client, from.name, table)
  const at: Counter[] = []
  for (const other of to) {
    const counter = new Counter()
    at.push(counter)
    const source = { node: from.name, database: 'dev', table }
    const take = ({ data }: Pick<Msg, 'data'>) => {
      if (isCoded) decodePart(source, source.node, data)
      counter.add(1)
    }
    await RawReader.open({ client: await meshClient(scene, other), node: from.name, table, take })
  }
  const next = transactionsOf(from.cluster, table, size)
  const encoding: Send = (settled, failed) => {
    const transaction = next()
    publisher.send(encodePart(transaction, transaction.writes, from.name), settled, failed)
  }
  const send = isCoded ? encoding : sending(publisher, messageOf(from.cluster, table, size))
  return arriving(name, {
    at,
    send: () => flow(send, { window: WINDOW, seconds }),
    empty: () => emptyStream(client, table),
  })
}
