// The mesh on NATS passes the contract of the port, on real servers and free ports.

import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import type { Mesh, MeshListener, Route } from '../../lib/mesh/mesh.ts'
import { NatsMesh } from '../../lib/mesh/nats/nats-mesh.ts'
import { meshContract, type NetworkUnderTest } from '../../lib/testing.ts'
import { clusterPassword, clusterUser, freePorts, type NodePorts, temporaryDirectory } from '../support/cluster.ts'

type Node = { directory: string; ports: NodePorts; mesh: NatsMesh; hub: Route[] }

class NatsNetwork implements NetworkUnderTest {
  /** The latest mesh of each node. */
  readonly #nodes = new Map<string, Node>()
  readonly #meshes: NatsMesh[] = []
  readonly #removals: (() => Promise<void>)[] = []

  async open(node: string, listener: MeshListener): Promise<Mesh> {
    const known = this.#nodes.get(node)
    const isReopened = known?.mesh.state === 'stopped'
    const { directory, ports } = isReopened ? known : await this.#prepare()
    const hub = isReopened
      ? known.hub
      : [...this.#nodes.values()]
          .filter(({ mesh }) => mesh.state !== 'stopped')
          .map(({ ports }) => ({ host: '127.0.0.1', port: ports.cluster }))
    const mesh = new NatsMesh({
      user: clusterUser,
      password: async () => clusterPassword,
      clusterName: 'harperdb',
      listen: '127.0.0.1',
      ports,
      logLevel: 'error',
      directory: join(directory, 'clustering'),
    })
    this.#meshes.push(mesh)
    this.#nodes.set(node, { directory, ports, mesh, hub })
    await mesh.open(node, { hub, leaf: [] }, listener)
    return mesh
  }

  async restartServer(node: string): Promise<void> {
    process.kill(this.#nodes.get(node)!.mesh.pids.leaf!, 'SIGKILL')
  }

  async relink(node: string): Promise<void> {
    process.kill(this.#nodes.get(node)!.mesh.pids.hub!, 'SIGKILL')
  }

  async close(): Promise<void> {
    const closed = await Promise.allSettled(this.#meshes.map((mesh) => mesh.close()))
    for (const remove of this.#removals) await remove()
    const failure = closed.find((result) => result.status === 'rejected')
    if (failure) throw failure.reason
  }

  async #prepare(): Promise<Pick<Node, 'directory' | 'ports'>> {
    const [directory, remove] = await temporaryDirectory()
    this.#removals.push(remove)
    const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
    return { directory, ports: { cluster, leafNodes, hub, leaf } }
  }
}

describe('the mesh contract on NATS', () => {
  const { cases, close } = meshContract(() => new NatsNetwork())
  after(close)
  for (const { name, run } of cases) it(name, run)
})
