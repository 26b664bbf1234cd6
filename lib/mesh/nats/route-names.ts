// Hub routes by name: finds all addresses of a name, leaves the local ones out, and follows changes. A hub alone connects each route
// to one address, drawn at random, and gives the route up when that is its own or one that it is linked with (`connectToRoute` in
// route.go): hubs with one common name would stay in groups.

import { lookup } from 'node:dns/promises'
import { BlockList, isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Timers } from '../../util/timers.ts'
import type { Route } from '../mesh.ts'
import { address } from './configuration.ts'

/** All addresses of a name, IPv4 and IPv6. Rejects when it has none. */
export type Resolve = (name: string) => Promise<readonly string[]>

/** By the resolver of the operating system. */
export const resolveBySystem: Resolve = async (name) =>
  (await lookup(name, { all: true })).map((found) => found.address)

export type RouteNamesOptions = {
  resolve: Resolve
  /** Where the local hub listens for routes. */
  local: Route
  /** Routes use TLS. */
  secure: boolean
  /** Addresses of the hubs that the local hub is linked with. */
  linked(): Promise<ReadonlySet<string>>
  /** Brings `routes` into effect. When it rejects, it is called again. */
  changed(): Promise<void>
  timers: Timers
  logger: Logger
}

/** How long a start or a change of routes waits for a name server. */
const FIRST_LOOKUP_TIMEOUT_MS = 2_000
const LOOKUP_TIMEOUT_MS = 5_000
/** Time between lookups: growing while an address is not linked, the longest otherwise. */
const LOOKUP_INTERVAL_MS = { first: 1_000, max: 20_000, jitter: 0.5 }

const hostOf = ({ host }: Route) => host.replace(/^\[|\]$/g, '')
const isWildcard = (host: string) => host === '0.0.0.0' || host === '::'
const family = (ip: string) => (isIP(ip) === 6 ? 'ipv6' : 'ipv4')

export class RouteNames {
  readonly #options: RouteNamesOptions
  readonly #backoff = new Backoff(LOOKUP_INTERVAL_MS)
  /** Between lookups while all addresses are linked. */
  readonly #quiet = new Backoff({ ...LOOKUP_INTERVAL_MS, first: LOOKUP_INTERVAL_MS.max })
  #configured: readonly Route[] = []
  /** The last addresses of each name, sorted. */
  readonly #answers = new Map<string, readonly string[]>()
  /** Lookups without an answer yet: a name server that hangs gets no second request. */
  readonly #pending = new Map<string, Promise<readonly string[]>>()
  /** Names whose failure is logged. */
  readonly #failing = new Set<string>()
  #isLocal: (host: string, port: number) => boolean = () => false
  #wasLinked = false
  #cancel: (() => void) | undefined
  #polling = false
  #closed = false

  constructor(options: RouteNamesOptions) {
    this.#options = options
  }

  /** The routes of the hub's configuration: addresses in place of names that have several. */
  get routes(): readonly Route[] {
    const expanded = this.#configured.map((route) => this.#expand(route))
    // With TLS the hub expects in the certificate of an address the first name among its routes (`saveRouteTLSName` in route.go).
    const ordered = [...expanded.filter(({ length }) => length > 1), ...expanded.filter(({ length }) => length <= 1)]
    return [...new Map(ordered.flat().map((route) => [address(route), route])).values()]
  }

