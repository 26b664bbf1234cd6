// The other nodes as we know them: asking and answering them, and noticing who is there.

import { randomUUID } from 'node:crypto'
import { type ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { Host, TableDescription } from '../host.ts'
import type { Logger } from '../logger.ts'
import { type Mesh, MeshError, type TableName } from '../mesh/mesh.ts'
import type { Timers } from '../timers.ts'
import {
  decodeHeartbeat,
  decodeRequest,
  decodeResponse,
  encode,
  type Heartbeat,
  type Request,
  type Response,
  readStatus,
  readTables,
  type SystemInfo,
  type TablesMessage,
} from './protocol.ts'

/** What a node answered when asked how it is; what is unknown is left out. */
export type PeerStatus = {
  status: 'open' | 'NoResponders' | 'Timeout' | 'closed'
  /** ms */
  latency?: number
  uptime?: string
  ports?: { clustering?: number; operations_api?: number }
  systemInfo?: { hdb_version?: string; node_version?: string; platform?: string }
}

/** Where one of a node's streams is. */
export type StreamPosition = TableName & { epoch: string; sequence: number }

export interface PeerListener {
  up(node: string): void
  down(node: string): void
  /** `restarted`: its streams' server was started anew, what it was asked is forgotten; otherwise it was silent for longer than it should be. */
  returned(node: string, restarted: boolean): void
  /** Two processes take part under this name, which may be our own. */
  twin(node: string): void
  /** It still does, and was there before us: it is for us to stop. */
  yielded(): void
  streams(node: string, positions: StreamPosition[]): void
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
  /** Answers what is not about this process: add_node, update_node, remove_node, compare_node. Rejects with the reason to refuse. */
  agree(request: Request): Promise<unknown>
  /** Our streams that grew lately. */
  positions(): StreamPosition[]
  listener: PeerListener
}

type AskOptions = { operation: string; signal?: AbortSignal | undefined }

/** The last heartbeat under a name; `other`: the last one before it of another process of that name. */
type Heard = { at: number; session: string; instance: string; started: number; other?: Heard | undefined }

const HEARTBEAT = 1_000
/** ms between two greetings of nodes that were not known. */
const GREET_AFTER = 50
/** ms for the hubs to say who is there. */
const MEMBERS_TIMEOUT = 500
/** One was missed, in ms. */
const MISSED = 1.5 * HEARTBEAT
/** A node that was silent for so long is down, in ms: four heartbeats; and after so long nothing is known of it any more. */
const SILENCE = 4_000
const FORGOTTEN = 60_000
/** Most names under which heartbeats are followed, and most processes of a shared name that are told: anybody can invent more. */
const MOST_NODES = 10_000
const MOST_TWINS = 100

export class Peers {
  readonly #options: PeersOptions
  readonly #instance = randomUUID()
  readonly #timers: Timers
  readonly #started: number
  /** Processes that share a name with another, which was told. */
  readonly #twins = new Set<string>()
  readonly #heard = new Map<string, Heard>()
  readonly #up = new Set<string>()
  #silence: (() => void) | undefined
  /** Ends waiting to greet again. */
  #greeting: (() => void) | undefined
  #isGreetingAgain = false

  constructor(options: PeersOptions) {
    this.#options = options
    this.#timers = options.mesh.timers
    this.#started = this.#timers.now()
  }

  start(): void {
    const { mesh } = this.#options
    mesh.serve((data) => this.#answer(data))
    mesh.listen((data) => this.#hear(data))
    this.#silence = this.#timers.every(HEARTBEAT, () => this.beat())
    this.beat()
  }

  close(): void {
    this.#silence?.()
    this.#greeting?.()
  }

  isUp(node: string): boolean {
    return this.#up.has(node)
  }

  // --- asking -----------------------------------------------------------------------------------------------------------

  /** The other node's tables. Rejects as `ask`. */
  async describe(node: string, options: AskOptions): Promise<TableDescription[]> {
    const tables = readTables(await this.ask(node, { operation: 'describe_all' }, options))
    if (!tables) throw clusterError('remote_refused', node, 'its description of its tables could not be read')
    return Object.entries(tables).flatMap(([database, ofDatabase]) =>
      Object.entries(ofDatabase).map(([table, { hash_attribute, attributes = [] }]) => ({
        database,
        table,
        primaryKey: hash_attribute,
        attributes: attributes.map(({ attribute }) => attribute),
      })),
    )
  }

  /**
   * Resolves with the message of the answer. Rejects node_not_listening, node_timeout, remote_refused, mesh_unavailable, the
   * texts naming `options.operation`.
   */
  async ask(node: string, request: Request, { operation, signal }: AskOptions): Promise<unknown> {
    const { mesh, requestTimeout, node: self } = this.#options
    let data: Uint8Array
    try {
      const body = { ...request, node_name: self, system_info: this.#systemInfo() }
      data = await mesh.request(node, encode(body), { timeout: requestTimeout, signal })
    } catch (error) {
      const silent = error instanceof MeshError && error.code === 'timeout'
      // A server that read its configuration anew may go on believing in a node that is gone.
      if (silent && !(await this.#isMember(node))) throw clusterErrorFrom(error, 'node_not_listening', operation, node)
      throw asClusterError(error, operation, node)
    }
    const response = decodeResponse(data)
    if (!response) throw clusterError('remote_refused', node, 'its answer could not be read')
    const { status, message } = response
    if (status === 'success') return message
    throw clusterError('remote_refused', node, typeof message === 'string' ? message : JSON.stringify(message))
  }

  /** Does the node's hub answer, or can we not tell? */
  async #isMember(node: string): Promise<boolean> {
    try {
      const members = await this.#options.mesh.members({ timeout: MEMBERS_TIMEOUT })
      return members.some((member) => member.node === node)
    } catch {
      return true
    }
  }

  /** Rejects aborted; anything else that fails is a status. */
  async status(node: string, options: { signal?: AbortSignal | undefined } = {}): Promise<PeerStatus> {
    const started = this.#timers.elapsed()
    try {
      const message = await this.ask(node, { operation: 'cluster_status' }, { operation: 'cluster_status', ...options })
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
    if (!request) return encode({ status: 'error', message: 'The request could not be read' })
    try {
      const message = await this.#respond(request)
      return encode({ status: 'success', message, system_info: this.#systemInfo() })
    } catch (error) {
      this.#options.logger.warn(
        { from: request.node_name, reason: reasonOf(error) },
        'refused a request of another node',
      )
      return encode({ status: 'error', message: reasonOf(error) })
    }
  }

  async #respond(request: Request): Promise<Response['message']> {
    const { host, clusteringPort, agree } = this.#options
    const operationsApiPort = this.#options.operationsApiPort ?? host.info().operationsApiPort
    switch (request.operation) {
      case 'cluster_status':
        return {
          uptime: formatUptime(process.uptime()),
          ports: { clustering: clusteringPort, ...(operationsApiPort ? { operations_api: operationsApiPort } : {}) },
          system_info: this.#systemInfo(),
        }
      case 'describe_all':
        return describeAll(await host.describe())
      case 'add_node':
      case 'update_node':
      case 'remove_node':
      case 'compare_node':
        return agree(request)
      default:
        throw new Error(`Operation '${request.operation}' not found`)
    }
  }

  #systemInfo(): SystemInfo {
    return { hdb_version: this.#options.host.info().version, node_version: process.version, platform: process.platform }
  }

  // --- heartbeats -------------------------------------------------------------------------------------------------------

  /** Every second, and at once when the way to the others was made anew. */
  beat(): void {
    const { mesh, node, positions, logger } = this.#options
    try {
      const streams = positions().map(
        ({ database, table, epoch, sequence }) =>
          [database, table, epoch, sequence] as [string, string, string, number],
      )
      mesh.announce(encode({ node, instance: this.#instance, started: this.#started, session: mesh.session, streams }))
    } catch (error) {
      logger.debug({ reason: reasonOf(error) }, 'no heartbeat was sent')
    }
    const now = this.#timers.elapsed()
    for (const [each, { at }] of this.#heard) {
      if (now - at > SILENCE && this.#up.delete(each)) this.#options.listener.down(each)
      if (now - at > FORGOTTEN) this.#heard.delete(each)
    }
  }

  #hear(data: Uint8Array): void {
    const heartbeat = decodeHeartbeat(data)
    if (!heartbeat) return
    const { node, instance, session, started = 0, relayed = false, streams } = heartbeat
    const { listener } = this.#options
    if (node === this.#options.node) return this.#hearNamesake(heartbeat)
    if (relayed) return
    const known = this.#heard.get(node)
    if (!known && this.#heard.size >= MOST_NODES) return
    if (!known) this.#greet()
    const heard: Heard = { at: this.#timers.elapsed(), session, instance, started }
    this.#heard.set(node, heard)
    if (known) heard.other = known.instance === instance ? known.other : { ...known, other: undefined }
    if (known?.other?.instance === instance && heard.at - known.other.at < SILENCE) this.#relay(node, heard, known)
    const restarted = known?.session !== session
    if (restarted || heard.at - known.at > MISSED) listener.returned(node, restarted)
    if (!this.#up.has(node)) {
      this.#up.add(node)
      listener.up(node)
    }
    const positions = streams.map(([database, table, epoch, sequence]) => ({ database, table, epoch, sequence }))
    listener.streams(node, positions)
  }

  /** Who is new has not heard us either. Many who come at once are greeted together, the first of them at once. */
  #greet(): void {
    if (this.#greeting) {
      this.#isGreetingAgain = true
      return
    }
    this.#isGreetingAgain = false
    this.#greeting = this.#timers.after(GREET_AFTER, () => {
      this.#greeting = undefined
      if (this.#isGreetingAgain) this.#greet()
    })
    this.beat()
  }

  /** Of two processes of one name, the later one stops (of two at once, the larger id); never for one message that was long on its way. */
  #hearNamesake(other: Heartbeat): void {
    const { listener, node } = this.#options
    if (other.instance === this.#instance) return
    if (!this.#twins.has(other.instance)) this.#tellTwin(node, other.instance)
    else if (isEarlier(other, { instance: this.#instance, started: this.#started })) listener.yielded()
  }

  /** Hubs refuse a second one of their own name, so that namesakes may meet only here: the later one is told of the earlier. */
  #relay(node: string, one: Heard, two: Heard): void {
    const { instance, started } = isEarlier(one, two) ? one : two
    this.#options.mesh.announce(encode({ node, instance, started, relayed: true, session: '', streams: [] }))
    if (!this.#twins.has(instance)) this.#tellTwin(node, instance)
  }

  #tellTwin(node: string, instance: string): void {
    if (this.#twins.size >= MOST_TWINS) return
    this.#twins.add(instance)
    this.#options.listener.twin(node)
  }
}

const isEarlier = (
  a: { instance: string; started?: number | undefined },
  b: { instance: string; started: number },
): boolean => (a.started === b.started ? a.instance < b.instance : (a.started ?? 0) < b.started)

/** What it means to whoever asked `node` for something. */
export function asClusterError(error: unknown, operation: string, node: string): ClusterError {
  const code = error instanceof MeshError ? error.code : undefined
  if (code === 'no_responders') return clusterErrorFrom(error, 'node_not_listening', operation, node)
  if (code === 'timeout') return clusterErrorFrom(error, 'node_timeout', operation, node)
  if (code === 'aborted') return clusterErrorFrom(error, 'aborted', operation)
  return clusterErrorFrom(error, 'mesh_unavailable', reasonOf(error))
}

/** HarperDB's answer to describe_all: database, table, description. */
function describeAll(tables: TableDescription[]): TablesMessage {
  const databases: TablesMessage = Object.create(null)
  for (const { database, table, primaryKey, attributes } of tables) {
    databases[database] ??= Object.create(null) as TablesMessage[string]
    databases[database]![table] = {
      schema: database,
      name: table,
      hash_attribute: primaryKey,
      attributes: attributes.map((attribute) => ({ attribute })),
    } as TablesMessage[string][string]
  }
  return databases
}

/** `30d 1h 18m 8s`, leading zero parts left out. */
export function formatUptime(seconds: number): string {
  const whole = Math.floor(seconds)
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3_600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ]
  const first = parts.findIndex(([value, unit]) => value > 0 || unit === 's')
  return parts
    .slice(first)
    .map(([value, unit]) => `${value}${unit}`)
    .join(' ')
}
