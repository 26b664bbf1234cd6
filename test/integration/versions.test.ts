// Several versions of nats-server in one cluster: links between all of them, and upgrades under load.

import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { hubConfiguration, leafConfiguration, type ServerSettings } from '../../lib/mesh/nats/configuration.ts'
import { Connection } from '../../lib/mesh/nats/connection.ts'
import { type Configuration, NatsServer } from '../../lib/mesh/nats/server.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import {
  allMet,
  eventually,
  freePorts,
  quiet,
  reading,
  subscribe,
  TestCluster,
  type TestNode,
  temporaryDirectory,
} from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { needsSeveral, ReplaceableBinary, type ServerBinary, serverBinaries } from '../support/server-versions.ts'

const tables: [string, string][] = [['dev', 'dog']]
const binaries = await serverBinaries()
const [oldest, newest] = [binaries[0]!, binaries.at(-1)!]
const skip = needsSeveral(binaries)

const received = (node: TestNode, from: TestNode) => node.host.from(from.name, 'dog').map(({ id }) => id)
const write = (node: TestNode, id: string) => node.host.write(id, insert('dog', { id }))

/** A hub and a leaf of these versions, with the mesh's configuration. */
async function hubAndLeaf(t: { after(work: () => unknown): void }, hubBinary: ServerBinary, leafBinary: ServerBinary) {
  const [directory, remove] = await temporaryDirectory()
  const [cluster = 0, leafNodes = 0, hubPort = 0, leafPort = 0] = await freePorts(4)
  const settings: ServerSettings = {
    node: 'node1',
    user: 'user',
    password: 'password',
    clusterName: 'harperdb',
    listen: '127.0.0.1',
    ports: { cluster, leafNodes, hub: hubPort, leaf: leafPort },
    logLevel: 'error',
    storeDirectory: join(directory, 'store'),
    sync: '10s',
    routeCompression: 's2_auto',
  }
  await mkdir(settings.storeDirectory)
  const lines: string[] = []
  const server = (kind: 'hub' | 'leaf', { path }: ServerBinary, port: number, user: string) =>
    new NatsServer({
      kind,
      findBinary: () => findBinary(path),
      configFile: join(directory, `${kind}.json`),
      probe: async () => (await connectTo(port, user)).close(),
      portKey: () => '',
      events: {
        line: (level, text) => void lines.push(`${kind} ${level} ${text}`),
        died() {},
        failed() {},
        returned() {},
      },
      logger: silentLogger,
    })
  const connectTo = (port: number, user: string) =>
    Connection.open({ port, user, password: () => 'password', name: 'test', onChange() {} })
  const started: NatsServer[] = []
  t.after(async () => {
    for (const each of started.reverse()) await each.stop()
    await remove()
  })
  const start = async (each: NatsServer, configuration: Configuration) => {
    started.push(each)
    await each.start(configuration)
  }
  await start(server('hub', hubBinary, hubPort, 'user'), (version) =>
    hubConfiguration(settings, [], join(directory, 'hub.pid'), version),
  )
  await start(server('leaf', leafBinary, leafPort, 'user'), (version) =>
    leafConfiguration(settings, [], join(directory, 'leaf.pid'), version),
  )
  const atHub = await connectTo(hubPort, 'user')
  const atLeaf = await connectTo(leafPort, 'user-mesh')
  t.after(() => Promise.all([atHub.close(), atLeaf.close()]))
  return { atHub, atLeaf, lines }
}

describe('a hub and a leaf of different versions', () => {
  for (const hub of binaries)
    for (const leaf of binaries)
      test(`hub ${hub.name} and leaf ${leaf.name} exchange requests both ways`, async (t) => {
        const { atHub, atLeaf, lines } = await hubAndLeaf(t, hub, leaf)
        atHub.subscribe('at.hub', (message) => message.respond('hub'))
        atLeaf.subscribe('at.leaf', (message) => message.respond('leaf'))
        const ask = (connection: Connection, subject: string) =>
          eventually(
            () => `${subject} answers: ${lines.join('\n')}`,
            () => connection.request(subject, '', { timeout: 500 }).catch(() => undefined),
          )
        assert.equal((await ask(atLeaf, 'at.hub')).string(), 'hub')
        assert.equal((await ask(atHub, 'at.leaf')).string(), 'leaf')
        const info = await atHub.request('$JS.node1-leaf.API.INFO', '', { timeout: 2_000 })
        assert.equal(info.json<{ error?: object }>().error, undefined)
      })
})

