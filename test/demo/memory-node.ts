// A node of the demo without servers: the same database and HTTP API, in the process of the demo, on the in-memory network.

import type { Progress } from '../../lib/index.ts'
import type { MemoryNetwork } from '../../lib/testing.ts'
import { type Node, startNode } from '../host/node.ts'
import type { NodePorts } from '../support/cluster.ts'
import { NodeClient } from '../support/node-client.ts'
import { nodeFiles } from '../support/node-process.ts'

const silent = { debug() {}, info() {}, warn() {}, error() {} }

export class MemoryNode extends NodeClient {
  readonly configFile: string
  readonly ports: NodePorts
  onProgress: ((progress: Progress) => void) | undefined
  readonly #network: MemoryNetwork
  #node: Node | undefined
  #starts = 0

  private constructor(name: string, network: MemoryNetwork, configFile: string, ports: NodePorts) {
    super(name)
    this.#network = network
    this.configFile = configFile
    this.ports = ports
  }

  static async create(parent: string, name: string, network: MemoryNetwork): Promise<MemoryNode> {
    const { directory, ports } = await nodeFiles(parent, name)
    return new MemoryNode(name, network, `${directory}/config.yaml`, ports)
  }

  get url(): string {
    return this.#node!.url
  }

  async start(): Promise<string> {
    const progress = (reported: Progress) => this.onProgress?.(reported)
    this.#node = await startNode(this.configFile, silent, { mesh: this.#network.mesh(), listeners: { progress } })
    this.#starts++
    return `${this.name} ready: ${this.url}`
  }

  /** The closest equivalent of a kill within one process: crashes the network of the node, then closes it. */
  async kill(): Promise<void> {
    this.#network.crash(this.name)
    await this.end()
  }

  async end(): Promise<void> {
    await this.#node?.close()
    this.#node = undefined
  }

  /** Changes with each start. */
  async incarnation(): Promise<unknown> {
    return this.#starts
  }
}
