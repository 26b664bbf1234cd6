// What only the servers' logs tell: who was refused and why, and to which hub the leaf is connected.

import type { Logger } from '../../observe/logger.ts'
import type { MeshListener } from '../mesh.ts'

/** The same refusal repeats every second for as long as the other side tries. */
const REPEAT_AFTER_MS = 60_000

export class LogWatch {
  readonly #rejected: MeshListener['rejected']
  readonly #linked: () => void
  readonly #logger: Logger
  readonly #lastReported = new Map<string, number>()
  /** Address of the hub that the leaf is connected to, `host:port`. */
  leafRemote: string | undefined

  constructor(rejected: MeshListener['rejected'], linked: () => void, logger: Logger) {
    this.#rejected = rejected
    this.#linked = linked
    this.#logger = logger
  }

  line(server: string, level: string, line: string): void {
    // Servers tell routes with their credentials.
    const text = line.replace(/:\/\/[^@\s]*@/g, '://')
    const rejection = parseRejection(text)
    if (rejection) this.#reportRejection(rejection.peer, rejection.reason, text)
    else if ((level === 'ERR' || level === 'FTL') && !this.#isRepeated(text)) this.#logger.warn({ server }, text)
    else this.#logger.debug({ server }, text)
    const leaf = server === 'leaf' && /^(\S+:\d+) - lid\S* - Leafnode connection created for account: MESH/.exec(text)
    if (!leaf) return
    this.leafRemote = leaf[1]
    this.#linked()
  }

  #reportRejection(peer: string, reason: string, text: string): void {
    // Each attempt comes from another port.
    if (!this.#isRepeated(`${peer.replace(/:\d+$/, '')} ${reason}`)) this.#rejected(peer, `${reason} (${text})`)
  }

  #isRepeated(what: string): boolean {
    const now = performance.now()
    const key = what.replace(/\d+/g, '#')
    if (now - (this.#lastReported.get(key) ?? Number.NEGATIVE_INFINITY) < REPEAT_AFTER_MS) return true
    this.#lastReported.set(key, now)
    return false
  }
}

const REJECTIONS: [pattern: RegExp, reason: string][] = [
  [/authorization violation|authentication (?:error|failure|timeout)/i, 'the user or password of the cluster differs'],
  [/duplicate (?:remote )?(?:server )?name|has a duplicate name/i, 'there are two nodes of one name'],
  [/cluster name .*does not match|different cluster name|wrong cluster/i, 'the cluster has another name'],
  [/unknown authority/i, 'its certificate is of an authority we do not know'],
  [/has expired or is not yet valid/i, 'its certificate has expired or is not yet valid'],
  [
    /certificate is (?:not )?valid for|cannot validate certificate for|any IP SANs/i,
    'its certificate is for another name',
  ],
  [
    /remote error: tls: (?:bad|unknown|expired) certificate|certificate required/i,
    'it does not accept our certificate',
  ],
  [/client didn't provide a certificate/i, 'it has no certificate of an authority that we know'],
  [/does not look like a TLS handshake/i, 'it does not speak TLS'],
  [/tls handshake error|x509:|certificate/i, 'its certificate was not accepted'],
]

/** Who was kept out and why, if that is what this line says. */
export function parseRejection(text: string): { peer: string; reason: string } | undefined {
  const found = REJECTIONS.find(([pattern]) => pattern.test(text))
  if (!found) return undefined
  const peer = /(\S+:\d+) - [rlc]id/.exec(text)?.[1] ?? /\b([\w.-]+:\d+)\b/.exec(text)?.[1] ?? 'unknown'
  return { peer, reason: found[1] }
}
