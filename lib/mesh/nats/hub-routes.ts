// The routes of our hub changed while it runs, and the links that come of it made to work.

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
  /** When the hub read its configuration last, by its own account. */
  loadTime(signal: AbortSignal): Promise<string>
  logger: Logger
  stopped(): boolean
}

const RELOAD_TIMEOUT_MS = 2_000
/** Times that a new route is connected again before the hub is started anew. */
const MAX_ATTEMPTS = 3

export class HubRoutes {
  readonly #options: HubRoutesOptions

  constructor(options: HubRoutesOptions) {
    this.#options = options
  }

  /**
   * Resolves when the wanted routes are in effect. Links are tried out after every change: while a server (2.9.10) reads its
   * configuration anew it also rebuilds its accounts, and a route that connects at that moment may stay deaf to them for good, in
   * either direction. What we added is taken out and put in again; when that does not help, or the link is another's, the hub is
   * started anew.
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
        logger.warn({ nodes: unreachable }, 'the hub server is started anew: nodes it is linked with do not answer')
        return hub.restart(configuration(desired))
      }
      logger.info({ nodes: unreachable, attempt }, 'a new route is deaf, connecting it again')
      await this.#reload(desired.filter((route) => known.has(address(route))))
    }
  }

  /** Confirmed from the server itself: a reload shows only as a new time of loading. */
  async #reload(routes: readonly Route[]): Promise<void> {
    const { hub, configuration, loadTime } = this.#options
    const signal = AbortSignal.timeout(RELOAD_TIMEOUT_MS)
    const before = await loadTime(signal).catch(() => undefined)
    await hub.reload(configuration(routes))
    // A hub that is down reads the new file when it is started.
    while (before !== undefined && (await loadTime(signal)) === before) await delay(5)
  }
}
