// Answering what others ask on a subject: a bounded number of requests at once, whoever floods us.

import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import type { Connection } from './connection.ts'

export type RequestHandler = {
  connection: Connection
  subject: string
  /** Resolves with the answer. One that rejects gives none, and the asker waits for its time-out. */
  handler(data: Uint8Array): Promise<Uint8Array | string>
  /** Requests being answered at once, and bytes of them; what comes beyond gets no answer. */
  limits: { requests: number; bytes: number }
  logger: Logger
}

/** ms between two log lines about too many of them. */
const LOG_INTERVAL_MS = 60_000

export function serve({ connection, subject, handler, limits, logger }: RequestHandler): { unsubscribe(): void } {
  let requests = 0
  let bytes = 0
  let loggedAt = Number.NEGATIVE_INFINITY
  return connection.subscribe(subject, async (message) => {
    const size = message.data.byteLength
    if (requests >= limits.requests || bytes + size > limits.bytes) {
      if (performance.now() - loggedAt < LOG_INTERVAL_MS) return
      loggedAt = performance.now()
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
