// What the running hub reports about itself, on its system account.

import { parseJson } from './connection.ts'
import type { LocalConnections } from './local-connections.ts'

const TIMEOUT_MS = 2_000

export class HubMonitor {
  readonly #connections: LocalConnections
  /** Number of connections to other hubs when the hub was asked last; undefined before that. */
  routes: number | undefined

  constructor(connections: LocalConnections) {
    this.#connections = connections
  }

  /** The time at which the hub last read its configuration. */
  async loadTime(signal: AbortSignal): Promise<string> {
    const { data } = await this.#ask<{ data: { config_load_time: string; routes?: number } }>('VARZ', signal)
    this.routes = data.routes ?? 0
    return data.config_load_time
  }

  /** The remote addresses of the hub's routes, in both directions. */
  async linkedAddresses(): Promise<ReadonlySet<string>> {
    const { data } = await this.#ask<{ data: { routes?: { ip: string }[] } }>('ROUTEZ')
    return new Set(data.routes?.map(({ ip }) => ip))
  }

  async #ask<T>(report: string, signal?: AbortSignal): Promise<T> {
    const connection = this.#connections.hub
    const subject = `$SYS.REQ.SERVER.${connection.serverId}.${report}`
    return parseJson<T>(await connection.request(subject, '', { timeout: TIMEOUT_MS, signal }))
  }
}
