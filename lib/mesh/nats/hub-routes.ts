// Changes the routes of the running hub and verifies the resulting links.

import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../../observe/logger.ts'
import type { Route } from '../mesh.ts'
import { address } from './configuration.ts'
import type { Links } from './links.ts'
import type { Configuration, NatsServer } from './server.ts'

export type HubRoutesOptions = {
  hub: NatsServer
  links: Links
  /** The hub's configuration with these routes. */
  configuration(routes: readonly Route[]): Configuration
  /** The time at which the hub last read its configuration, as the hub reports it. */
  loadTime(signal: AbortSignal): Promise<string>
  logger: Logger
  stopped(): boolean
}

const RELOAD_TIMEOUT_MS = 2_000
/** Attempts to connect a new route before the hub is restarted. */
const MAX_ATTEMPTS = 3

export class HubRoutes {
  readonly #options: HubRoutesOptions

  constructor(options: HubRoutesOptions) {
    this.#options = options
  }

  /**
   * Resolves when the desired routes are in effect. Checks all links after every change: a server (2.9.10) that reloads its
   * configuration also rebuilds its accounts, and a route that connects at that moment may lose their messages for good, in one
   * direction. Added routes are removed and added again. When that does not help, or the link is not a new one, the hub restarts.
   */
  async change(previous: readonly Route[], desired: readonly Route[]): Promise<void> {
    const { hub, links, configuration, logger, stopped } = this.#options
    const known = new Set(previous.map(address))
    const added = desired.filter((route) => !known.has(address(route)))
    const before = await links.check()
    const alreadyUnreachable = new Set(before.unreachable)
    const expected = before.count + added.length
    for (let attempt = 1; ; attempt++) {
      await this.#reload(desired)
      const unreachable = await links.waitUntilStable(alreadyUnreachable, expected)
      if (unreachable.length === 0 || stopped()) return
      if (attempt === MAX_ATTEMPTS || added.length === 0) {
        logger.warn({ nodes: unreachable }, 'restarting the hub server: linked nodes do not answer')
        return hub.restart(configuration(desired))
      }
      logger.info({ nodes: unreachable, attempt }, 'one-way link on a new route, reconnecting')
      await this.#reload(desired.filter((route) => known.has(address(route))))
    }
  }

  /** Waits for the server's confirmation, a new load time. */
  async #reload(routes: readonly Route[]): Promise<void> {
    const { hub, configuration, loadTime } = this.#options
    const signal = AbortSignal.timeout(RELOAD_TIMEOUT_MS)
    const before = await loadTime(signal).catch(() => undefined)
    await hub.reload(configuration(routes))
    // A hub that is down reads the new file when it starts.
    while (before !== undefined && (await loadTime(signal)) === before) await delay(5)
  }
}