describe('an upgrade', { skip }, () => {
  const order = binaries.length > 2 ? [oldest, binaries[1]!, newest] : [oldest, newest]

  test(`a store written by ${oldest.name} is read by ${order.slice(1).map(({ name }) => name)}: unread messages arrive`, async (t) => {
    const cluster = TestCluster.for(t)
    const [directory, remove] = await temporaryDirectory()
    t.after(remove)
    const binary = new ReplaceableBinary(directory)
    await binary.set(oldest)
    const node1 = await cluster.start('node1', { tables, options: { natsServer: binary.path } })
    const node2 = await cluster.start('node2', { tables, routes: [node1.ports.cluster] })
    await subscribe(node1, node2, { dog: 'publish' })
    const expected: string[] = []
    const writeSome = async (prefix: string) => {
      const ids = Array.from({ length: 50 }, (_, index) => `${prefix} ${index}`)
      await Promise.all(ids.map((id) => write(node1, id)))
      expected.push(...ids)
    }
    await writeSome(oldest.name)
    await quiet([node1, node2])
    for (const next of order.slice(1)) {
      await node2.cluster.close()
      await writeSome(`unread, before ${next.name}`)
      await node1.cluster.close()
      await binary.set(next)
      await node1.reopen()
      await writeSome(`with ${next.name}`)
      await node2.reopen()
      await allMet([node1, node2])
      await quiet([node1, node2])
      assert.deepEqual(received(node2, node1), expected)
    }
    assert.deepEqual(node2.seen('replication:gap'), [])
  })

  for (const killed of ['hub', 'leaf'] as const)
    test(`a replaced binary is used by both servers after the next start of the ${killed}`, async (t) => {
      const cluster = TestCluster.for(t)
      const [directory, remove] = await temporaryDirectory()
      t.after(remove)
      const binary = new ReplaceableBinary(directory)
      await binary.set(oldest)
      const node1 = await cluster.start('node1', { tables, options: { natsServer: binary.path } })
      const node2 = await cluster.start('node2', { tables, routes: [node1.ports.cluster] })
      await subscribe(node1, node2, { dog: 'both' })
      await write(node1, 'before')
      const before = { hub: await node1.pid('hub'), leaf: await node1.pid('leaf') }
      await binary.set(newest)
      await node1.kill(killed)
      await Promise.all([node1.replaced('hub', before.hub), node1.replaced('leaf', before.leaf)])
      for (const server of ['hub', 'leaf'] as const)
        await eventually(`the ${server} is ${newest.name}`, async () => {
          const client = await cluster.client(node1, server)
          return client.info?.version === newest.name
        })
      await write(node1, 'after')
      await write(node2, 'back')
      await allMet([node1, node2])
      await reading(node1, node2, 'dog')
      await quiet([node1, node2])
      assert.deepEqual(received(node2, node1), ['before', 'after'])
      assert.deepEqual(received(node1, node2), ['back'])
    })

  test('of three nodes, one after the other, under continuous writes loses nothing and applies nothing twice', async (t) => {
    const cluster = TestCluster.for(t)
    const nodes: TestNode[] = []
    const binary: ReplaceableBinary[] = []
    for (const name of ['node1', 'node2', 'node3']) {
      const [directory, remove] = await temporaryDirectory()
      t.after(remove)
      const own = new ReplaceableBinary(directory)
      await own.set(oldest)
      binary.push(own)
      const routes = nodes.map(({ ports }) => ports.cluster)
      nodes.push(
        await cluster.start(name, { tables, routes, options: { natsServer: own.path, publishTimeout: 30_000 } }),
      )
    }
    await allMet(nodes)
    const [node1, node2, node3] = nodes as [TestNode, TestNode, TestNode]
    await subscribe(node1, node2, { dog: 'both' })
    await subscribe(node1, node3, { dog: 'both' })
    await subscribe(node2, node3, { dog: 'both' })

    let isWriting = true
    let longestStall = 0
    const written = nodes.map(() => [] as string[])
    const isOpen = nodes.map(() => true)
    const writers = nodes.map(async (node, index) => {
      for (let last = performance.now(); isWriting; ) {
        if (!isOpen[index]) {
          await new Promise((resolve) => setTimeout(resolve, 10))
          continue
        }
        const id = `${node.name} ${written[index]!.length}`
        written[index]!.push(id)
        // A closed node keeps it in its outbox.
        await write(node, id).catch((error) => assert.match(error.code, /^(closed|publish_timeout)$/))
        longestStall = Math.max(longestStall, performance.now() - last)
        last = performance.now()
      }
    })
    const progress = async () => {
      const before = written.map((ids) => ids.length)
      await eventually('all write on', () => written.every((ids, index) => ids.length > before[index]! + 20))
    }
    await progress()
    for (const [index, node] of nodes.entries()) {
      isOpen[index] = false
      await node.cluster.close()
      await binary[index]!.set(newest)
      await node.reopen()
      isOpen[index] = true
      await progress()
    }
    isWriting = false
    await Promise.all(writers)
    await quiet(nodes, 30_000)
    for (const reader of nodes)
      for (const [index, writer] of nodes.entries())
        if (reader !== writer)
          assert.deepEqual(received(reader, writer), written[index], `${writer.name} at ${reader.name}`)
    for (const node of nodes) assert.deepEqual(node.seen('replication:gap'), [])
    t.diagnostic(
      `${written.flat().length} transactions, from ${oldest.name} to ${newest.name}; longest stall of a writer ${Math.round(longestStall)} ms`,
    )
  })
})
