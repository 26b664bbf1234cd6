// Contenders that send transactions on one node until they have arrived on others: enmesh, or the plain client.

import type { TestNode } from '../support/cluster.ts'
import type { Contender } from './compare.ts'
import { Counter, flow, rateOf } from './flow.ts'
import type { Scene } from './nodes.ts'
import { emptyStream, meshClient, RawPublisher, RawReader, sending, storeClient, WINDOW } from './raw-client.ts'
import { messageOf } from './transactions.ts'

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

export type RawArriving = { from: TestNode; to: readonly TestNode[]; size: number; seconds: number }

/** The plain client publishes on the leaf of one node, and reads on the leaves of others. */
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
