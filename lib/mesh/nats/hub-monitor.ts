// What the running servers report about themselves, on the hub's system account.

import { leafName } from './configuration.ts'
import { parseJson } from './connection.ts'
import type { LocalConnections } from './local-connections.ts'

const TIMEOUT_MS = 2_000
/** The subscriptions of all nodes are in one answer. */
const MAX_REPORT_BYTES = 64 * 1024 * 1024

type Subjects = { subscriptions_list?: string[] }

export class HubMonitor {
  readonly #connections: Pick<LocalConnections, 'hub' | 'mesh' | 'leafSession'>
  /** Number of connections to other hubs when the hub was asked last; undefined before that. */
  routes: number | undefined

  constructor(connections: Pick<LocalConnections, 'hub' | 'mesh' | 'leafSession'>) {
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

  /** What this process subscribes to at the leaf. Throws disconnected. */
  subscribed(): readonly string[] {
    return this.#connections.mesh.subjects
  }

  /** What the leaf of this node subscribes to at the hub; undefined before its subscriptions have arrived. */
  async subjectsOfLeaf(node: string): Promise<string[] | undefined> {
    const { data } = await this.#ask<LeafReport>('LEAFZ', { body: { subscriptions: true } })
    // Leaves of other nodes may be linked with this hub too.
    const isOfNode = (subject: string) => subject.startsWith(`$JS.${leafName(node)}.API.`)
    return (data.leafs ?? []).map(subjectsOf).find((subjects) => subjects.some(isOfNode))
  }

  /** What the hub subscribes to at the local leaf, in the account of the nodes; undefined while they are not linked. Rejects no_responders likewise. */
  async subjectsOfHub(): Promise<string[] | undefined> {
    const server = this.#connections.leafSession
    const { data } = await this.#ask<LeafReport>('LEAFZ', { server, body: { subscriptions: true } })
    const link = data.leafs?.find(({ account }) => account === 'MESH')
    return link && subjectsOf(link)
  }

  async #ask<T>(report: string, { signal, server, body }: Question = {}): Promise<T> {
    const connection = this.#connections.hub
    const subject = `$SYS.REQ.SERVER.${server ?? connection.serverId}.${report}`
    const request = body ? JSON.stringify(body) : ''
    return parseJson<T>(await connection.request(subject, request, { timeout: TIMEOUT_MS, signal }), MAX_REPORT_BYTES)
  }
}

type LeafReport = { data: { leafs?: (Subjects & { account?: string })[] | null } }
type Question = { signal?: AbortSignal; server?: string; body?: object }

const subjectsOf = ({ subscriptions_list: subjects = [] }: Subjects): string[] => subjects
