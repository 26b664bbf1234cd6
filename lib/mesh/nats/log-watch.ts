// What only the servers' logs tell: who was refused and why, and to which hub the leaf is connected.

import type { Logger } from '../../logger.ts'
import type { MeshListener } from '../mesh.ts'

/** The same refusal repeats every second for as long as the other side tries. */
const REPEAT_AFTER = 60_000

export class LogWatch {
  readonly #listener: MeshListener
  readonly #logger: Logger
  readonly #told = new Map<string, number>()
  /** Address of the hub that the leaf is connected to, `host:port`. */
  leafRemote: string | undefined

  constructor(listener: MeshListener, logger: Logger) {
    this.#listener = listener
    this.#logger = logger
  }

  line(server: string, level: string, text: string): void {
    if (level === 'ERR' || level === 'FTL') this.#logger.warn({ server }, text)
    else this.#logger.debug({ server }, text)
    const leaf = /^(\S+:\d+) - lid\S* - Leafnode connection created/.exec(text)
    if (leaf && server === 'leaf') this.leafRemote = leaf[1]
    const refusal = refusalIn(text)
    if (refusal) this.#refused(refusal.peer, refusal.reason)
  }

  #refused(peer: string, reason: string): void {
    const key = `${peer} ${reason}`
    const now = Date.now()
    if (now - (this.#told.get(key) ?? Number.NEGATIVE_INFINITY) < REPEAT_AFTER) return
    this.#told.set(key, now)
    this.#listener.refused(peer, reason)
  }
}

const REFUSALS: [pattern: RegExp, reason: string][] = [
  [/authorization violation|authentication (?:error|failure|timeout)/i, 'the user or password of the cluster differs'],
  [/duplicate (?:remote )?(?:server )?name|has a duplicate name/i, 'there are two nodes of one name'],
  [/cluster name .*does not match|different cluster name|wrong cluster/i, 'the cluster has another name'],
  [/tls handshake error|x509:|certificate/i, 'its certificate was not accepted'],
]

/** Who was kept out and why, if that is what this line says. */
export function refusalIn(text: string): { peer: string; reason: string } | undefined {
  const found = REFUSALS.find(([pattern]) => pattern.test(text))
  if (!found) return undefined
  const peer = /(\S+:\d+) - [rlc]id/.exec(text)?.[1] ?? /\b([\w.-]+:\d+)\b/.exec(text)?.[1] ?? 'unknown'
  return { peer, reason: `${found[1]} (${text})` }
}
