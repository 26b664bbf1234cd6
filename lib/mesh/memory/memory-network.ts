// A network in one process, without servers, with fault injection.

import { suggestion } from '../../util/suggestion.ts'
import { systemTimers, type Timers } from '../../util/timers.ts'
import type { Mesh } from '../mesh.ts'
import type { Disk } from './disk.ts'
import { type DisturbOptions, disturb } from './disturbance.ts'
import { Fabric } from './fabric.ts'
import { MemoryMesh } from './memory-mesh.ts'
import { randomNumbers } from './random.ts'
import { type CutMode, Wires } from './wires.ts'

export type MemoryNetworkOptions = {
  /**
   * Shuffles the order in which messages of different links arrive; the same seed gives the same order. Default: the order of sending.
   * Messages between two nodes always keep their order. `random`: another seed each time, which `MemoryNetwork.seed` and the errors of
   * `startCluster` and `converged` show.
   */
  seed?: number | 'random'
  /** Names that faults may use before these nodes are open. `mesh(name)` and `startCluster` declare theirs. */
  nodes?: readonly string[]
  /** The time of this network and of every manager on it, such as a `TestClock`. Default: the system's time. */
  clock?: Timers
}

export type FaultOptions = {
  /** No node is notified: messages are lost and readers keep waiting. Default: false. */
  silent?: boolean
}

/** Random numbers for `disturb` are others than those that order the messages. */
const DISTURBANCE = 0x5eed

/**
 * For tests of programs that embed enmesh: pass a `mesh()` of one network to each ClusterManager. Every node reaches every other
 * node; routes are stored and shown, but not needed. Faults name nodes by the `nodeName` of their configuration, and may be set
 * before a node is open; they throw for a name that the network does not know. Only `delay` and `slowLeaf` make a delivery depend on the clock.
 */
export class MemoryNetwork {
  readonly #wires: Wires
  readonly #fabric: Fabric
  /** ms by which the wall time of a node is ahead. */
  readonly #skews = new Map<string, number>()
  /** The seed of this run; undefined: messages arrive in the order of sending. */
  readonly seed: number | undefined
  readonly #timers: Timers
  readonly #random: () => number
  readonly #disturbances = new Set<() => void>()
  #closed = false

  constructor({ seed, clock = systemTimers, nodes = [] }: MemoryNetworkOptions = {}) {
    this.seed = seed === 'random' ? Math.floor(Math.random() * 2 ** 32) : seed
    this.#timers = clock
    this.#random = randomNumbers((this.seed ?? 0) ^ DISTURBANCE)
    this.#wires = new Wires(clock, this.seed === undefined ? undefined : randomNumbers(this.seed))
    this.#fabric = new Fabric(this.#wires, clock)
    this.declare(...nodes)
  }

  /** Makes names known that faults use before these nodes are open. */
  declare(...nodes: readonly string[]): void {
    for (const node of nodes) this.#fabric.names.add(node)
  }

  /** The mesh of one node. It gets the streams of the previous mesh of the same node. With `node`, `skew` takes effect before it is open. */
  mesh(node?: string): Mesh {
    if (this.#closed) throw new Error('the network is closed')
    if (node !== undefined) this.declare(node)
    return new MemoryMesh(this.#fabric, (name) => this.#skews.get(name) ?? 0, node)
  }

  /** From now on the wall time of a node is `ms` ahead of the clock of the network; behind it, if `ms` is negative. Timers are not affected. */
  skew(node: string, ms: number): void {
    if (!Number.isFinite(ms)) throw new TypeError(`'ms' must be a finite number, received ${ms}`)
    this.#requireKnown(node)
    this.#skews.set(node, ms)
  }

  /** Cuts the link between two nodes, or between one node and all others, in both directions. Messages in flight and readers are lost. */
  cut(a: string, b?: string, { silent = false }: FaultOptions = {}): void {
    this.#requireKnown(a, b)
    this.#cut(a, b, silent ? 'silent' : 'notified')
  }

  #cut(a: string, b: string | undefined, mode: CutMode): void {
    for (const [one, other] of this.#wires.cut(a, b, mode)) {
      this.#fabric.at(one)?.failReaders(`the link to ${other} is cut`, other)
      this.#fabric.at(other)?.failReaders(`the link to ${one} is cut`, one)
    }
  }

  /** Heals the cuts between two nodes, between one node and all others, or, without a name, all cuts. */
  heal(a?: string, b?: string): void {
    this.#requireKnown(a, b)
    for (const address of this.#wires.heal(a, b)) {
      const endpoint = this.#fabric.at(address)
      if (endpoint?.connected) endpoint.linked()
    }
  }

  /** Messages between two nodes take `ms` in each direction from now on. Default: 0, the next turn of the event loop. */
  delay(a: string, b: string, ms: number): void {
    if (a === b) throw new TypeError(`'${a}' has no link with itself; slowLeaf delays its own leaf`)
    this.#setDelay(a, b, ms)
  }

  /** What a node asks of its own leaf, such as appending to its streams, takes `ms` in each direction from now on. */
  slowLeaf(node: string, ms: number): void {
    this.#setDelay(node, node, ms)
  }

  #setDelay(a: string, b: string, ms: number): void {
    if (!(ms >= 0 && ms <= 2 ** 31 - 1)) throw new TypeError(`'ms' must be from 0 to 2147483647, received ${ms}`)
    this.#requireKnown(a, b)
    this.#wires.delay(a, b, ms)
  }

