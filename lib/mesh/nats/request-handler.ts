// Answers requests on a subject, a bounded number at once, so that a flood of requests does not exhaust memory.

import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { systemTimers } from '../../util/timers.ts'
import type { Connection } from './connection.ts'

export type RequestHandler = {
  connection: Connection
  subject: string
  /** Resolves with the answer. When it rejects there is no answer, and the requester times out. */
  handler(data: Uint8Array, subject: string): Promise<Uint8Array | string>
  /** Limits of concurrent requests and their bytes; further requests get no answer. */
  limits: { requests: number; bytes: number }
  logger: Logger
}

const LOG_INTERVAL_MS = 60_000

export function serve({ connection, subject, handler, limits, logger }: RequestHandler): { unsubscribe(): void } {
  let requests = 0
  let bytes = 0
  let loggedAt = Number.NEGATIVE_INFINITY
  return connection.subscribe(subject, async (message) => {
    const size = message.data.byteLength
    if (requests >= limits.requests || bytes + size > limits.bytes) {
      if (systemTimers.elapsed() - loggedAt < LOG_INTERVAL_MS) return
      loggedAt = systemTimers.elapsed()
      return logger.warn({ subject, requests, bytes }, 'request limit reached, dropping requests')
    }
    requests++
    bytes += size
    try {
      message.respond(await handler(message.data, message.subject))
    } catch (error) {
      logger.warn({ subject, reason: reasonOf(error) }, 'request handler failed')
    } finally {
      requests--
      bytes -= size
    }
  })
}
