// What messages of HarperDB contain besides the writes that are applied: new attributes, and writes to tables that are not subscribed.

import type { RemoteTable } from '../../host/host.ts'
import type { Logger } from '../../observe/logger.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import type { Timers } from '../../util/timers.ts'
import type { MessageExtras } from '../wire/message-chain.ts'
import type { LocalTables } from './local-tables.ts'

export type MessageExtrasContext = {
  tables: Pick<LocalTables, 'onAttributesDefined'>
  counters: ReplicationCounters
  logger: Logger
  timers: Timers
}

/** ms between two log lines about writes of one source to tables that are not subscribed. */
const REPORT_INTERVAL_MS = 60_000

export class ExtrasHandler {
  readonly #context: MessageExtrasContext
  readonly #source: RemoteTable
  #reportedAt = Number.NEGATIVE_INFINITY

  constructor(context: MessageExtrasContext, source: RemoteTable) {
    this.#context = context
    this.#source = source
  }

  handle({ attributes, notSubscribed }: MessageExtras): void {
    const { tables, counters } = this.#context
    // Nothing waits for it: rows with such an attribute bring it as well.
    for (const [table, names] of attributes) void tables.onAttributesDefined({ ...this.#source, table }, names)
    for (const [table, writes] of notSubscribed) {
      counters.notSubscribed += writes
      this.#report(table, writes)
    }
  }

  #report(table: string, writes: number): void {
    const { logger, timers } = this.#context
    const now = timers.elapsed()
    if (now - this.#reportedAt < REPORT_INTERVAL_MS) return
    this.#reportedAt = now
    const { node: peer, database, table: stream } = this.#source
    logger.warn({ peer, database, table, stream, writes }, 'writes to a table that is not subscribed were not applied')
  }
}
