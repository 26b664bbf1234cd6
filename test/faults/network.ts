// Where the nodes of a run live and how they reach each other.

import { freePorts, type NodePorts } from '../support/cluster.ts'

export type Place = {
  /** Where this node's hub listens, and where other hubs find it. */
  listen: string
  route: { host: string; port: number }
  ports: NodePorts
  /** The command that runs this one there. */
  command(program: string, ...args: string[]): [string, ...string[]]
}

export interface Network {
  readonly description: string
  place(node: number): Promise<Place>
  /** Removes all that it made; idempotent. */
  close(): Promise<void>
}

/** All on this machine's loopback: it cannot be cut. */
export class Loopback implements Network {
  readonly description = 'loopback'

  async place(): Promise<Place> {
    const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
    return {
      listen: '127.0.0.1',
      route: { host: '127.0.0.1', port: cluster },
      ports: { cluster, leafNodes, hub, leaf },
      command: (program, ...args) => [program, ...args],
    }
  }

  async close(): Promise<void> {}
}
