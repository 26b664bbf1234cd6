// Requests to and from remote nodes.

import { type ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { Host } from '../host/host.ts'
import { type Mesh, MeshError } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { Backoff } from '../util/backoff.ts'
import { formatUptime } from '../util/format-uptime.ts'
import { isReadable, readableVersions, type Versions, versionText } from '../util/format-version.ts'
import { pause } from '../util/pause.ts'
import { RateLimit } from '../util/rate-limit.ts'
import type { Timers } from '../util/timers.ts'
import { Heartbeats, type PeerListener } from './heartbeats.ts'
import { PeerVersions } from './peer-versions.ts'
import {
  decodeRequest,
  decodeResponse,
  encode,
  encodeForHarper,
  type PeerLink,
  type PeerRequest,
  type PeerResponse,
  type PositionsPeerRequest,
  PROTOCOL_VERSION,
  positionsRequestOf,
  type RowsPeerRequest,
  readLinks,
  readStatus,
  rowsRequestOf,
  type SystemInfo,
} from './protocol.ts'
import { toClusterError } from './request-error.ts'
import { type RemoteDescription, readTables, toTablesMessage } from './table-descriptions.ts'
import type { TablePosition } from './table-position.ts'

/** The answer of a node to cluster_status; unknown parts are left out. */
export type PeerStatus = {
  status: 'open' | 'NoResponders' | 'Timeout' | 'closed'
  /** ms */
  latency?: number
  uptime?: string
  ports?: { clustering?: number; operations_api?: number }
  systemInfo?: { hdb_version?: string; node_version?: string; platform?: string }
}

export type { PeerListener }

export type PeersOptions = {
  mesh: Mesh
  host: Host
  node: string
  clusteringPort: number
  operationsApiPort: number | undefined
  logger: Logger
  /** ms */
  requestTimeout: number
  /** Answers add_node, update_node, remove_node and compare_node. Rejects with the reason of the refusal. */
  negotiate(request: PeerRequest): Promise<unknown>
  /** Answers requests about the rows of a table. Rejects with the reason of the refusal. */
  answerRows(node: string, request: RowsPeerRequest): Promise<unknown>
  /** Answers reports of positions, and requests for them. Default: none are taken. */
  answerPositions?(request: PositionsPeerRequest): unknown
  /** Answers requests about the links of this node. Default: they are unknown operations. */
  answerLinks?(): PeerLink[]
  /** Local streams that grew recently. */
  positions(): TablePosition[]
  listener: PeerListener
  /** Versions of the protocol that the local node speaks. Default: the current one and the one before. */
  versions?: Versions
}

type PeerRequestOptions = { operation: string; signal?: AbortSignal | undefined }

const MEMBERS_TIMEOUT_MS = 500
/** ms between requests to a node that is joining; together at most half a second. */
const JOIN_BACKOFF = { first: 50, max: 200 }
const MAX_JOIN_ATTEMPTS = 4
/** Characters of a peer's reason. */
const MAX_REASON_LENGTH = 500
/** Lines about rejected requests: every holder of the credentials can send any number of them. */
const LOG_LIMIT = { limit: 20, windowMs: 60_000 }

export class Peers {
  readonly #options: PeersOptions
  readonly #timers: Timers
  readonly #versions: PeerVersions
  readonly #heartbeats: Heartbeats
  readonly #rejections: RateLimit

  constructor(options: PeersOptions) {
    const { mesh, node, logger, positions, listener, versions: local = readableVersions(PROTOCOL_VERSION) } = options
    this.#options = options
    this.#timers = mesh.timers
    this.#versions = new PeerVersions({ local, incompatible: (peer, reason) => listener.rejected(peer, reason) })
    this.#heartbeats = new Heartbeats({ mesh, node, logger, positions, listener, versions: this.#versions })
    const leftOut = (count: number) => logger.warn({ count }, 'more peer requests rejected than are listed')
    this.#rejections = new RateLimit({ ...LOG_LIMIT, leftOut })
  }

  /** Of this process; in its heartbeats. */
  get instance(): string {
    return this.#heartbeats.instance
  }

  start(): void {
    this.#options.mesh.serve((data) => this.#answer(data))
    this.#heartbeats.start()
  }

  /** `start` may be called again. */
  close(): void {
    this.#heartbeats.close()
  }

  /** Forgets all nodes, because this one takes no part for some time; reports those that were up as down. */
  reset(): void {
    this.#heartbeats.reset()
  }

  isUp(node: string): boolean {
    return this.#heartbeats.isUp(node)
  }

  /** See Heartbeats. */
  sessionOf(node: string): string | undefined {
    return this.#heartbeats.sessionOf(node)
  }

  /** True when the node runs HarperDB, as far as its last answer says. */
  isHarper(node: string): boolean {
    return this.#versions.isHarper(node)
  }

  /** True after the first heartbeat of the node. */
  wasHeard(node: string): boolean {
    return this.#versions.isKnown(node)
  }

  /** Call after a reconnection. */
  sendHeartbeat(): void {
    this.#heartbeats.send()
  }

  // --- requests ---------------------------------------------------------------------------------------------------------

  /** The tables of the remote node. Rejects as `request`. */
  async describeTables(node: string, options: PeerRequestOptions): Promise<RemoteDescription[]> {
    const tables = readTables(await this.request(node, { operation: 'describe_all' }, options))
    if (!tables) throw clusterError('peer_rejected', node, 'its table description is unreadable')
    return tables
  }

  /** How the remote node replicates with its peers. Rejects as `request`; peer_rejected for a node of HarperDB, or of an earlier version. */
  async links(node: string, options: { signal?: AbortSignal | undefined } = {}): Promise<PeerLink[]> {
    if (!this.wasHeard(node)) throw clusterError('peer_rejected', node, 'it has sent no heartbeat')
    const operation = 'peer_links'
    const links = readLinks(await this.request(node, { operation }, { operation, ...options }))
    if (!links) throw clusterError('peer_rejected', node, 'its list of links is unreadable')
    return links
  }

  /**
   * Resolves with the message of the answer. Rejects node_not_listening, node_timeout, peer_rejected, mesh_unavailable; the
   * error texts name `options.operation`.
   */
  async request(node: string, request: PeerRequest, { operation, signal }: PeerRequestOptions): Promise<unknown> {
    const { node: self } = this.#options
    const incompatibility = this.#versions.incompatibility(node)
    if (incompatibility !== undefined) throw clusterError('peer_rejected', node, incompatibility)
    let data: Uint8Array
    try {
      const v = this.#versions.versionFor(node)
      const body = { ...request, v, node_name: self, system_info: this.#systemInfo() }
      const pack = this.#versions.isKnown(node) ? encode : encodeForHarper
      data = await this.#send(node, pack(body), signal)
    } catch (error) {
      const timedOut = error instanceof MeshError && error.code === 'timeout'
      // A server that reloaded its configuration may still route to a node that is gone.
      if (timedOut && !(await this.#isMember(node)))
        throw clusterErrorFrom(error, 'node_not_listening', operation, node)
      throw toClusterError(error, operation, node)
    }
    const response = decodeResponse(data)
    if (!response) throw clusterError('peer_rejected', node, 'its answer is unreadable')
    const { status, message, v } = response
    this.#versions.observeAnswer(node, v)
    // The answer of a node that does not speak the version of the request may have another meaning.
    if (v !== undefined && status === 'success' && !isReadable(v, this.#versions.local))
      throw clusterError('peer_rejected', node, this.#versionFault(v))
    if (status === 'success') return message
    throw clusterError('peer_rejected', node, reasonIn(message))
  }

  /** A node that has just joined is a member some milliseconds before all servers know that it answers requests. */
  async #send(node: string, data: Uint8Array, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const { mesh, requestTimeout: timeout } = this.#options
    const backoff = new Backoff(JOIN_BACKOFF)
    for (let attempt = 1; ; attempt++) {
      try {
        return await mesh.request(node, data, { timeout, signal })
      } catch (error) {
        const isUnknown = error instanceof MeshError && error.code === 'no_responders'
        if (!isUnknown || attempt === MAX_JOIN_ATTEMPTS || !(await this.#isMember(node))) throw error
        await pause(this.#timers, backoff.next(), signal ?? new AbortController().signal).catch(() => {
          throw new MeshError('aborted')
        })
      }
    }
  }

  /** True as well when the members cannot be determined. */
  async #isMember(node: string): Promise<boolean> {
    try {
      const members = await this.#options.mesh.members({ timeout: MEMBERS_TIMEOUT_MS })
      return members.some((member) => member.node === node)
    } catch {
      return true
    }
  }

  /** Rejects aborted; every other failure is a status. */
  async status(node: string, options: { signal?: AbortSignal | undefined } = {}): Promise<PeerStatus> {
    const started = this.#timers.elapsed()
    try {
      const message = await this.request(
        node,
        { operation: 'cluster_status' },
        { operation: 'cluster_status', ...options },
      )
      const latency = Math.round(this.#timers.elapsed() - started)
      const { uptime: up, ports, system_info } = readStatus(message) ?? {}
      return {
        status: 'open',
        latency,
        ...(up ? { uptime: up } : {}),
        ...(ports ? { ports } : {}),
        ...(system_info ? { systemInfo: system_info } : {}),
      }
    } catch (error) {
      const { code } = error as ClusterError
      if (code === 'aborted') throw error
      return { status: code === 'node_not_listening' ? 'NoResponders' : code === 'node_timeout' ? 'Timeout' : 'closed' }
    }
  }

  // --- answering --------------------------------------------------------------------------------------------------------

  async #answer(data: Uint8Array): Promise<Uint8Array> {
    const request = decodeRequest(data)
    // The version tells the sender that this is not a node of HarperDB.
    if (!request) return encodeForHarper({ status: 'error', v: this.#versions.local[0], message: 'unreadable request' })
    // HarperDB names no version.
    const { v = this.#versions.local[0] } = request
    const pack = request.v === undefined ? encodeForHarper : encode
    try {
      if (!isReadable(v, this.#versions.local)) throw new Error(this.#versionFault(v))
      const message = await this.#respond(request)
      return pack({ status: 'success', v, message, system_info: this.#systemInfo() })
    } catch (error) {
      const reason = reasonOf(error)
      if (this.#rejections.allows())
        this.#options.logger.warn({ peer: request.node_name, reason }, 'peer request rejected')
      return pack({ status: 'error', v, message: reason })
    }
  }

  #versionFault(version: number): string {
    return `the message has protocol version ${version}, node ${this.#options.node} speaks ${versionText(this.#versions.local)}`
  }

  async #respond(request: PeerRequest): Promise<PeerResponse['message']> {
    const { host, clusteringPort, negotiate, answerLinks } = this.#options
    const operationsApiPort = this.#options.operationsApiPort ?? host.info().operationsApiPort
    switch (request.operation) {
      case 'cluster_status':
        return {
          uptime: formatUptime(process.uptime()),
          ports: { clustering: clusteringPort, ...(operationsApiPort ? { operations_api: operationsApiPort } : {}) },
          system_info: this.#systemInfo(),
        }
      case 'describe_all':
        return toTablesMessage(await host.describe(), host.readRows !== undefined)
      case 'add_node':
      case 'update_node':
      case 'remove_node':
      case 'compare_node':
        return negotiate(request)
      case 'read_rows':
      case 'hash_rows':
      case 'find_rows':
      case 'repair_rows':
      case 'table_status':
        return this.#options.answerRows(...rowsRequestOf(request))
      case 'report_positions':
      case 'watch_positions':
        return this.#options.answerPositions?.(positionsRequestOf(request))
      case 'peer_links':
        if (answerLinks) return answerLinks()
        break
    }
    throw new Error(`Operation '${request.operation}' not found`)
  }

  #systemInfo(): SystemInfo {
    return { hdb_version: this.#options.host.info().version, node_version: process.version, platform: process.platform }
  }
}

/** The reason of a refusal, which a peer may have sent as anything that MessagePack has. */
function reasonIn(message: unknown): string {
  const asText = (_: string, value: unknown) => (typeof value === 'bigint' ? `${value}` : value)
  const text = typeof message === 'string' ? message : (JSON.stringify(message, asText) ?? '')
  return text.length > MAX_REASON_LENGTH ? `${text.slice(0, MAX_REASON_LENGTH)}…` : text
}