  /** Sets the configured routes. Resolves when their names are looked up, or after 2 s. */
  async set(routes: readonly Route[]): Promise<void> {
    this.#configured = routes
    const names = this.#names()
    for (const name of [...this.#answers.keys()]) if (!names.includes(name)) this.#answers.delete(name)
    const isNew = names.some((name) => !this.#answers.has(name))
    if (isNew) await this.#lookUp(FIRST_LOOKUP_TIMEOUT_MS)
    if (this.#cancel && isNew) this.checkSoon()
  }

  /** Follows changes from now on, until `close`. */
  watch(): void {
    this.#schedule(this.#backoff.next())
  }

  /** Call it when a link was lost. */
  checkSoon(): void {
    if (!this.#cancel || this.#polling) return
    this.#backoff.reset()
    this.#schedule(this.#backoff.next())
  }

  close(): void {
    this.#closed = true
    this.#cancel?.()
  }

  #names(): string[] {
    return [...new Set(this.#configured.map(hostOf))].filter((host) => isIP(host) === 0)
  }

  #expand(route: Route): Route[] {
    const answer = this.#answers.get(hostOf(route))
    if (!answer) return [route]
    const others = answer.filter((ip) => !this.#isLocal(ip, route.port))
    // One address, or one of each family: one hub, which the server finds by itself, also at another address.
    const isOneHub =
      answer.filter((ip) => isIP(ip) === 4).length <= 1 && answer.filter((ip) => isIP(ip) === 6).length <= 1
    if (isOneHub && others.length === answer.length) return [route]
    const addresses = others.map((host) => ({ host, port: route.port }))
    // With TLS the name stays among the routes, because certificates contain it and not the addresses.
    return this.#options.secure && addresses.length > 0 ? [route, ...addresses] : addresses
  }

  #schedule(ms: number): void {
    this.#cancel?.()
    if (!this.#closed) this.#cancel = this.#options.timers.after(ms, () => void this.#poll())
  }

  async #poll(): Promise<void> {
    if (this.#names().length === 0) return this.#schedule(this.#quiet.next())
    this.#polling = true
    const before = this.#key()
    await this.#lookUp(LOOKUP_TIMEOUT_MS)
    if (this.#closed) return
    if (this.#key() !== before) this.#backoff.reset()
    try {
      // Also when nothing changed: an earlier change may have failed.
      await this.#options.changed()
    } catch (error) {
      this.#options.logger.warn({ reason: reasonOf(error) }, 'changed addresses of routes not in effect, retrying')
    }
    const isLinked = await this.#isLinked()
    if (this.#wasLinked && !isLinked) this.#backoff.reset()
    this.#wasLinked = isLinked
    this.#polling = false
    this.#schedule(isLinked ? this.#quiet.next() : this.#backoff.next())
  }

  #key(): string {
    return this.routes.map(address).join()
  }

  /** True when each address of each name is linked. */
  async #isLinked(): Promise<boolean> {
    const linked = await this.#linked()
    return this.#configured.every((route) => {
      const host = hostOf(route)
      if (isIP(host) !== 0) return true
      return this.#answers.get(host)?.every((ip) => linked.has(ip) || this.#isLocal(ip, route.port)) ?? false
    })
  }

  #linked(): Promise<ReadonlySet<string>> {
    return this.#options.linked().catch(() => new Set())
  }

  async #lookUp(timeout: number): Promise<void> {
    await Promise.all(this.#names().map((name) => this.#lookUpName(name, timeout)))
    await this.#findLocal()
  }

  async #lookUpName(name: string, timeout: number): Promise<void> {
    const { logger } = this.#options
    const known = this.#answers.get(name)
    try {
      const found = await this.#resolve(name, timeout)
      if (found.length === 0) throw new Error('no addresses')
      const gone = known?.filter((ip) => !found.includes(ip)) ?? []
      // A removed route ends its link, and a name may list only the nodes that are ready.
      const linked = gone.length > 0 ? await this.#linked() : new Set()
      const kept = gone.filter((ip) => linked.has(ip))
      this.#answers.set(name, [...new Set([...found, ...kept])].sort())
      if (this.#failing.delete(name)) logger.info({ name }, 'name of a route resolves again')
    } catch (error) {
      if (this.#failing.has(name) || this.#closed) return
      this.#failing.add(name)
      const fields = { name, reason: reasonOf(error) }
      logger.warn(
        known ? { ...fields, addresses: known } : fields,
        known
          ? 'name of a route does not resolve, keeping its addresses'
          : 'name of a route does not resolve, retrying',
      )
    }
  }

  async #resolve(name: string, timeout: number): Promise<readonly string[]> {
    const { resolve, timers } = this.#options
    const pending = this.#pending.get(name) ?? resolve(name).finally(() => this.#pending.delete(name))
    this.#pending.set(name, pending)
    let cancel = () => {}
    const expired = new Promise<never>((_, reject) => {
      cancel = timers.after(timeout, () => reject(new Error(`no answer within ${timeout} ms`)))
    })
    return Promise.race([pending, expired]).finally(() => cancel())
  }

  /** Interfaces may change while the process runs. */
  async #findLocal(): Promise<void> {
    const { local } = this.#options
    const host = hostOf(local)
    const own = new BlockList()
    if (isWildcard(host)) {
      own.addSubnet('127.0.0.0', 8, 'ipv4')
      for (const { address: ip } of Object.values(networkInterfaces()).flatMap((found) => found ?? []))
        own.addAddress(ip, family(ip))
    } else {
      const listening = isIP(host) ? [host] : await this.#resolve(host, LOOKUP_TIMEOUT_MS).catch(() => [])
      for (const ip of listening) own.addAddress(ip, family(ip))
    }
    this.#isLocal = (ip, port) => port === local.port && own.check(ip, family(ip))
  }
}
