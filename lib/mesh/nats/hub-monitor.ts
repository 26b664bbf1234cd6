// What the running servers report about themselves, on the hub's system account.

import { leafName } from './configuration.ts'
import { parseJson } from './connection.ts'
import type { LocalConnections } from './local-connections.ts'

const TIMEOUT_MS = 2_000
/** The subscriptions of all nodes are in one answer. */
const MAX_REPORT_BYTES = 64 * 1024 * 1024

type Subjects = { subscriptions_list?: string[] }

export class HubMonitor {
  readonly #connections: Pick<LocalConnections, 'hub' | 'leafSession'>
  /** Number of connections to other hubs when the hub was asked last; undefined before that. */
  routes: number | undefined

  constructor(connections: Pick<LocalConnections, 'hub' | 'leafSession'>) {
    this.#connections = connections
  }

  /** The time at which the hub last read its configuration. */
  async loadTime(signal: AbortSignal): Promise<string> {
    const { data } = await this.#ask<{ data: { config_load_time: string; routes?: number } }>('VARZ', { signal })
    this.routes = data.routes ?? 0
    return data.config_load_time
  }

  /** The remote addresses of the hub's routes, in both directions. */
  async linkedAddresses(): Promise<ReadonlySet<string>> {
    const { data } = await this.#ask<{ data: { routes?: { ip: string }[] } }>('ROUTEZ')
    return new Set(data.routes?.map(({ ip }) => ip))
  }

  /** The subjects that remote hubs subscribe to, in all accounts. */
  async routedSubjects(): Promise<string[]> {
    const { data } = await this.#ask<{ data: { routes?: Subjects[] } }>('ROUTEZ', { body: { subscriptions: true } })
    return (data.routes ?? []).flatMap(subjectsOf)
  }

  /** True when the hub has received the subscriptions of this node's leaf. */
  async knowsLeaf(node: string): Promise<boolean> {
    const { data } = await this.#ask<LeafReport>('LEAFZ', { body: { subscriptions: true } })
    return (data.leafs ?? []).flatMap(subjectsOf).some((subject) => subject.startsWith(`$JS.${leafName(node)}.API.`))
  }

  /** The subjects that the hub subscribes to at the local leaf. Rejects no_responders while the system accounts are not linked. */
  async leafSubjects(): Promise<string[]> {
    const server = this.#connections.leafSession
    const { data } = await this.#ask<LeafReport>('LEAFZ', { server, body: { subscriptions: true } })
    return (data.leafs ?? []).flatMap(subjectsOf)
  }

  async #ask<T>(report: string, { signal, server, body }: Question = {}): Promise<T> {
    const connection = this.#connections.hub
    const subject = `$SYS.REQ.SERVER.${server ?? connection.serverId}.${report}`
    const request = body ? JSON.stringify(body) : ''
    return parseJson<T>(await connection.request(subject, request, { timeout: TIMEOUT_MS, signal }), MAX_REPORT_BYTES)
  }
}

type LeafReport = { data: { leafs?: Subjects[] | null } }
type Question = { signal?: AbortSignal; server?: string; body?: object }

const subjectsOf = ({ subscriptions_list: subjects = [] }: Subjects): string[] => subjects
