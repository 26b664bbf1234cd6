// The outbox that the publisher reads: the host's, or an empty one for a host without an outbox.

import type { Host, PublishConfirmation, PublishedPosition, Transaction } from './host.ts'

export interface Outbox {
  /** False without an outbox: a transaction is in memory only, from `publish` until it is stored. */
  readonly isDurable: boolean
  readOutbox(after?: { id: string; timestamp: string }): AsyncIterable<Transaction>
  confirmPublished(confirmation: PublishConfirmation): Promise<void>
  publishedPosition(database: string, table: string): Promise<PublishedPosition | undefined>
}

const emptyOutbox: Outbox = {
  isDurable: false,
  async *readOutbox() {},
  async confirmPublished() {},
  async publishedPosition() {
    return undefined
  },
}

export function createOutbox(host: Host): Outbox {
  if (!host.readOutbox || !host.confirmPublished || !host.publishedPosition) return emptyOutbox
  return {
    isDurable: true,
    readOutbox: host.readOutbox.bind(host),
    confirmPublished: host.confirmPublished.bind(host),
    publishedPosition: host.publishedPosition.bind(host),
  }
}
