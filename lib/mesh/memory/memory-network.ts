// A network in one process, without servers, with fault injection.

import { systemTimers, type Timers } from '../../util/timers.ts'
import type { Mesh } from '../mesh.ts'
import type { Disk } from './disk.ts'
import { Fabric } from './fabric.ts'
import { MemoryMesh } from './memory-mesh.ts'
import { randomNumbers } from './random.ts'
import { type CutMode, Wires } from './wires.ts'

export type MemoryNetworkOptions = {
  /**
   * Shuffles the order in which messages of different links arrive; the same seed gives the same order. Default: the order of sending.
   * Messages between two nodes always keep their order.
   */
  seed?: number
  /** The time of this network and of every manager on it, such as a `TestClock`. Default: the system's time. */
  clock?: Timers
}

export type FaultOptions = {
  /** No node is notified: messages are lost and readers keep waiting. Default: false. */
  silent?: boolean
}

/**
 * For tests of programs that embed enmesh: pass a `mesh()` of one network to each ClusterManager. Every node reaches every other
 * node; routes are stored and shown, but not needed. Faults name nodes by the `nodeName` of their configuration, and may be set
 * before a node is open. Only `delay` makes a delivery depend on the clock.
 */
export class MemoryNetwork {
  readonly #wires: Wires
  readonly #fabric: Fabric
  /** ms by which the wall time of a node is ahead. */
  readonly #skews = new Map<string, number>()
  #closed = false

  constructor({ seed, clock = systemTimers }: MemoryNetworkOptions = {}) {
    this.#wires = new Wires(clock, seed === undefined ? undefined : randomNumbers(seed))
    this.#fabric = new Fabric(this.#wires, clock)
  }

  /** The mesh of one node. It gets the streams of the previous mesh of the same node. With `node`, `skew` takes effect before it is open. */
  mesh(node?: string): Mesh {
    if (this.#closed) throw new Error('the network is closed')
    return new MemoryMesh(this.#fabric, (name) => this.#skews.get(name) ?? 0, node)
  }

  /** From now on the wall time of a node is `ms` ahead of the clock of the network; behind it, if `ms` is negative. Timers are not affected. */
  skew(node: string, ms: number): void {
    if (!Number.isFinite(ms)) throw new TypeError(`'ms' must be a finite number, received ${ms}`)
    this.#skews.set(node, ms)
  }

  /** Cuts the link between two nodes, or between one node and all others, in both directions. Messages in flight and readers are lost. */
  cut(a: string, b?: string, { silent = false }: FaultOptions = {}): void {
    const mode: CutMode = silent ? 'silent' : 'notified'
    for (const [one, other] of this.#wires.cut(a, b, mode)) {
      this.#fabric.at(one)?.failReaders(`the link to ${other} is cut`, other)
      this.#fabric.at(other)?.failReaders(`the link to ${one} is cut`, one)
    }
  }

  /** Heals the cuts between two nodes, between one node and all others, or, without a name, all cuts. */
  heal(a?: string, b?: string): void {
    for (const address of this.#wires.heal(a, b)) {
      const endpoint = this.#fabric.at(address)
      if (endpoint?.connected) endpoint.linked()
    }
  }

  /** Messages between two nodes take `ms` in each direction from now on. Default: 0, the next turn of the event loop. With twice the same node: a slow disk. */
  delay(a: string, b: string, ms: number): void {
    if (!(ms >= 0 && ms <= 2 ** 31 - 1)) throw new TypeError(`'ms' must be from 0 to 2147483647, received ${ms}`)
    this.#wires.delay(a, b, ms)
  }

  /**
   * Crashes the servers of a node: its mesh is `disconnected`, calls in flight fail, its readers and the readers of its streams are
   * lost. `silent`: the other nodes are not notified. No effect on a node that is not open.
   */
  crash(node: string, { silent = false }: FaultOptions = {}): void {
    const endpoint = this.#fabric.at(node)
    if (!endpoint?.connected) return
    endpoint.disconnect('the servers crashed')
    this.#fabric.failServers(node, `the servers of ${node} crashed`, silent)
  }

  /** Starts the servers of a crashed node again, on the same disk, in another session. */
  restart(node: string): void {
    this.#fabric.at(node)?.reconnect()
  }

  /** Deletes the streams of a node. Streams that are created later have another `created`. Their readers are lost. */
  wipeDisk(node: string): void {
    this.#replaceDisk(node, (disk) => disk.wipe())
  }

  /** Copies the streams of a node. The returned function restores the copy; readers of the streams are lost then. */
  snapshotDisk(node: string): () => void {
    const copy = this.#fabric.disk(node).copy()
    return () => this.#replaceDisk(node, (disk) => disk.restore(copy))
  }

  #replaceDisk(node: string, change: (disk: Disk) => void): void {
    change(this.#fabric.disk(node))
    for (const endpoint of this.#fabric.endpoints()) endpoint.failReaders('the stream was deleted', node)
  }

  /** Closes every mesh. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#fabric.endpoints().map((endpoint) => endpoint.close()))
    this.#wires.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
