// What the leaf and its hub know of each other's subscriptions. A server before 2.9.22 may lose one for good, in one direction, that is made,
// or arrives from another hub, while leaf and hub link (nats-server, pull request 4464): requests to the node find nobody then, or those of
// the node. So at the start nothing is subscribed before the leaf has sent its subscriptions, and after each link both sides are compared.

import { delay } from '../../util/timers.ts'
import type { HubMonitor } from './hub-monitor.ts'
import { isAtLeast, type Version } from './versions.ts'

export type LeafInterestOptions = {
  node: string
  monitor: Pick<HubMonitor, 'subscribed' | 'subjectsOfLeaf' | 'subjectsOfHub' | 'routedSubjects'>
  /** Of the local servers; undefined before they have started. */
  version(): Version | undefined
}

const REPAIRED_IN: Version = [2, 9, 22]
const POLL_INTERVAL_MS = 10
/** A subscription may be on its way, or have ended. */
const CONFIRM_AFTER_MS = 1_000
/** Subscriptions that last as long as their node runs, of enmesh and of HarperDB. */
const LASTING = /^(?:enmesh\..*|[^.]+\.__request__|\$JS\.[^.]+-leaf\.API\.>)$/

export class LeafInterest {
  readonly #options: LeafInterestOptions

  constructor(options: LeafInterestOptions) {
    this.#options = options
  }

  /** Resolves with true when the local hub has received the leaf's subscriptions, and with false when `isOver` returns true before. Never rejects. */
  async sent(isOver: () => boolean): Promise<boolean> {
    const { node, monitor } = this.#options
    while (!isOver()) {
      // The hub may be down.
      const known = await monitor.subjectsOfLeaf(node).catch(() => undefined)
      if (known) return !isOver()
      await delay(POLL_INTERVAL_MS)
    }
    return false
  }

  /**
   * The lasting subscriptions of this node that its hub does not know, and those of remote nodes that the hub knows and the leaf does not.
   * Undefined when one of them does not answer. Never rejects.
   */
  async missing(): Promise<string[] | undefined> {
    const version = this.#options.version()
    if (!version || isAtLeast(version, REPAIRED_IN)) return []
    const found = await this.#differences()
    if (!found || found.length === 0) return found
    await delay(CONFIRM_AFTER_MS)
    const confirmed = await this.#differences()
    return confirmed && found.filter((subject) => confirmed.includes(subject))
  }

  async #differences(): Promise<string[] | undefined> {
    const { node, monitor } = this.#options
    try {
      const own = monitor.subscribed()
      const [routed, ofHub, ofLeaf] = await Promise.all([
        monitor.routedSubjects(),
        monitor.subjectsOfHub(),
        monitor.subjectsOfLeaf(node),
      ])
      if (!ofHub || !ofLeaf) return undefined
      return [...lacking(ofLeaf, own), ...lacking(ofHub, routed)]
    } catch {
      return undefined
    }
  }
}

function lacking(known: readonly string[], wanted: readonly string[]): string[] {
  const present = new Set(known)
  return [...new Set(wanted)].filter((subject) => LASTING.test(subject) && !present.has(subject))
}
