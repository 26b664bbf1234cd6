// The routes of the hub: brings them into effect while it runs, and verifies the resulting links.

import type { Logger } from '../../observe/logger.ts'
import { delay } from '../../util/timers.ts'
import type { Route } from '../mesh.ts'
import { address } from './configuration.ts'
import type { HubMonitor } from './hub-monitor.ts'
import type { Links } from './links.ts'
import { RouteNames, type RouteNamesOptions } from './route-names.ts'
import type { Configuration, NatsServer } from './server.ts'

export type HubRoutesOptions = {
  hub: NatsServer
  links: Links
  /** The hub's configuration with these routes. */
  configuration(routes: readonly Route[]): Configuration
  monitor: HubMonitor
  names: Pick<RouteNamesOptions, 'resolve' | 'local' | 'secure' | 'timers'>
  /** Runs changes of the servers' configuration one after the other. */
  exclusively(work: () => Promise<void>): Promise<void>
  logger: Logger
  stopped(): boolean
}

const RELOAD_TIMEOUT_MS = 2_000
/** Attempts to connect a new route before the hub is restarted. */
const MAX_ATTEMPTS = 3

const isSame = (some: readonly Route[], others: readonly Route[]) =>
  some.map(address).join() === others.map(address).join()

export class HubRoutes {
  readonly #options: HubRoutesOptions
  readonly #names: RouteNames
  /** The routes of the last configuration that was written. */
  #latest: readonly Route[] = []
  /** False while it is not known that the hub uses them: a change failed. */
  #inEffect = true

  constructor(options: HubRoutesOptions) {
    this.#options = options
    const { names, monitor, logger, exclusively } = options
    this.#names = new RouteNames({
      ...names,
      linked: () => monitor.linkedAddresses(),
      changed: () => exclusively(() => this.#apply()),
      logger,
    })
  }

  /** The configuration to start the hub with. */
  async first(routes: readonly Route[]): Promise<Configuration> {
    await this.#names.set(routes)
    this.#latest = this.#names.routes
    return this.current
  }

  /** The configuration with the current routes. */
  get current(): Configuration {
    return this.#options.configuration(this.#latest)
  }

  /** Number of routes in the hub's configuration, routes to itself left out. */
  get count(): number {
    return this.#latest.length
  }

  /** Follows the names of routes until `close`. */
  watch(): void {
    this.#names.watch()
  }

  /** Call it when the hub lost a link. */
  linkLost(): void {
    this.#names.checkSoon()
  }

  close(): void {
    this.#names.close()
  }

  /** Resolves when these routes are in effect. After a rejection any routes are set again, the previous ones too. */
  async set(routes: readonly Route[]): Promise<void> {
    await this.#names.set(routes)
    await this.#apply()
  }

  /** Lets the hub read its configuration and its certificates again. */
  async reload(): Promise<void> {
    await this.#change(this.#latest, this.#latest)
  }

  async #apply(): Promise<void> {
    const [previous, desired] = [this.#latest, this.#names.routes]
    if (this.#options.stopped() || (this.#inEffect && isSame(previous, desired))) return
    this.#inEffect = false
    this.#latest = desired
    await this.#change(previous, desired)
    this.#inEffect = true
  }

  /**
   * Checks all links after every change: a server (2.9.10) that reloads its configuration also rebuilds its accounts, and a route that
   * connects at that moment may lose their messages for good, in one direction. Added routes are removed and added again. When that
   * does not help, or the link is not a new one, the hub restarts.
   */
  async #change(previous: readonly Route[], desired: readonly Route[]): Promise<void> {
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
        logger.warn({ peers: unreachable }, 'restarting the hub server: linked nodes do not answer')
        return hub.restart(configuration(desired))
      }
      logger.info({ peers: unreachable, attempt }, 'one-way link on a new route, reconnecting')
      await this.#reload(desired.filter((route) => known.has(address(route))))
    }
  }

  /** Waits for the server's confirmation, a new load time. */
  async #reload(routes: readonly Route[]): Promise<void> {
    const { hub, configuration, monitor } = this.#options
    const signal = AbortSignal.timeout(RELOAD_TIMEOUT_MS)
    const before = await monitor.loadTime(signal).catch(() => undefined)
    await hub.reload(configuration(routes))
    // A hub that is down reads the new file when it starts.
    while (before !== undefined && (await monitor.loadTime(signal)) === before) await delay(5)
  }
}
