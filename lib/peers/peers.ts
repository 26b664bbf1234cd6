// Requests to and from remote nodes, and their liveness by heartbeats.

import { randomUUID } from 'node:crypto'
import { type ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { Host } from '../host/host.ts'
import { type Mesh, MeshError } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { formatUptime } from '../util/format-uptime.ts'
import type { Timers } from '../util/timers.ts'
import {
  decodeHeartbeat,
  decodeRequest,
  decodeResponse,
  encode,
  type Heartbeat,
  type PeerRequest,
  type PeerResponse,
  type RemoteDescription,
  type RowsPeerRequest,
  readStatus,
  readTables,
  rowsRequestOf,
  type SystemInfo,
  toRemoteDescriptions,
  toTablesMessage,
} from './protocol.ts'
import { toClusterError } from './request-error.ts'
import { fromWirePosition, type TablePosition, toWirePosition } from './table-position.ts'

/** The answer of a node to cluster_status; unknown parts are left out. */
export type PeerStatus = {
  status: 'open' | 'NoResponders' | 'Timeout' | 'closed'
  /** ms */
  latency?: number
  uptime?: string
  ports?: { clustering?: number; operations_api?: number }
  systemInfo?: { hdb_version?: string; node_version?: string; platform?: string }
}

export interface PeerListener {
  up(node: string): void
  down(node: string): void
  /**
   * At least one heartbeat was missing. `restarted`: the server of the node's streams was restarted, so consumers and pending
   * requests are gone. `silence`: ms since the last heartbeat; Infinity before the first one.
   */
  returned(node: string, restarted: boolean, silence: number): void
  /** Two processes use this name, which may be that of the local node. */
  duplicate(node: string): void
  /** The other process with the local name is still there, and older: this one must stop. */
  superseded(): void
  streams(node: string, positions: TablePosition[]): void
  /** `time`: wall time of the node, in ms since 1970. */
  time(node: string, time: number): void
}

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
  /** Local streams that grew recently. */
  positions(): TablePosition[]
  listener: PeerListener
}

type PeerRequestOptions = { operation: string; signal?: AbortSignal | undefined }

/** The last heartbeat under a name. `otherInstance`: the last one before it from another process with that name. */
type HeartbeatRecord = {
  receivedAt: number
  session: string
  instance: string
  started: number
  /** When `returned` was last called for the node. */
  returnedAt: number
  otherInstance?: HeartbeatRecord | undefined
}

const HEARTBEAT_INTERVAL_MS = 1_000
/** Minimum time between two heartbeats sent as greetings to new nodes. */
const GREETING_INTERVAL_MS = 50
const MEMBERS_TIMEOUT_MS = 500
/** Less than a heartbeat interval: a node whose server restarts each second is not missed. */
const MIN_RETURN_INTERVAL_MS = 500
const MISSED_HEARTBEAT_MS = 1.5 * HEARTBEAT_INTERVAL_MS
/** A check that is later means that this process was paused. */
const MAX_CHECK_INTERVAL_MS = 2 * HEARTBEAT_INTERVAL_MS
/** Four heartbeats. */
const DOWN_AFTER_MS = 4_000
/** After this silence the record of a node is deleted. */
const EXPIRE_AFTER_MS = 60_000
/** Bounds on names, and on processes reported as duplicates: every holder of the credentials can invent more. */
const MAX_NODES = 10_000
const MAX_DUPLICATES = 100

export class Peers {
  readonly #options: PeersOptions
  /** Of this process; in its heartbeats. */
  readonly instance = randomUUID()
  readonly #timers: Timers
  readonly #started: number
  /** Processes that were reported as duplicates. */
  readonly #duplicates = new Set<string>()
  readonly #heartbeats = new Map<string, HeartbeatRecord>()
  readonly #up = new Set<string>()
  /** When the silence of the nodes was checked last. */
  #checkedAt = 0
  #stopHeartbeats: (() => void) | undefined
  /** Set while the greeting interval lasts. */
  #cancelGreeting: (() => void) | undefined
  #greetAgain = false

  constructor(options: PeersOptions) {
    this.#options = options
    this.#timers = options.mesh.timers
    this.#started = this.#timers.now()
  }

