// The links between our hub and others, tried out: on both accounts, and from both ends.

import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../../logger.ts'
import type { Member } from '../mesh.ts'
import type { Connection } from './connection.ts'
import { serve } from './service.ts'

export type LinksOptions = {
  node: string
  /** To other nodes. Throws while that is down. */
  connection(): Connection
  members(options: { timeout: number }): Promise<Member[]>
  /** Nobody waits for links any more. */
  stopped(): boolean
  logger: Logger
}

/** A node whose hub ours is linked with; `answers`: that hub hears ours. */
type Neighbour = { node: string; answers: boolean }

/** ms for new links to be there and heard, and for which all must be well. */
const PATIENCE = 1_500
const CALM = 60
/** ms for a hub or a leaf to answer across a link; and for the node there to have tried it in the other direction. */
const PROBE_TIMEOUT = 250
const MUTUAL_TIMEOUT = 600

/** Each of them has all hubs asked. */
const MOST_PROBES = { requests: 200, bytes: 64 * 1024 }

const HEARD = 'heard'
const text = new TextDecoder()
const subjectOf = (node: string) => `enmesh.probe.${node}`

export class Links {
  readonly #options: LinksOptions

  constructor(options: LinksOptions) {
    this.#options = options
  }

  /** Answers those who try their links with us. */
  serve(): void {
    const { connection, node, logger } = this.#options
    const handler = (data: Uint8Array) => this.#answer(text.decode(data))
    serve({ connection: connection(), subject: subjectOf(node), handler, most: MOST_PROBES, logger })
  }

  /** How many there are, by our hub's own account, and the nodes behind them that do not hear us or we not them. */
  async look(except: ReadonlySet<string> = new Set()): Promise<{ count: number; deaf: string[] }> {
    const neighbours = (await this.#neighbours()).filter(({ node }) => !except.has(node))
    const heard = await Promise.all(neighbours.map(({ node, answers }) => answers && this.#isHeard(node)))
    const deaf = neighbours.filter((_, index) => !heard[index]).map(({ node }) => node)
    return { count: neighbours.length, deaf }
  }

  /**
   * The deaf ones, but for the `silent` ones that never answered, when all that are expected had their time; a little longer
   * than that, because those we know by gossip link themselves.
   */
  async settled(silent: ReadonlySet<string>, expected: number): Promise<string[]> {
    const end = performance.now() + PATIENCE
    for (let calmSince = 0; ; await delay(10)) {
      const { count, deaf } = await this.look(silent)
      const calm = deaf.length === 0 && count + silent.size >= expected
      if (!calm) calmSince = 0
      else if (calmSince === 0) calmSince = performance.now()
      const settled = calmSince > 0 && performance.now() - calmSince >= CALM
      if (settled || performance.now() > end || this.#options.stopped()) return deaf
    }
  }

  async #neighbours(): Promise<Neighbour[]> {
    const { node: self, members } = this.#options
    const all = await members({ timeout: PROBE_TIMEOUT }).catch(() => [])
    const answered = new Set(all.map(({ node }) => node))
    const linked = all.find(({ node }) => node === self)?.connectedNodes ?? []
    return linked.map((node) => ({ node, answers: answered.has(node) }))
  }

  async #isHeard(node: string): Promise<boolean> {
    return (await this.#probe(node, this.#options.node, MUTUAL_TIMEOUT)) === HEARD
  }

  /** The node's answer; undefined when there is none. `asker` is tried in the other direction before it answers. */
  async #probe(node: string, asker: string, timeout: number): Promise<string | undefined> {
    try {
      return (await this.#options.connection().request(subjectOf(node), asker, { timeout })).string()
    } catch {
      return undefined
    }
  }

  async #answer(asker: string): Promise<string> {
    if (asker === '') return HEARD
    const [answer, members] = await Promise.all([
      this.#probe(asker, '', PROBE_TIMEOUT),
      this.#options.members({ timeout: PROBE_TIMEOUT }).catch(() => []),
    ])
    return answer !== undefined && members.some(({ node }) => node === asker) ? HEARD : 'deaf'
  }
}
