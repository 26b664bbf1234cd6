// Hubs with one common name: the mesh becomes whole, whichever address each server draws, and follows changes of the name.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import type { Member, MeshListener } from '../../lib/mesh/mesh.ts'
import { NatsMesh } from '../../lib/mesh/nats/nats-mesh.ts'
import { Authority } from '../support/authority.ts'
import { clusterPassword, clusterUser, eventually, freePorts, temporaryDirectory } from '../support/cluster.ts'

/** A name that the operating system does not know. */
const NAME = 'hubs.invalid'
const ADDRESSES = ['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4']
const silent: MeshListener = { state: () => {}, rejected: () => {}, linked: () => {} }

/** Nodes whose only route is the name. `addresses` is the answer of the name server, which the test changes. */
async function scene(t: TestContext, { authority }: { authority?: Authority } = {}) {
  const [directory, remove] = await temporaryDirectory()
  const meshes: NatsMesh[] = []
  t.after(async () => {
    await Promise.allSettled(meshes.map((mesh) => mesh.close()))
    await remove()
  })
  // Ports of 127.0.0.1 only are known to be free, but nothing else listens on other addresses of the loopback interface.
  const [cluster = 0] = await freePorts(1)
  const state = { addresses: ADDRESSES.slice(0, 3) as string[] | Error }
  const open = async (index: number) => {
    const [leafNodes = 0, hub = 0, leaf = 0] = await freePorts(3)
    const host = ADDRESSES[index]!
    const name = `node${index + 1}`
    const files = await authority?.issue(join(directory, `${name}-tls`), name, { names: [NAME, host] })
    const mesh = new NatsMesh({
      user: clusterUser,
      password: async () => clusterPassword,
      clusterName: 'harperdb',
      listen: host,
      ports: { cluster, leafNodes, hub, leaf },
      logLevel: 'error',
      directory: join(directory, name),
      tls: files && { ...files, insecure: false, verify: true },
      resolve: async (asked) => {
        assert.equal(asked, NAME)
        if (state.addresses instanceof Error) throw state.addresses
        return state.addresses
      },
    })
    meshes.push(mesh)
    await mesh.open(name, { hub: [{ host: NAME, port: cluster }], leaf: [] }, silent)
    return mesh
  }
  return { state, meshes, open, cluster }
}

const connected = (members: Member[]) => members[0]?.connectedNodes.length ?? 0

const whole = (meshes: readonly NatsMesh[], nodes: number) =>
  eventually(`each node is linked with ${nodes - 1} others`, async () => {
    const counts = await Promise.all(
      meshes.map(async (mesh) => connected(await mesh.members({ timeout: 300 }).catch(() => []))),
    )
    return counts.every((count) => count === nodes - 1)
  })

describe('hubs with one name', { concurrency: 2 }, () => {
  test('are all linked', async (t) => {
    const { meshes, open } = await scene(t)
    await Promise.all([0, 1, 2].map(open))
    await whole(meshes, 3)
  })

  test('are all linked with TLS, when certificates contain the name', async (t) => {
    const { meshes, open } = await scene(t, { authority: await Authority.create() })
    await Promise.all([0, 1, 2].map(open))
    await whole(meshes, 3)
  })

  test('are linked when the name appears later', async (t) => {
    const { state, meshes, open } = await scene(t)
    state.addresses = new Error('the name does not exist')
    await Promise.all([0, 1, 2].map(open))
    state.addresses = ADDRESSES.slice(0, 3)
    await whole(meshes, 3)
  })

  test('are linked when the name lists one after the other', async (t) => {
    const { state, meshes, open } = await scene(t)
    for (const index of [0, 1, 2]) {
      // As a service that lists the nodes that are ready.
      state.addresses = ADDRESSES.slice(0, index)
      if (index === 0) state.addresses = new Error('no node is ready')
      await open(index)
    }
    state.addresses = ADDRESSES.slice(0, 3)
    await whole(meshes, 3)
  })

  test('are linked with one that takes the place of another', async (t) => {
    const { state, meshes, open, cluster } = await scene(t)
    await Promise.all([0, 1, 2].map(open))
    await whole(meshes, 3)
    await meshes[2]!.close()
    state.addresses = [ADDRESSES[0]!, ADDRESSES[1]!, ADDRESSES[3]!]
    await open(3)
    const remaining = [meshes[0]!, meshes[1]!, meshes[3]!]
    await whole(remaining, 3)
    const port = (host: string) => ({ host, port: cluster })
    await eventually('the addresses are those of the remote hubs', async () => {
      const [member] = await meshes[0]!.members({ timeout: 300 })
      return JSON.stringify(member!.routes) === JSON.stringify([ADDRESSES[1]!, ADDRESSES[3]!].map(port))
    })
  })
})
