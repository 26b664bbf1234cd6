// Changes of the servers that fail are completed later, and no server outlives its mesh, whatever fails while it opens or closes.

import assert from 'node:assert/strict'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import type { MeshListener } from '../../lib/mesh/mesh.ts'
import { Consumers } from '../../lib/mesh/nats/consumers.ts'
import { LeafHealth } from '../../lib/mesh/nats/leaf-health.ts'
import { Links } from '../../lib/mesh/nats/links.ts'
import { LocalConnections } from '../../lib/mesh/nats/local-connections.ts'
import { NatsMesh } from '../../lib/mesh/nats/nats-mesh.ts'
import { serversOf } from '../../lib/mesh/nats/processes.ts'
import { NatsServer } from '../../lib/mesh/nats/server.ts'
import { clusterPassword, clusterUser, eventually, freePorts, temporaryDirectory } from '../support/cluster.ts'

const fault = () => {
  throw new Error('injected')
}

async function scene(t: TestContext) {
  const [root, remove] = await temporaryDirectory()
  const directory = join(root, 'clustering')
  const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0, other = 0] = await freePorts(5)
  const state = { password: clusterPassword, states: [] as string[] }
  const listener: MeshListener = { state: (name) => void state.states.push(name), rejected: () => {}, linked: () => {} }
  const mesh = new NatsMesh({
    user: clusterUser,
    password: async () => state.password,
    clusterName: 'harperdb',
    listen: '127.0.0.1',
    ports: { cluster, leafNodes, hub, leaf },
    logLevel: 'error',
    directory,
  })
  t.after(async () => {
    t.mock.restoreAll()
    await mesh.close().catch(() => {})
    await remove()
  })
  const open = () => mesh.open('node1', { hub: [], leaf: [] }, listener)
  const configuration = (server: string) => readFile(join(directory, `${server}.json`), 'utf8')
  /** Makes the configuration of a server unwritable, as a full disk does. */
  const block = (server: string) => mkdir(join(directory, `${server}.json.new`))
  const unblock = (server: string) => rm(join(directory, `${server}.json.new`), { recursive: true })
  const running = async () =>
    (await Promise.all(['hub', 'leaf'].map((server) => serversOf(join(directory, `${server}.json`))))).flat()
  return { mesh, state, open, configuration, block, unblock, running, route: { host: '127.0.0.1', port: other } }
}

describe('a change that fails', { concurrency: 2 }, () => {
  for (const server of ['hub', 'leaf'] as const)
    test(`at the ${server}: the new password is reported as not in effect, and follows`, async (t) => {
      const { mesh, state, open, configuration, block, unblock } = await scene(t)
      await open()
      state.password = `another ${clusterPassword}`
      await block(server)
      await assert.rejects(mesh.rotatePassword(), {
        code: 'server_failed',
        message: /does not use the new password yet, retrying/,
      })
      await unblock(server)
      await eventually('both have it', async () =>
        (await Promise.all(['hub', 'leaf'].map(configuration))).every((text) => text.includes(state.password)),
      )
      const ensured = () => mesh.ensureStream({ database: 'dev', table: 'dog' }, '').catch(() => undefined)
      await eventually('the leaf answers', ensured)
      await eventually(
        'the hub answers',
        async () => (await mesh.members({ timeout: 300 }).catch(() => [])).length === 1,
      )
    })

  test('in the routes of the hub: they are set again, and so are the previous ones', async (t) => {
    const { mesh, open, configuration, block, unblock, route } = await scene(t)
    await open()
    const hasRoute = async () => (await configuration('hub')).includes(`127.0.0.1:${route.port}`)
    await block('hub')
    await assert.rejects(mesh.setRoutes({ hub: [route], leaf: [] }))
    await unblock('hub')
    await mesh.setRoutes({ hub: [route], leaf: [] })
    assert.ok(await hasRoute())
    await block('hub')
    await assert.rejects(mesh.setRoutes({ hub: [], leaf: [] }))
    await unblock('hub')
    await mesh.setRoutes({ hub: [route], leaf: [] })
    assert.ok(await hasRoute())
  })

  test('in the routes of the leaf half way: the previous ones are set again', async (t) => {
    const { mesh, open, configuration, route } = await scene(t)
    await open()
    const original = NatsServer.prototype.restart
    t.mock.method(NatsServer.prototype, 'restart', async function (this: NatsServer, ...args: [never]) {
      await original.apply(this, args)
      fault()
    } as never)
    await assert.rejects(mesh.setRoutes({ hub: [], leaf: [route] }), { message: 'injected' })
    t.mock.restoreAll()
    assert.ok((await configuration('leaf')).includes(`127.0.0.1:${route.port}`))
    await mesh.setRoutes({ hub: [], leaf: [] })
    assert.ok(!(await configuration('leaf')).includes(`127.0.0.1:${route.port}`))
  })
})

describe('no server is left', () => {
  const opening: [name: string, object: object, method: string, call?: number][] = [
    ['the hub starts', NatsServer.prototype, 'start', 0],
    ['the leaf starts', NatsServer.prototype, 'start', 1],
    ['links are checked', Links.prototype, 'serve'],
    ['consumers are served', Consumers.prototype, 'serve'],
    ['the leaf is checked', LeafHealth.prototype, 'started'],
  ]
  for (const [name, object, method, call = 0] of opening)
    test(`when opening fails after ${name}`, async (t) => {
      const { mesh, open, running } = await scene(t)
      const original = object[method as never] as (...args: unknown[]) => Promise<unknown>
      let calls = 0
      const isAsync = method.startsWith('start')
      const failing = async function (this: unknown, ...args: unknown[]) {
        await original.apply(this, args)
        if (calls++ === call) fault()
      }
      t.mock.method(object, method as never, (isAsync ? failing : fault) as never)
      await assert.rejects(open(), { message: 'injected' })
      assert.deepEqual(await running(), [])
      assert.equal(mesh.state, 'stopped')
    })

  const closing: [name: string, object: object, method: string][] = [
    ['the listener', {}, ''],
    ['a connection', LocalConnections.prototype, 'close'],
    ['a server', NatsServer.prototype, 'stop'],
    ['the checks of the leaf', LeafHealth.prototype, 'close'],
  ]
  for (const [name, object, method] of closing)
    test(`when ${name} fails while the mesh closes`, async (t) => {
      const { mesh, state, open, running } = await scene(t)
      await open()
      assert.equal((await running()).length, 2)
      if (method === '') state.states.push = fault
      else {
        const original = object[method as never] as (...args: unknown[]) => Promise<unknown>
        t.mock.method(
          object,
          method as never,
          async function (this: unknown, ...args: unknown[]) {
            await original.apply(this, args)
            fault()
          } as never,
        )
      }
      await assert.rejects(mesh.close(), /injected/)
      assert.deepEqual(await running(), [])
      await assert.rejects(mesh.close(), /injected/, 'the same result')
    })
})
