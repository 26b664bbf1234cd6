// The liveness of remote nodes: local heartbeats, those of the others, and processes that use the same name.

import { randomUUID } from 'node:crypto'
import { reasonOf } from '../errors.ts'
import type { Mesh } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { Timers } from '../util/timers.ts'
import type { PeerVersions } from './peer-versions.ts'
import { decodeHeartbeat, encode, type Heartbeat } from './protocol.ts'
import { fromWirePosition, type TablePosition, toWirePosition } from './table-position.ts'

export interface PeerListener {
  up(node: string): void
  down(node: string): void
  /**
   * At least one heartbeat was missing. `restarted`: the server of the node's streams was restarted, so consumers and pending
   * requests are gone. `silence`: ms since the last heartbeat; Infinity before the first one.
   */
  returned(node: string, restarted: boolean, silence: number): void
  /** Two processes use this name, which may be that of the local node; or the node speaks another version and counts as absent. Called once for each. */
  rejected(node: string, reason: string): void
  /** The other process with the local name is still there, and older: this one must stop. */
  superseded(): void
  streams(node: string, positions: TablePosition[]): void
  /** `time`: wall time of the node, in ms since 1970. */
  time(node: string, time: number): void
}

export type HeartbeatsOptions = {
  mesh: Mesh
  node: string
  logger: Logger
  versions: PeerVersions
  /** Local streams that grew recently. */
  positions(): TablePosition[]
  listener: PeerListener
}

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

export class Heartbeats {
  readonly #options: HeartbeatsOptions
  /** Of this process. */
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

  constructor(options: HeartbeatsOptions) {
    this.#options = options
    this.#timers = options.mesh.timers
    this.#started = this.#timers.now()
  }

  start(): void {
    this.#options.mesh.listen((data) => this.#onHeartbeat(data))
    this.#stopHeartbeats = this.#timers.every(HEARTBEAT_INTERVAL_MS, () => this.send())
    this.send()
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

  /** That of its last heartbeat; undefined before the first one, and when it was silent for long. */
  sessionOf(node: string): string | undefined {
    return this.#heartbeats.get(node)?.session
  }

  /** Called every second, and at once after a reconnection. */
  send(): void {
    const { mesh, node, positions, logger } = this.#options
    try {
      const streams = positions().map(toWirePosition)
      const [instance, started, time] = [this.instance, this.#started, this.#timers.now()]
      const versions: [number, number] = [...this.#options.versions.local]
      mesh.announce(encode({ node, versions, instance, started, time, session: mesh.session, streams }))
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
    const decoded = decodeHeartbeat(data)
    if (!decoded) return
    const { head, heartbeat } = decoded
    const isCompatible =
      head.node === this.#options.node || this.#options.versions.observe(head.node, head.versions ?? [1, 1])
    if (!isCompatible || !heartbeat) return
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
    this.send()
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
    this.#options.mesh.announce(
      encode({
        node,
        versions: [...this.#options.versions.local],
        instance,
        started,
        relayed: true,
        session: '',
        streams: [],
      }),
    )
    if (!this.#duplicates.has(instance)) this.#reportDuplicate(node, instance)
  }

  #reportDuplicate(node: string, instance: string): void {
    if (this.#duplicates.size >= MAX_DUPLICATES) return
    this.#duplicates.add(instance)
    this.#options.listener.rejected(node, 'two processes use this node name')
  }
}

const isEarlier = (
  a: { instance: string; started?: number | undefined },
  b: { instance: string; started: number },
): boolean => (a.started === b.started ? a.instance < b.instance : (a.started ?? 0) < b.started)
