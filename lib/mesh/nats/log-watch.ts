// Finds in the servers' logs what they report nowhere else: rejected connections, and the hub that the leaf is connected to.

import type { Logger } from '../../observe/logger.ts'
import type { MeshListener } from '../mesh.ts'
import { CLOSED_AT_ONCE, RouteClosings } from './route-closings.ts'

/** A rejected peer retries every second; the same rejection is reported once in this time. */
const REPEAT_AFTER_MS = 60_000

export type LogWatchOptions = {
  rejected: MeshListener['rejected']
  /** The leaf connected to a hub. */
  linked(): void
  logger: Logger
}

export class LogWatch {
  readonly #options: LogWatchOptions
  readonly #closings = new RouteClosings()
  readonly #lastReported = new Map<string, number>()
  /** Address of the hub that the leaf is connected to, `host:port`. */
  leafRemote: string | undefined

  constructor(options: LogWatchOptions) {
    this.#options = options
  }

  line(server: string, level: string, line: string): void {
    const { linked, logger } = this.#options
    // Servers log the URLs of routes with their credentials.
    const text = line.replace(/:\/\/[^@\s]*@/g, '://')
    const rejection = parseRejection(text) ?? this.#closedAtOnce(text)
    if (rejection) this.#reportRejection(rejection.peer, rejection.reason, text)
    else if ((level === 'ERR' || level === 'FTL') && !this.#isRepeated(text)) logger.warn({ server }, text)
    else logger.debug({ server }, text)
    const leaf = server === 'leaf' && /^(\S+:\d+) - lid\S* - Leafnode connection created for account: MESH/.exec(text)
    if (!leaf) return
    this.leafRemote = leaf[1]
    linked()
  }

  #closedAtOnce(text: string): { peer: string; reason: string } | undefined {
    const peer = this.#closings.line(text, performance.now())
    return peer === undefined ? undefined : { peer, reason: CLOSED_AT_ONCE }
  }

  #reportRejection(peer: string, reason: string, text: string): void {
    // Each attempt has another port.
    if (!this.#isRepeated(`${peer.replace(/:\d+$/, '')} ${reason}`)) this.#options.rejected(peer, `${reason} (${text})`)
  }

  #isRepeated(event: string): boolean {
    const now = performance.now()
    const key = event.replace(/\d+/g, '#')
    if (now - (this.#lastReported.get(key) ?? Number.NEGATIVE_INFINITY) < REPEAT_AFTER_MS) return true
    this.#lastReported.set(key, now)
    return false
  }
}

const REJECTIONS: [pattern: RegExp, reason: string][] = [
  [/authorization violation|authentication (?:error|failure|timeout)/i, 'the user or password of the cluster differs'],
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
  const peer = /(\S+:\d+) - [rlc]id/.exec(text)?.[1] ?? /\b([\w.-]+:\d+)\b/.exec(text)?.[1] ?? 'unknown'
  return { peer, reason: found[1] }
}