  /**
   * Cuts links at random times, for random times, until the returned function is called, which heals them; so does `close`. Its times follow the
   * clock of the network. The same seed, options and names of nodes give the same cuts; without a seed they are always the same.
   */
  disturb(options: DisturbOptions = {}): () => void {
    const end = disturb(
      {
        timers: this.#timers,
        random: this.#random,
        nodes: [...this.#fabric.names].sort(),
        cut: (a, b, mode) => this.#cut(a, b, mode),
        heal: (a, b) => this.heal(a, b),
      },
      options,
    )
    this.#disturbances.add(end)
    return () => {
      if (this.#disturbances.delete(end)) end()
    }
  }

  /**
   * Crashes the servers of a node: its mesh is `disconnected`, calls in flight fail, its readers and the readers of its streams are
   * lost. `silent`: the other nodes are not notified. No effect on a node that is not open.
   */
  crash(node: string, { silent = false }: FaultOptions = {}): void {
    this.#requireKnown(node)
    const endpoint = this.#fabric.at(node)
    if (!endpoint?.connected) return
    endpoint.disconnect('the servers crashed')
    this.#fabric.failServers(node, `the servers of ${node} crashed`, silent)
  }

  /** Starts the servers of a crashed node again, on the same disk, in another session. */
  restart(node: string): void {
    this.#requireKnown(node)
    this.#fabric.at(node)?.reconnect()
  }

  /** The disk of a node is full: it cannot write its streams, and other nodes can read them. */
  fillDisk(node: string): void {
    this.#setFull(node, true)
  }

  /** The disk of a node has room again. */
  freeDisk(node: string): void {
    this.#setFull(node, false)
  }

  #setFull(node: string, isFull: boolean): void {
    this.#requireKnown(node)
    this.#fabric.disk(node).isFull = isFull
    this.#fabric.at(node)?.diskChanged()
  }

  /** Deletes the streams of a node. Streams that are created later have another `created`. Their readers are lost. */
  wipeDisk(node: string): void {
    this.#replaceDisk(node, (disk) => disk.wipe())
  }

  /** Copies the streams of a node. The returned function restores the copy; readers of the streams are lost then. */
  snapshotDisk(node: string): () => void {
    this.#requireKnown(node)
    const copy = this.#fabric.disk(node).copy()
    return () => this.#replaceDisk(node, (disk) => disk.restore(copy))
  }

  #replaceDisk(node: string, change: (disk: Disk) => void): void {
    this.#requireKnown(node)
    change(this.#fabric.disk(node))
    for (const endpoint of this.#fabric.endpoints()) endpoint.failReaders('the stream was deleted', node)
  }

  /** A misspelt name would be a test without the fault. */
  #requireKnown(...nodes: readonly (string | undefined)[]): void {
    const known = [...this.#fabric.names].sort()
    for (const node of nodes)
      if (node !== undefined && !this.#fabric.names.has(node))
        throw new Error(
          `no node '${node}' in this network, only ${known.join(', ') || 'none'}.${suggestion(node, known)}`,
        )
  }

  /** Closes every mesh. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    for (const end of this.#disturbances) end()
    this.#disturbances.clear()
    await Promise.all(this.#fabric.endpoints().map((endpoint) => endpoint.close()))
    this.#wires.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
