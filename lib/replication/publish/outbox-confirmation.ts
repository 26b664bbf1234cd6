// Confirms to the host which transactions are stored, so that the host can remove them from its outbox.

import { reasonOf } from '../../errors.ts'
import type { TableName } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import type { IdQueue } from '../../util/id-queue.ts'
import { delay } from '../../util/timers.ts'
import type { OutgoingPart, PendingTransaction } from './pending-transaction.ts'
import type { PublishedPositions } from './published-positions.ts'

export type OutboxConfirmationOptions = {
  positions: PublishedPositions
  logger: Logger
  /** In the order of the outbox. Confirmed transactions are removed. */
  pending: IdQueue<PendingTransaction>
  /** Transactions that the outbox keeps, by id. */
  rejected: ReadonlyMap<string, unknown>
  onConfirmed(stored: readonly PendingTransaction[]): void
}

const RETRY_DELAY_MS = 1_000

export class OutboxConfirmation {
  readonly #options: OutboxConfirmationOptions
  #confirming: Promise<void> | undefined
  #closed = false

  constructor(options: OutboxConfirmationOptions) {
    this.#options = options
  }

  schedule(): void {
    this.#confirming ??= this.#confirm().finally(() => {
      this.#confirming = undefined
      // A transaction may have been stored while the last round ended.
      const oldest = this.#options.pending.at(0)
      if (oldest?.unstoredParts === 0 && !this.#closed) this.schedule()
    })
  }

  /** From now on a failed confirmation is not retried. */
  stopRetrying(): void {
    this.#closed = true
  }

  async idle(): Promise<void> {
    await this.#confirming
  }

  /**
   * Confirms the longest prefix of the outbox whose transactions are wholly stored. So the outbox holds of each table exactly
   * the transactions after the table's confirmed position, and a count shows which of them a stream has already.
   */
  async #confirm(): Promise<void> {
    const { positions: published, logger, pending, rejected, onConfirmed } = this.#options
    // One confirmation covers everything that is acknowledged in the same turn.
    await Promise.resolve()
    for (;;) {
      const stored: PendingTransaction[] = []
      for (let next = pending.at(0); next?.unstoredParts === 0; next = pending.at(stored.length)) stored.push(next)
      const newest = stored.at(-1)
      if (!newest) return
      const last = lastParts(stored)
      try {
        const { id, timestamp } = newest
        const positions = last.map(({ publishedPosition }) => publishedPosition)
        await published.confirm({ positions, upTo: { id, timestamp }, keep: [...rejected.keys()] })
        for (const { isRejected } of stored) pending.shift({ isRemembered: !isRejected })
        onConfirmed(stored)
      } catch (error) {
        logger.error({ reason: reasonOf(error) }, 'the host cannot store the published positions, retrying')
        if (this.#closed) return
        await delay(RETRY_DELAY_MS)
      }
    }
  }
}

/** The last part of each table. */
function lastParts(stored: readonly PendingTransaction[]): OutgoingPart[] {
  const last = new Map<TableName, OutgoingPart>()
  let previous: TableName | undefined
  for (let at = stored.length - 1; at >= 0; at--) {
    for (let part = stored[at]!.firstPart; part; part = part.next) {
      // Most transactions are of the same table as the one before.
      if (part.table !== previous && !last.has(part.table)) last.set(part.table, part)
      previous = part.table
    }
  }
  return [...last.values()]
}