  start(): void {
    const { mesh } = this.#options
    mesh.serve((data) => this.#answer(data))
    mesh.listen((data) => this.#onHeartbeat(data))
    this.#stopHeartbeats = this.#timers.every(HEARTBEAT_INTERVAL_MS, () => this.sendHeartbeat())
    this.sendHeartbeat()
  }

  /** `start` may be called again. */
  close(): void {
    this.#stopHeartbeats?.()
    this.#cancelGreeting?.()
    this.#cancelGreeting = undefined
  }

  /** Forgets all nodes, because this one takes no part for some time; reports those that were up as down. */
  reset(): void {
    const up = [...this.#up]
    this.#up.clear()
    this.#heartbeats.clear()
    this.#duplicates.clear()
    for (const node of up) this.#options.listener.down(node)
  }

  isUp(node: string): boolean {
    return this.#up.has(node)
  }

  // --- requests ---------------------------------------------------------------------------------------------------------

  /** The tables of the remote node. Rejects as `request`. */
  async describeTables(node: string, options: PeerRequestOptions): Promise<RemoteDescription[]> {
    const tables = readTables(await this.request(node, { operation: 'describe_all' }, options))
    if (!tables) throw clusterError('peer_rejected', node, 'its table description is unreadable')
    return toRemoteDescriptions(tables)
  }

  /**
   * Resolves with the message of the answer. Rejects node_not_listening, node_timeout, peer_rejected, mesh_unavailable; the
   * error texts name `options.operation`.
   */
  async request(node: string, request: PeerRequest, { operation, signal }: PeerRequestOptions): Promise<unknown> {
    const { mesh, requestTimeout, node: self } = this.#options
    let data: Uint8Array
    try {
      const body = { ...request, node_name: self, system_info: this.#systemInfo() }
      data = await mesh.request(node, encode(body), { timeout: requestTimeout, signal })
    } catch (error) {
      const timedOut = error instanceof MeshError && error.code === 'timeout'
      // A server that reloaded its configuration may still route to a node that is gone.
      if (timedOut && !(await this.#isMember(node)))
        throw clusterErrorFrom(error, 'node_not_listening', operation, node)
      throw toClusterError(error, operation, node)
    }
    const response = decodeResponse(data)
    if (!response) throw clusterError('peer_rejected', node, 'its answer is unreadable')
    const { status, message } = response
    if (status === 'success') return message
    throw clusterError('peer_rejected', node, typeof message === 'string' ? message : JSON.stringify(message))
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
    if (!request) return encode({ status: 'error', message: 'unreadable request' })
    try {
      const message = await this.#respond(request)
      return encode({ status: 'success', message, system_info: this.#systemInfo() })
    } catch (error) {
      this.#options.logger.warn({ peer: request.node_name, reason: reasonOf(error) }, 'peer request rejected')
      return encode({ status: 'error', message: reasonOf(error) })
    }
  }

  async #respond(request: PeerRequest): Promise<PeerResponse['message']> {
    const { host, clusteringPort, negotiate } = this.#options
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
      default:
        throw new Error(`Operation '${request.operation}' not found`)
    }
  }

  #systemInfo(): SystemInfo {
    return { hdb_version: this.#options.host.info().version, node_version: process.version, platform: process.platform }
  }

  // --- heartbeats -------------------------------------------------------------------------------------------------------

  /** Called every second, and at once after a reconnection. */
  sendHeartbeat(): void {
    const { mesh, node, positions, logger } = this.#options
    try {
      const streams = positions().map(toWirePosition)
      const [instance, started, time] = [this.instance, this.#started, this.#timers.now()]
      mesh.announce(encode({ node, instance, started, time, session: mesh.session, streams }))
    } catch (error) {
      logger.debug({ reason: reasonOf(error) }, 'heartbeat not sent')
    }
    const now = this.#timers.elapsed()
    // After a pause of this process the heartbeats of that time are still to be read.
    const wasPaused = now - this.#checkedAt > MAX_CHECK_INTERVAL_MS
    this.#checkedAt = now
    if (wasPaused) return
    for (const [each, { receivedAt }] of this.#heartbeats) {
      if (now - receivedAt > DOWN_AFTER_MS && this.#up.delete(each)) this.#options.listener.down(each)
      if (now - receivedAt > EXPIRE_AFTER_MS) this.#heartbeats.delete(each)
    }
  }

  #onHeartbeat(data: Uint8Array): void {
    const heartbeat = decodeHeartbeat(data)
    if (!heartbeat) return
    const { node, instance, session, started = 0, time, relayed = false, streams } = heartbeat
    const { listener } = this.#options
    if (node === this.#options.node) return this.#onDuplicateHeartbeat(heartbeat)
    if (relayed) return
    const known = this.#heartbeats.get(node)
    if (!known && this.#heartbeats.size >= MAX_NODES) return
    if (!known) this.#greet()
    const now = this.#timers.elapsed()
    const returnedAt = known?.returnedAt ?? Number.NEGATIVE_INFINITY
    const record: HeartbeatRecord = { receivedAt: now, session, instance, started, returnedAt }
    this.#heartbeats.set(node, record)
    if (known)
      record.otherInstance = known.instance === instance ? known.otherInstance : { ...known, otherInstance: undefined }
    if (
      known?.otherInstance?.instance === instance &&
      record.receivedAt - known.otherInstance.receivedAt < DOWN_AFTER_MS
    )
      this.#relayHeartbeat(node, record, known)
    const restarted = known?.session !== session
    const silence = now - (known?.receivedAt ?? Number.NEGATIVE_INFINITY)
    if (restarted || silence > MISSED_HEARTBEAT_MS)
      this.#onReturn(node, record, { restarted, silence, previousSession: known?.session })
    if (!this.#up.has(node)) {
      this.#up.add(node)
      listener.up(node)
    }
    listener.streams(node, streams.map(fromWirePosition))
    if (time !== undefined) listener.time(node, time)
  }

  /** At a bounded rate, because everyone who has the credentials can name a new session in each heartbeat. */
  #onReturn(
    node: string,
    record: HeartbeatRecord,
    {
      restarted,
      silence,
      previousSession = '',
    }: { restarted: boolean; silence: number; previousSession: string | undefined },
  ): void {
    if (record.receivedAt - record.returnedAt < MIN_RETURN_INTERVAL_MS) {
      // The next heartbeat shows the restart again.
      record.session = previousSession
      return
    }
    record.returnedAt = record.receivedAt
    this.#options.listener.returned(node, restarted, silence)
  }

  /** A new node has not received a local heartbeat yet. The first one gets it at once, others within the interval share one. */
  #greet(): void {
    if (this.#cancelGreeting) {
      this.#greetAgain = true
      return
    }
    this.#greetAgain = false
    this.#cancelGreeting = this.#timers.after(GREETING_INTERVAL_MS, () => {
      this.#cancelGreeting = undefined
      if (this.#greetAgain) this.#greet()
    })
    this.sendHeartbeat()
  }

  /**
   * Of two processes with one name the later one stops; if both started at once, the one with the larger id. A single delayed
   * message is not enough.
   */
  #onDuplicateHeartbeat(other: Heartbeat): void {
    const { listener, node } = this.#options
    if (other.instance === this.instance) return
    if (!this.#duplicates.has(other.instance)) this.#reportDuplicate(node, other.instance)
    else if (isEarlier(other, { instance: this.instance, started: this.#started })) listener.superseded()
  }

  /**
   * A hub rejects connections of a hub with the same name, so the two processes may not receive each other's heartbeats. A third
   * node relays the heartbeat of the earlier one.
   */
  #relayHeartbeat(node: string, one: HeartbeatRecord, two: HeartbeatRecord): void {
    const { instance, started } = isEarlier(one, two) ? one : two
    this.#options.mesh.announce(encode({ node, instance, started, relayed: true, session: '', streams: [] }))
    if (!this.#duplicates.has(instance)) this.#reportDuplicate(node, instance)
  }

  #reportDuplicate(node: string, instance: string): void {
    if (this.#duplicates.size >= MAX_DUPLICATES) return
    this.#duplicates.add(instance)
    this.#options.listener.duplicate(node)
  }
}

const isEarlier = (
  a: { instance: string; started?: number | undefined },
  b: { instance: string; started: number },
): boolean => (a.started === b.started ? a.instance < b.instance : (a.started ?? 0) < b.started)
