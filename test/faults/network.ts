// The addresses of the nodes of a run: on loopback, or in one network namespace for each node.

import { freePorts, type NodePorts } from '../support/cluster.ts'
import { DelayedLinks } from './delayed-links.ts'
import { Namespaces } from './namespaces.ts'

export type Address = { host: string; port: number }

export type Place = {
  /** The address that this node's hub listens on. */
  listen: string
  /** The address that other hubs connect to. */
  route: Address
  ports: NodePorts
  command: Command
}

/** Wraps a command so that it runs in the network of a node. */
export type Command = (program: string, ...args: string[]) => [string, ...string[]]

export interface Network {
  readonly places: readonly Place[]
  /** Undefined when links cannot be cut. */
  readonly cable?: { cut(node: number): Promise<void>; reconnect(node: number): Promise<void> }
  /** Undefined when hubs are linked directly. */
  readonly links?: { delay(ms: number): void }
  /** Removes everything that was created. Idempotent. */
  close(): Promise<void>
}

/**
 * `delayed`: hubs reach each other only through proxies. Rejects without the permission to create namespaces, after removing everything
 * that was created.
 */
export async function inNamespaces(nodes: number, delayed: boolean): Promise<Network> {
  const namespaces = new Namespaces(nodes)
  const ports = { cluster: 9932, leafNodes: 9931, hub: 9930, leaf: 9940 }
  let links: DelayedLinks | undefined
  const close = async () => {
    await links?.close()
    await namespaces.close()
  }
  try {
    await namespaces.open()
    const places: Place[] = []
    for (let node = 0; node < nodes; node++) {
      const listen = namespaces.addressOf(node)
      const host = delayed ? await namespaces.addAlias(node) : listen
      places.push({ listen, route: { host, port: ports.cluster }, ports, command: namespaces.commandIn(node) })
    }
    if (delayed) links = await DelayedLinks.open(places, namespaces.commandIn('bridge'))
    return { places, cable: namespaces, ...(links && { links }), close }
  } catch (error) {
    await close()
    throw error
  }
}

export async function onLoopback(nodes: number, delayed: boolean): Promise<Network> {
  const command: Command = (program, ...args) => [program, ...args]
  const places: Place[] = []
  for (let node = 0; node < nodes; node++) {
    const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
    // Hubs gossip the addresses of their callers with their ports: these addresses must not reach a hub directly.
    const listen = delayed ? `127.0.1.${node + 1}` : '127.0.0.1'
    const host = delayed ? `127.0.2.${node + 1}` : listen
    places.push({ listen, route: { host, port: cluster }, ports: { cluster, leafNodes, hub, leaf }, command })
  }
  const links = delayed ? await DelayedLinks.open(places, command) : undefined
  return { places, ...(links && { links }), close: async () => links?.close() }
}
