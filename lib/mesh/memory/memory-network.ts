// A network in one process: as many nodes as wanted, no servers, and every fault at hand.

import { systemTimers, type Timers } from '../../util/timers.ts'
import type { Mesh } from '../mesh.ts'
import type { Disk } from './disk.ts'
import { Fabric } from './fabric.ts'
import { MemoryMesh } from './memory-mesh.ts'
import { randomNumbers } from './random.ts'
import { type CutMode, Wires } from './wires.ts'

export type MemoryNetworkOptions = {
  /**
   * Draws which of several nodes is heard first; the same seed gives the same order. Default: what was sent first arrives
   * first. In either case, what one node sends to another keeps its order.
   */
  seed?: number
  /** The time of this network, and of every manager in it: a `TestClock`. Default: the system's. */
  clock?: Timers
}

export type FaultOptions = {
  /** Nobody is told: messages vanish, and readers wait for what does not come. Default: false. */
  silent?: boolean
}

/**
 * For tests of what is built on this module: give each ClusterManager a `mesh()` of one network. Every node reaches every
 * other one; routes are kept and shown, and not needed. Nodes are named as in their managers' files, and a fault may be set
 * before its node is there. No delivery depends on a clock unless `delay` says so.
 */
export class MemoryNetwork {
  readonly #wires: Wires
  readonly #fabric: Fabric
  #closed = false

  constructor({ seed, clock = systemTimers }: MemoryNetworkOptions = {}) {
    this.#wires = new Wires(clock, seed === undefined ? undefined : randomNumbers(seed))
    this.#fabric = new Fabric(this.#wires, clock)
  }

  /** For one node. Its streams are those of the node of the same name before it. */
  mesh(): Mesh {
    if (this.#closed) throw new Error('the network is closed')
    return new MemoryMesh(this.#fabric)
  }

  /** No way between two nodes, or between one and all others, in both directions. What is on the way is lost, and so are readers. */
  cut(a: string, b?: string, { silent = false }: FaultOptions = {}): void {
    const mode: CutMode = silent ? 'silent' : 'notified'
    for (const [one, other] of this.#wires.cut(a, b, mode)) {
      this.#fabric.at(one)?.failReaders(`the way to ${other} is cut`, other)
      this.#fabric.at(other)?.failReaders(`the way to ${one} is cut`, one)
    }
  }

  /** Undoes every cut between two nodes, of one with all others, or, without a name, all there are. */
  heal(a?: string, b?: string): void {
    for (const address of this.#wires.heal(a, b)) {
      const endpoint = this.#fabric.at(address)
      if (endpoint?.connected) endpoint.linked()
    }
  }

  /** What is sent between two nodes from now on takes `ms` each way; 0, the default, is the next turn of the event loop. With itself: a slow disk. */
  delay(a: string, b: string, ms: number): void {
    if (!(ms >= 0 && ms <= 2 ** 31 - 1)) throw new TypeError(`'ms' must be from 0 to 2147483647, received ${ms}`)
    this.#wires.delay(a, b, ms)
  }

  /**
   * The node's servers die: its mesh is `disconnected`, what is in flight fails, its readers and those of others at its
   * streams are lost. `silent`: the others are not told. A node that is not open stays as it is.
   */
  crash(node: string, { silent = false }: FaultOptions = {}): void {
    const endpoint = this.#fabric.at(node)
    if (!endpoint?.connected) return
    endpoint.disconnect('the connection was dropped')
    this.#fabric.failServers(node, `${node} is gone`, silent)
  }

  /** They are started anew, on the same disk, in another session. */
  restart(node: string): void {
    this.#fabric.at(node)?.reconnect()
  }

  /** The node's streams are gone: made anew with another `created` when they are needed. Whoever reads them is told. */
  wipeDisk(node: string): void {
    this.#replaceDisk(node, (disk) => disk.wipe())
  }

  /** A copy of the node's streams as they are now. The function given back restores it: whoever reads them is told. */
  snapshotDisk(node: string): () => void {
    const copy = this.#fabric.disk(node).copy()
    return () => this.#replaceDisk(node, (disk) => disk.restore(copy))
  }

  #replaceDisk(node: string, change: (disk: Disk) => void): void {
    change(this.#fabric.disk(node))
    for (const endpoint of this.#fabric.endpoints()) endpoint.failReaders('the stream is gone', node)
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
