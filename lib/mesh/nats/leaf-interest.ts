// What the leaf and its hub know of each other's subscriptions. A server before 2.9.22 may lose one for good, in one direction, that is made,
// or arrives from another hub, while leaf and hub link (nats-server, pull request 4464): requests to the node find nobody then, or those of
// the node. So nothing is subscribed before the leaf has sent its subscriptions, and what arrived from other hubs is compared afterwards.

import { delay, systemTimers } from '../../util/timers.ts'
import type { HubMonitor } from './hub-monitor.ts'
import { isAtLeast, type Version } from './versions.ts'

export type SubscriptionReports = Pick<HubMonitor, 'knowsLeaf' | 'leafSubjects' | 'routedSubjects'>

const REPAIRED_IN: Version = [2, 9, 22]
/** A leaf that is at the hub of another node is not known to the local one. */
const SENT_TIMEOUT_MS = 1_000
const POLL_INTERVAL_MS = 5
/** A subscription may be on its way to the leaf, or have ended. */
const CONFIRM_AFTER_MS = 1_000
/** Subscriptions that last as long as their node runs, of enmesh and of HarperDB. */
const LASTING = /^(?:enmesh\..*|[^.]+\.__request__|\$JS\.[^.]+-leaf\.API\.>)$/

export class LeafInterest {
  readonly #node: string
  readonly #monitor: SubscriptionReports
  readonly #version: () => Version | undefined
  #links = 0

  /** `version`: of the local servers; undefined before they have started. */
  constructor(node: string, monitor: SubscriptionReports, version: () => Version | undefined) {
    this.#node = node
    this.#monitor = monitor
    this.#version = version
  }

  /**
   * Call it when the leaf has connected to a hub. Resolves with true when the hub has received the leaf's subscriptions, or has not in a
   * second, and with false if the leaf has connected again meanwhile. Never rejects.
   */
  async sent(): Promise<boolean> {
    const link = ++this.#links
    const end = systemTimers.elapsed() + SENT_TIMEOUT_MS
    while (link === this.#links && systemTimers.elapsed() < end) {
      // The hub may be down.
      if (await this.#monitor.knowsLeaf(this.#node).catch(() => false)) break
      await delay(POLL_INTERVAL_MS)
    }
    return link === this.#links
  }

  /** The subjects that remote nodes serve and the leaf does not know, although its hub does. Never rejects. */
  async missing(): Promise<string[]> {
    const version = this.#version()
    if (!version || isAtLeast(version, REPAIRED_IN)) return []
    const found = await this.#difference()
    if (found.length === 0) return []
    await delay(CONFIRM_AFTER_MS)
    const confirmed = new Set(await this.#difference())
    return found.filter((subject) => confirmed.has(subject))
  }

  async #difference(): Promise<string[]> {
    const monitor = this.#monitor
    try {
      const [routed, known] = await Promise.all([monitor.routedSubjects(), monitor.leafSubjects()])
      const leaf = new Set(known)
      return [...new Set(routed)].filter((subject) => LASTING.test(subject) && !leaf.has(subject))
    } catch {
      // Without an answer nothing is known to be missing: the next link is checked again.
      return []
    }
  }
}
