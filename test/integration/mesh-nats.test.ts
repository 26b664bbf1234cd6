// The contract of the mesh port on NATS, with real servers on free ports.

import { join } from 'node:path'
import type { Route } from '../../lib/mesh/mesh.ts'
import { NatsMesh } from '../../lib/mesh/nats/nats-mesh.ts'
import { clusterPassword, clusterUser, freePorts, type NodePorts, temporaryDirectory } from '../support/cluster.ts'
import { type ContractNetwork, meshContract, noting, type OpenMesh, unopened } from '../support/mesh-contract.ts'

type Place = { directory: string; ports: NodePorts; mesh: NatsMesh; hub: Route[] }

class Servers implements ContractNetwork {
  /** The latest mesh of each name. */
  readonly #places = new Map<string, Place>()
  readonly #meshes: NatsMesh[] = []
  readonly #removals: (() => Promise<void>)[] = []

  async mesh(node: string): Promise<OpenMesh> {
    const known = this.#places.get(node)
    const free = known?.mesh.state === 'stopped'
    const { directory, ports } = free ? known : await this.#settle()
    const hub = free
      ? known.hub
      : [...this.#places.values()]
          .filter(({ mesh }) => mesh.state !== 'stopped')
          .map((place) => ({ host: '127.0.0.1', port: place.ports.cluster }))
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
    this.#places.set(node, { directory, ports, mesh, hub })
    const open = unopened(node, mesh)
    await mesh.open(node, { hub, leaf: [] }, noting(open))
    return open
  }

  async interrupt(node: string): Promise<void> {
    process.kill(this.#places.get(node)!.mesh.pids.leaf!, 'SIGKILL')
  }

  async relink(node: string): Promise<void> {
    process.kill(this.#places.get(node)!.mesh.pids.hub!, 'SIGKILL')
  }

  async close(): Promise<void> {
    const closed = await Promise.allSettled(this.#meshes.map((mesh) => mesh.close()))
    for (const remove of this.#removals) await remove()
    const failure = closed.find((result) => result.status === 'rejected')
    if (failure) throw failure.reason
  }

  async #settle(): Promise<Pick<Place, 'directory' | 'ports'>> {
    const [directory, remove] = await temporaryDirectory()
    this.#removals.push(remove)
    const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
    return { directory, ports: { cluster, leafNodes, hub, leaf } }
  }
}

meshContract('the mesh on NATS', () => new Servers())
