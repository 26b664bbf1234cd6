// A network namespace for each node, connected by a bridge in another namespace: links that can be cut. Requires root on Linux.

import { command } from './command.ts'
import type { Command } from './network.ts'

const NETWORK = '10.77.0'
const BRIDGE = 'bridge'
const CABLE = 'cable'

export class Namespaces {
  readonly #nodes: number
  readonly #made: string[] = []

  constructor(nodes: number) {
    this.#nodes = nodes
  }

  /** Rejects without the permission to create namespaces. Call `close` in that case too. */
  async open(): Promise<void> {
    await this.#make('bridge')
    await this.#inBridge('link', 'add', BRIDGE, 'type', 'bridge')
    await this.#inBridge('addr', 'add', `${NETWORK}.254/24`, 'dev', BRIDGE)
    await this.#inBridge('link', 'set', BRIDGE, 'up')
    for (let node = 0; node < this.#nodes; node++) {
      const name = await this.#make(node)
      const inside = (...args: string[]) => command('ip', '-n', name, ...args)
      const bridge = nameOf('bridge')
      await command('ip', 'link', 'add', CABLE, 'netns', name, 'type', 'veth', 'peer', port(node), 'netns', bridge)
      await inside('addr', 'add', `${this.addressOf(node)}/24`, 'dev', CABLE)
      await inside('link', 'set', CABLE, 'up')
      await inside('link', 'set', 'lo', 'up')
      await this.#inBridge('link', 'set', port(node), 'master', BRIDGE, 'up')
    }
  }

  addressOf(node: number): string {
    return `${NETWORK}.${node + 1}`
  }

  /** An address at the bridge, for the proxy of this node. */
  async addAlias(node: number): Promise<string> {
    const alias = `${NETWORK}.${node + 101}`
    await this.#inBridge('addr', 'add', `${alias}/24`, 'dev', BRIDGE)
    return alias
  }

  commandIn(where: number | 'bridge'): Command {
    return (program, ...args) => ['ip', 'netns', 'exec', nameOf(where), program, ...args]
  }

  /** Sets the bridge's end of the link down: the node keeps its address, but no packet passes, as with a switch without power. */
  cut(node: number): Promise<void> {
    return this.#inBridge('link', 'set', port(node), 'down')
  }

  reconnect(node: number): Promise<void> {
    return this.#inBridge('link', 'set', port(node), 'up')
  }

  /** Deleting the namespaces also deletes their links. */
  async close(): Promise<void> {
    const results = await Promise.allSettled(this.#made.splice(0).map((name) => command('ip', 'netns', 'delete', name)))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  async #make(where: number | 'bridge'): Promise<string> {
    const name = nameOf(where)
    await command('ip', 'netns', 'add', name)
    this.#made.push(name)
    return name
  }

  #inBridge(...args: string[]): Promise<void> {
    return command('ip', '-n', nameOf('bridge'), ...args)
  }
}

const nameOf = (where: number | 'bridge') => `enmesh-${process.pid}-${where}`
const port = (node: number) => `port${node}`
