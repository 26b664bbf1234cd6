// Finds in the servers' logs what they report nowhere else: rejected connections, and the hub that the leaf is connected to.

import type { Logger } from '../../observe/logger.ts'
import { RateLimit } from '../../util/rate-limit.ts'
import { systemTimers } from '../../util/timers.ts'
import type { MeshListener } from '../mesh.ts'
import { CLOSED_AT_ONCE, RouteClosings } from './route-closings.ts'

/** A rejected peer retries every second; the same rejection is reported once in this time. */
const REPEAT_AFTER_MS = 60_000
/** Events that are remembered for that. */
const MAX_REMEMBERED = 1_000
const MAX_QUOTED_LENGTH = 500
/** Of a line, in which a rejection is searched: patterns take quadratic time. */
const MAX_PARSED_LENGTH = 1_000
/** Strangers cause log lines: what exceeds these limits is counted only. */
const LINE_LIMIT = { limit: 2_000, windowMs: 1_000 }
const WARNING_LIMIT = { limit: 100, windowMs: 60_000 }
const REJECTION_LIMIT = { limit: 60, windowMs: 60_000 }
/** The address and the kind of a connection that a line is about. */
const CONNECTION = /(\S+:\d+) - [rlc]id/
/** Not for a second connection to a hub that is linked already, or to itself. */
const ROUTE_CLOSED = /^\S+:\d+ - rid:\d+ - Router connection closed(?!: Duplicate)/

export type LogWatchOptions = {
  rejected: MeshListener['rejected']
  /** The leaf connected to a hub. */
  linked(): void
  /** The hub lost a link to another hub. */
  routeLost(): void
  logger: Logger
}

export class LogWatch {
  readonly #options: LogWatchOptions
  readonly #closings = new RouteClosings()
  /** When each event was last reported; the oldest first. */
  readonly #lastReported = new Map<string, number>()
  readonly #lines: RateLimit
  readonly #warnings: RateLimit
  readonly #rejections: RateLimit
  /** Address of the hub that the leaf is connected to, `host:port`. */
  leafRemote: string | undefined

  constructor(options: LogWatchOptions) {
    this.#options = options
    const { logger } = options
    const rateLimit = (limit: { limit: number; windowMs: number }, message: string) =>
      new RateLimit({ ...limit, leftOut: (count) => logger.warn({ count }, message) })
    this.#lines = rateLimit(LINE_LIMIT, 'lines of the server log left out: too many')
    this.#warnings = rateLimit(WARNING_LIMIT, 'errors in the server log left out: too many')
    this.#rejections = rateLimit(REJECTION_LIMIT, 'more connections rejected than are listed')
  }

  line(server: string, level: string, line: string): void {
    const { linked, routeLost } = this.#options
    // Servers log the URLs of routes with their credentials, and what strangers send.
    const text = line.replace(/:\/\/[^@\s/]*@/g, '://').replace(/\p{Cc}/gu, '?')
    this.#report(server, level, text)
    if (server === 'hub' && ROUTE_CLOSED.test(text)) routeLost()
    const leaf = server === 'leaf' && /^(\S+:\d+) - lid\S* - Leafnode connection created for account: MESH/.exec(text)
    if (!leaf) return
    this.leafRemote = leaf[1]
    linked()
  }

  #closedAtOnce(text: string): { peer: string; reason: string } | undefined {
    const peer = this.#closings.line(text, systemTimers.elapsed())
    return peer === undefined ? undefined : { peer, reason: CLOSED_AT_ONCE }
  }

  #report(server: string, level: string, text: string): void {
    const { logger, rejected } = this.#options
    // A warning without a connection is about the server's own configuration, for example that it does not verify certificates.
    const isOwnWarning = level === 'WRN' && !CONNECTION.test(text)
    const rejection = isOwnWarning
      ? undefined
      : (parseRejection(text.slice(0, MAX_PARSED_LENGTH)) ?? this.#closedAtOnce(text))
    if (rejection) {
      const { peer, reason } = rejection
      // Each attempt has another port.
      if (this.#isRepeated(`${peer.replace(/:\d+$/, '')} ${reason}`)) return
      if (this.#rejections.allows()) rejected(peer, `${reason} (${text.slice(0, MAX_QUOTED_LENGTH)})`)
      return
    }
    const isError = level === 'ERR' || level === 'FTL'
    if (isError && !this.#isRepeated(text.replace(/\d+/g, '#'))) {
      if (this.#warnings.allows()) logger.warn({ server }, text)
    } else if (this.#lines.allows()) logger.debug({ server }, text)
  }

  #isRepeated(event: string): boolean {
    const now = systemTimers.elapsed()
    const key = event.slice(0, MAX_QUOTED_LENGTH)
    const isRepeated = now - (this.#lastReported.get(key) ?? Number.NEGATIVE_INFINITY) < REPEAT_AFTER_MS
    if (isRepeated) return true
    this.#lastReported.delete(key)
    this.#lastReported.set(key, now)
    const [oldest] = this.#lastReported.keys()
    if (this.#lastReported.size > MAX_REMEMBERED) this.#lastReported.delete(oldest!)
    return false
  }
}

const REJECTIONS: [pattern: RegExp, reason: string][] = [
  [/authorization violation|authentication (?:error|failure)/i, 'the user or password of the cluster differs'],
  [/authentication timeout/i, 'it did not log in within the time limit'],
  [/duplicate (?:remote )?(?:server )?name|has a duplicate name/i, 'two nodes have the same name'],
  [/cluster name .*does not match|different cluster name|wrong cluster/i, 'the cluster name differs'],
  [/unknown authority/i, 'its certificate is signed by an unknown authority'],
  [/has expired or is not yet valid/i, 'its certificate has expired or is not yet valid'],
  [
    /certificate is (?:not )?valid for|cannot validate certificate for|any IP SANs/i,
    'its certificate is for another name',
  ],
  [/remote error: tls: (?:bad|unknown|expired) certificate|certificate required/i, 'it rejects the local certificate'],
  [/client didn't provide a certificate/i, 'it sent no certificate of a known authority'],
  [/does not look like a TLS handshake/i, 'it does not speak TLS'],
  [/tls handshake error|x509:|certificate/i, 'its certificate is invalid'],
]

/** The rejected peer and the reason; undefined when the line reports no rejection. */
function parseRejection(text: string): { peer: string; reason: string } | undefined {
  const found = REJECTIONS.find(([pattern]) => pattern.test(text))
  if (!found) return undefined
  const peer = CONNECTION.exec(text)?.[1] ?? /\b([\w.-]+:\d+)\b/.exec(text)?.[1] ?? 'unknown'
  return { peer, reason: found[1] }
}
