// The links between our hub and others, tried out: on both accounts, and from both ends.

import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../../observe/logger.ts'
import type { Member } from '../mesh.ts'
import type { Connection } from './connection.ts'
import { serve } from './request-handler.ts'

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
type LinkedNode = { node: string; answers: boolean }

/** ms for new links to be there and heard, and for which all must be well. */
const LINK_TIMEOUT_MS = 1_500
const STABLE_FOR_MS = 60
/** ms for a hub or a leaf to answer across a link; and for the node there to have tried it in the other direction. */
const PROBE_TIMEOUT_MS = 250
const MUTUAL_PROBE_TIMEOUT_MS = 600

/** Each of them has all hubs asked. */
const PENDING_PROBE_LIMITS = { requests: 200, bytes: 64 * 1024 }

const REACHABLE = 'reachable'
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
    serve({ connection: connection(), subject: subjectOf(node), handler, limits: PENDING_PROBE_LIMITS, logger })
  }

  /** How many there are, by our hub's own account, and the nodes behind them that do not hear us or we not them. */
  async check(except: ReadonlySet<string> = new Set()): Promise<{ count: number; unreachable: string[] }> {
    const linkedNodes = (await this.#linkedNodes()).filter(({ node }) => !except.has(node))
    const reachable = await Promise.all(linkedNodes.map(({ node, answers }) => answers && this.#isReachable(node)))
    const unreachable = linkedNodes.filter((_, index) => !reachable[index]).map(({ node }) => node)
    return { count: linkedNodes.length, unreachable }
  }

  /**
   * The deaf ones, but for the `ignored` ones that never answered, when all that are expected had their time; a little longer
   * than that, because those we know by gossip link themselves.
   */
  async waitUntilStable(ignored: ReadonlySet<string>, expected: number): Promise<string[]> {
    const end = performance.now() + LINK_TIMEOUT_MS
    for (let stableSince = 0; ; await delay(10)) {
      const { count, unreachable } = await this.check(ignored)
      const isStable = unreachable.length === 0 && count + ignored.size >= expected
      if (!isStable) stableSince = 0
      else if (stableSince === 0) stableSince = performance.now()
      const isDone = stableSince > 0 && performance.now() - stableSince >= STABLE_FOR_MS
      if (isDone || performance.now() > end || this.#options.stopped()) return unreachable
    }
  }

  async #linkedNodes(): Promise<LinkedNode[]> {
    const { node: self, members } = this.#options
    const all = await members({ timeout: PROBE_TIMEOUT_MS }).catch(() => [])
    const answered = new Set(all.map(({ node }) => node))
    const linked = all.find(({ node }) => node === self)?.connectedNodes ?? []
    return linked.map((node) => ({ node, answers: answered.has(node) }))
  }

  async #isReachable(node: string): Promise<boolean> {
    return (await this.#probe(node, this.#options.node, MUTUAL_PROBE_TIMEOUT_MS)) === REACHABLE
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
    if (asker === '') return REACHABLE
    const [answer, members] = await Promise.all([
      this.#probe(asker, '', PROBE_TIMEOUT_MS),
      this.#options.members({ timeout: PROBE_TIMEOUT_MS }).catch(() => []),
    ])
    return answer !== undefined && members.some(({ node }) => node === asker) ? REACHABLE : 'unreachable'
  }
}
