// Answering what others ask on a subject: a bounded number of requests at once, whoever floods us.

import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../logger.ts'
import type { Connection } from './connection.ts'

export type Service = {
  connection: Connection
  subject: string
  /** Resolves with the answer. One that rejects gives none, and the asker waits for its time-out. */
  handler(data: Uint8Array): Promise<Uint8Array | string>
  /** Requests being answered at once, and bytes of them; what comes beyond gets no answer. */
  most: { requests: number; bytes: number }
  logger: Logger
}

/** ms between two log lines about too many of them. */
const TELL_AGAIN = 60_000

export function serve({ connection, subject, handler, most, logger }: Service): { unsubscribe(): void } {
  let requests = 0
  let bytes = 0
  let toldAt = Number.NEGATIVE_INFINITY
  return connection.subscribe(subject, async (message) => {
    const size = message.data.byteLength
    if (requests >= most.requests || bytes + size > most.bytes) {
      if (performance.now() - toldAt < TELL_AGAIN) return
      toldAt = performance.now()
      return logger.warn({ subject, requests, bytes }, 'more is asked of us at once than we can answer')
    }
    requests++
    bytes += size
    try {
      message.respond(await handler(message.data))
    } catch (error) {
      logger.warn({ subject, reason: reasonOf(error) }, 'a request of another node could not be answered')
    } finally {
      requests--
      bytes -= size
    }
  })
}
