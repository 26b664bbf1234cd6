// Transactions that are sent here and have arrived there, by us or by the plain client, as contenders.

import type { TestNode } from '../support/cluster.ts'
import type { Contender } from './compare.ts'
import { Counter, flow, rateOf } from './flow.ts'
import type { Scene } from './nodes.ts'
import { emptyStream, meshClient, RawPublisher, RawReader, sending, storeClient, WINDOW } from './raw-client.ts'
import { messageOf } from './transactions.ts'

export type Arriving = {
  /** Where all of it must arrive. */
  at: readonly Counter[]
  /** Resolves with a number of transactions, once they are acknowledged. */
  send(): Promise<number>
  /** Makes room for the next round. */
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

export type RawArriving = { from: TestNode; to: readonly TestNode[]; size: number; seconds: number }

/** The plain client publishes on one node's leaf, and reads on those of others. */
export async function rawArriving(scene: Scene, name: string, { from, to, size, seconds }: RawArriving) {
  const table = 'raw'
  const client = await storeClient(scene, from)
  const publisher = await RawPublisher.open(client, from.name, table)
  const at: Counter[] = []
  for (const other of to) {
    const counter = new Counter()
    at.push(counter)
    const take = () => counter.add(1)
    await RawReader.open({ client: await meshClient(scene, other), node: from.name, table, take })
  }
  const send = sending(publisher, messageOf(from.cluster, table, size))
  return arriving(name, {
    at,
    send: () => flow(send, { window: WINDOW, seconds }),
    empty: () => emptyStream(client, table),
  })
}
