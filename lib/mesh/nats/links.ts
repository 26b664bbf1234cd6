// Probes the links between the local hub and remote hubs: on both accounts, in both directions.

import type { Logger } from '../../observe/logger.ts'
import { delay, systemTimers } from '../../util/timers.ts'
import type { Member } from '../mesh.ts'
import type { Connection } from './connection.ts'
import { serve } from './request-handler.ts'

export type LinksOptions = {
  node: string
  /** Leads to remote nodes. Throws while it is down. */
  connection(): Connection
  members(options: { timeout: number }): Promise<Member[]>
  /** True when the mesh is closed: waiting ends. */
  stopped(): boolean
  logger: Logger
}

/** A node whose hub is linked with the local hub; `answers`: it answers requests of the system account. */
type LinkedNode = { node: string; answers: boolean }

/** For new links to connect and to answer. */
const LINK_TIMEOUT_MS = 1_500
/** How long all links must answer before they count as stable. */
const STABLE_FOR_MS = 60
/** For a hub or a leaf to answer across a link. */
const PROBE_TIMEOUT_MS = 250
/** For a peer that probes the other direction before it answers. */
const MUTUAL_PROBE_TIMEOUT_MS = 600
/** Few, because each probe sends a request to all hubs. */
const PENDING_PROBE_LIMITS = { requests: 200, bytes: 64 * 1024 }

const REACHABLE = 'reachable'
const text = new TextDecoder()
const subjectOf = (node: string) => `enmesh.probe.${node}`

export class Links {
  readonly #options: LinksOptions

  constructor(options: LinksOptions) {
    this.#options = options
  }

  /** Answers the probes of remote nodes. */
  serve(): void {
    const { connection, node, logger } = this.#options
    const handler = (data: Uint8Array) => this.#answer(text.decode(data))
    serve({ connection: connection(), subject: subjectOf(node), handler, limits: PENDING_PROBE_LIMITS, logger })
  }

  /** The number of links that the local hub reports, and the linked nodes that cannot be reached in both directions. */
  async check(except: ReadonlySet<string> = new Set()): Promise<{ count: number; unreachable: string[] }> {
    const linkedNodes = (await this.#linkedNodes()).filter(({ node }) => !except.has(node))
    const reachable = await Promise.all(linkedNodes.map(({ node, answers }) => answers && this.#isReachable(node)))
    const unreachable = linkedNodes.filter((_, index) => !reachable[index]).map(({ node }) => node)
    return { count: linkedNodes.length, unreachable }
  }

  /**
   * Waits until `expected` links are stable, or the time-out, and returns the unreachable nodes without the `ignored` ones. Waits a
   * little longer than one successful check, because hubs that learn of each other by gossip link by themselves.
   */
  async waitUntilStable(ignored: ReadonlySet<string>, expected: number): Promise<string[]> {
    const end = systemTimers.elapsed() + LINK_TIMEOUT_MS
    for (let stableSince = 0; ; await delay(10)) {
      const { count, unreachable } = await this.check(ignored)
      const isStable = unreachable.length === 0 && count + ignored.size >= expected
      if (!isStable) stableSince = 0
      else if (stableSince === 0) stableSince = systemTimers.elapsed()
      const isDone = stableSince > 0 && systemTimers.elapsed() - stableSince >= STABLE_FOR_MS
      if (isDone || systemTimers.elapsed() > end || this.#options.stopped()) return unreachable
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

  /** The node's answer; undefined without one. The node probes `asker` in the other direction before it answers. */
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
