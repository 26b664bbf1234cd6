// Drops old tombstones of all tables from time to time, so that deleted rows do not take space for ever.

import { setInterval as intervals } from 'node:timers/promises'
import type { ClusterManager } from '../../lib/index.ts'
import type { Logger } from '../../lib/observe/logger.ts'
import type { Database } from './database.ts'

export type TombstonesOptions = {
  database: Database
  cluster: Pick<ClusterManager, 'tombstoneLimit'>
  /** ms */
  interval: number
  logger: Logger
}

/** Starts at once. The returned function resolves when nothing is dropped any more. */
export function dropTombstonesRegularly({
  database,
  cluster,
  interval,
  logger,
}: TombstonesOptions): () => Promise<void> {
  const ending = new AbortController()
  const { signal } = ending
  const drop = async () => {
    try {
      for (const { database: name, table } of database.tables()) {
        // Read for each table: it is undefined as soon as the clock of this node is ahead.
        const limit = cluster.tombstoneLimit()
        if (limit === undefined || signal.aborted) return
        const dropped = await database.dropTombstones(name, table, limit, signal)
        if (dropped > 0) logger.info({ database: name, table, dropped }, 'Old tombstones dropped')
      }
    } catch (error) {
      logger.warn({ error }, 'Dropping old tombstones failed, it is tried again later')
    }
  }
  const run = async () => {
    await drop()
    // It ends when the signal aborts.
    for await (const _ of intervals(interval, undefined, { signal, ref: false })) await drop()
  }
  const running = run().catch(() => {})
  return () => {
    ending.abort()
    return running
  }
}
