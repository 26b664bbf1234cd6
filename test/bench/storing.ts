// A contender whose messages are stored in streams, which are emptied after each run.

import type { NatsConnection } from 'nats'
import type { Contender } from './compare.ts'
import { rateOf } from './flow.ts'
import { emptyStream, storedBytes } from './raw-client.ts'

/** `work` resolves with the number of transactions; `stored`: bytes of each in the streams of the `tables`. */
export const storing = (
  client: NatsConnection,
  name: string,
  tables: readonly string[],
  work: () => Promise<number>,
): Contender => ({
  name,
  run: async () => {
    let sent = 0
    const figures = await rateOf(async () => {
      sent = await work()
      return sent
    })
    let stored = 0
    for (const table of tables) {
      stored += await storedBytes(client, table)
      await emptyStream(client, table)
    }
    return { ...figures, stored: stored / sent }
  },
})
