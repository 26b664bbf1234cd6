// The two servers of a node: start, access, rejection, kill, hang, orphans, reload and stop.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chown, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { ClusterManager } from '../../lib/index.ts'
import { exposuresOf, factsOf, isMaintained } from '../../lib/mesh/nats/advisories.ts'
import type { Connection } from '../../lib/mesh/nats/connection.ts'
import { HubMonitor } from '../../lib/mesh/nats/hub-monitor.ts'
import { LeafInterest } from '../../lib/mesh/nats/leaf-interest.ts'
import {
  allMet,
  clusterPassword,
  clusterUser,
  eventually,
  isRunning,
  killed,
  type NodePorts,
  quiet,
  type ServerKind,
  serverPid,
  subscribe,
  subscriptionsOf,
  TestCluster,
  type TestNode,
} from '../support/cluster.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'

const tables: [string, string][] = [['dev', 'dog']]
const kinds: ServerKind[] = ['hub', 'leaf']
const names = ({ nodes }: { nodes: { name: string }[] }) => nodes.map(({ name }) => name)
const write = (node: TestNode, id: string) => node.host.write(id, insert('dog', { id }))

async function pair(t: { after(fn: () => unknown): void }) {
  const cluster = new TestCluster()
  t.after(() => cluster.close())
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables })) as [TestNode, TestNode]
  return { cluster, node1, node2 }
}

describe('open and close', () => {
  test('open starts a hub and a leaf, close ends both', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1')
    assert.equal(node.cluster.state, 'open')
    const pids = await Promise.all(kinds.map((kind) => node.pid(kind)))
    assert.notEqual(pids[0], pids[1])
    await node.cluster.close()
    assert.equal(node.cluster.state, 'closed')
    for (const pid of pids) assert.equal(await isRunning(pid), false)
    assert.deepEqual(
      node.seen('mesh:state').map(({ state }) => state),
      ['connecting', 'connected', 'stopped'],
    )
  })

  test('a version of nats-server with known security holes is logged once', async (t) => {
    const cluster = TestCluster.for(t)
    const logged: [details: { version?: string; advisories?: string[] }, text: string][] = []
    const ignore = () => {}
    const warn = (details: object, text: string) => void logged.push([details, text])
    await cluster.start('node1', {
      options: { logger: { debug: ignore, info: ignore, warn, error: ignore } },
    })
    const { stdout } = await promisify(execFile)(process.env.NATS_SERVER || 'nats-server', ['--version'])
    const version = /v(\d+)\.(\d+)\.(\d+)/.exec(stdout)!.slice(1).map(Number) as [number, number, number]
    const advisories = exposuresOf(version, factsOf({ listen: '127.0.0.1', tls: undefined })).map(({ id }) => id)
    assert.deepEqual(
      logged
        .filter(([, text]) => text === 'this nats-server version has known security holes')
        .map(([details]) => [details.version, details.advisories]),
      advisories.length > 0 || !isMaintained(version) ? [[version.join('.'), advisories]] : [],
    )
  })

  test('close is idempotent, and Symbol.asyncDispose closes', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1')
    const pids = await Promise.all(kinds.map((kind) => node.pid(kind)))
    await Promise.all([node.cluster.close(), node.cluster[Symbol.asyncDispose](), node.cluster.close()])
    await node.cluster.close()
    for (const pid of pids) assert.equal(await isRunning(pid), false)
    assert.equal(node.seen('mesh:state').filter(({ state }) => state === 'stopped').length, 1)
  })

  test('a closed manager rejects every call', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1', { tables })
    await node.cluster.close()
    const closed = { code: 'closed', statusCode: 503 }
    await assert.rejects(write(node, 'late'), closed)
    await assert.rejects(node.cluster.getRoutes({}), closed)
    await assert.rejects(node.cluster.status({}), closed)
    await assert.rejects(node.cluster.network({}), closed)
    await assert.rejects(node.cluster.setRoutes({ server: 'hub', routes: [] }), closed)
    await assert.rejects(node.cluster.execute({ operation: 'cluster_status' }, { superUser: true }), closed)
    assert.deepEqual(node.cluster.subscriptions(), [])
  })

  test('files with secrets are private, and no command line shows the password', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1')
    const directory = join(node.directory, 'clustering')
    const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8)
    assert.equal(await mode(directory), '700')
    assert.equal(await mode(join(directory, 'leaf')), '700')
    const secret = [clusterPassword, encodeURIComponent(clusterPassword)]
    const files = (await readdir(directory, { withFileTypes: true })).filter((file) => file.isFile())
    for (const { name } of files) {
      const text = await readFile(join(directory, name), 'utf8')
      if (secret.some((each) => text.includes(each))) assert.equal(await mode(join(directory, name)), '600', name)
    }
    for (const kind of kinds) {
      assert.equal(await mode(join(directory, `${kind}.json`)), '600')
      const pid = await node.pid(kind)
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8')
      assert.ok(!secret.some((each) => command.includes(each)), command)
    }
    const config = await readFile(node.configFile, 'utf8')
    assert.ok(!secret.some((each) => config.includes(each)))
  })

  test('disabled: no server, publish resolves at once, routes and events still work', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1', { tables, clustering: { enabled: false } })
    await write(node, 'one')
    const route = { host: '127.0.0.1', port: 12345 }
    assert.deepEqual(await node.cluster.setRoutes({ server: 'hub', routes: [route] }), {
      message: 'cluster routes successfully set',
      set: [route],
      skipped: [],
    })
    assert.deepEqual(node.seen('route:added'), [{ server: 'hub', route, cause: 'api' }])
    assert.deepEqual(await node.cluster.getRoutes({}), { hub: [route], leaf: [] })
    assert.deepEqual(await node.cluster.status({}), { node_name: 'node1', is_enabled: false, connections: [] })
    await assert.rejects(node.cluster.network({}), { code: 'clustering_disabled' })
    await assert.rejects(node.cluster.purgeStream({ database: 'dev', table: 'dog' }), { code: 'clustering_disabled' })
    for (const kind of kinds) assert.equal(await serverPid(node, kind), undefined)
    assert.deepEqual(node.seen('mesh:state'), [])
    await node.cluster.close()
  })
})

describe('a failed open leaves nothing running', { concurrency: 2 }, () => {
  test('without a binary', async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node1')
    await assert.rejects(cluster.open(files, { options: { natsServer: '/no/such/nats-server' } }), (error: never) => {
      const { code, message, hint } = error as { code: string; message: string; hint: string }
      assert.equal(code, 'nats_server_missing')
      assert.match(message, /'\/no\/such\/nats-server' was not found/)
      assert.match(hint, /Install nats-server/)
      return true
    })
  })

  test('with a binary that starts no server', async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node1')
    const natsServer = join(files.directory, 'broken-server')
    const lines = [
      '#!/bin/sh',
      '[ "$1" = --version ] && echo "nats-server: v2.9.10" && exit',
      'echo "[1] [FTL] no luck" >&2; exit 1',
    ]
    await writeFile(natsServer, `${lines.join('\n')}\n`, { mode: 0o755 })
    await assert.rejects(cluster.open(files, { options: { natsServer } }), {
      code: 'server_failed',
      statusCode: 500,
      message: /^The (hub|leaf) server did not start: .*no luck/,
    })
    for (const kind of kinds) assert.equal(await serverPid(files, kind), undefined)
  })

  const keys: Record<keyof NodePorts, string> = {
    cluster: 'clustering.hubServer.cluster.network.port',
    leafNodes: 'clustering.hubServer.leafNodes.network.port',
    hub: 'clustering.hubServer.network.port',
    leaf: 'clustering.leafServer.network.port',
  }
  for (const [name, key] of Object.entries(keys) as [keyof NodePorts, string][])
    test(`with the taken port ${key}`, async (t) => {
      const cluster = TestCluster.for(t)
      const files = await cluster.prepare('node1')
      const port = files.ports[name]
      const taken = createServer((socket) => socket.destroy())
      t.after(() => taken.close())
      await new Promise<void>((resolve) => taken.listen(port, '127.0.0.1', resolve))
      await assert.rejects(cluster.open(files), {
        code: 'port_taken',
        message: `Port ${port} (${key}) is in use by another process`,
      })
      for (const kind of kinds) assert.equal(await serverPid(files, kind), undefined)
      await new Promise((resolve) => taken.close(resolve))
      const node = await cluster.open(files)
      assert.equal(node.cluster.state, 'open', 'it opens once the port is free')
    })

  test('with a port taken by a silent listener: no connection stays open', async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node1')
    const sockets = new Set<Socket>()
    const taken = createServer((socket) => {
      sockets.add(socket.resume())
      socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    })
    t.after(() => {
      for (const socket of sockets) socket.destroy()
      taken.close()
    })
    await new Promise<void>((resolve) => taken.listen(files.ports.hub, '127.0.0.1', resolve))
    await assert.rejects(cluster.open(files), { code: 'port_taken' })
    await eventually('no connection is left', () => sockets.size === 0)
  })

  test('without the name of the node', async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node1', { clustering: { nodeName: null } })
    await assert.rejects(cluster.open(files), { code: 'node_name_missing', message: /clustering\.nodeName/ })
    for (const kind of kinds) assert.equal(await serverPid(files, kind), undefined)
  })

  test('without a password', async (t) => {
    const cluster = TestCluster.for(t)
    const { configFile } = await cluster.prepare('node1')
    await assert.rejects(ClusterManager.open({ configFile, host: new MemoryHost() }), {
      code: 'invalid_option',
      message: /'password'/,
    })
  })
})

describe('rejected', () => {
  test('in a store of another user', {
    skip: process.getuid?.() !== 0 && 'only root may give a folder away',
  }, async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node1')
    const text = await readFile(files.configFile, 'utf8')
    await writeFile(files.configFile, text.replace('  leafServer:\n', '$&    streams: { path: store }\n'))
    const path = join(files.directory, 'store')
    await mkdir(path)
    await chown(path, 12_345, 12_345)
    await assert.rejects(cluster.open(files), {
      code: 'directory_unusable',
      message: new RegExp(`Directory ${path} .*belongs to`),
    })
    assert.deepEqual(await readdir(path), [])
    for (const kind of kinds) assert.equal(await serverPid(files, kind), undefined)
    await chown(path, 0, 0)
    await cluster.open(files)
  })

  test('a node with another password: both sides report it, and nothing replicates', async (t) => {
    const cluster = TestCluster.for(t)
    const node1 = await cluster.start('node1', { tables })
    const options = { password: 'another password' }
    const node2 = await cluster.start('node2', { tables, options, routes: [node1.ports.cluster] })
    for (const node of [node1, node2]) {
      const { reason } = await eventually(`${node.name} says so`, () => node.seen('connection:rejected')[0])
      assert.match(reason ?? '', /password/)
    }
    assert.deepEqual(names(await node1.cluster.network({})), ['node1'])
    assert.deepEqual(names(await node2.cluster.network({})), ['node2'])
    const request = { node_name: 'node2', subscriptions: subscriptionsOf({ dog: 'both' }) }
    await assert.rejects(node1.cluster.addNode(request), {
      code: 'node_not_listening',
      message: "Unable to add_node, node 'node2' is not listening.",
    })
    assert.deepEqual(node1.cluster.manifest.nodes, [])
  })

  test('a second node with the same name', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1', { tables })
    const second = await cluster.start('node1', { tables, routes: [node.ports.cluster] })
    for (const each of [node, second]) {
      const { reason } = await eventually('both are notified', () => each.seen('connection:rejected')[0], 10_000)
      assert.match(reason ?? '', /the same name/)
    }
  })
})

// Most of the time of these tests is waiting for health checks.
describe('a server that ends is started again', { concurrency: true }, () => {
  test('a hub that is killed', async (t) => {
    const { node1, node2 } = await pair(t)
    await subscribe(node1, node2, { dog: 'both' })
    const leaf = await node1.pid('leaf')
    const before = await node1.kill('hub')
    assert.notEqual(await node1.replaced('hub', before), before)
    await Promise.all([write(node1, 'here'), write(node2, 'there')])
    await quiet([node1, node2])
    assert.deepEqual([node1.host.applied, node2.host.applied], [['there'], ['here']])
    assert.equal(await node1.pid('leaf'), leaf, 'the leaf keeps running')
  })

  test('a leaf that is killed, with the states of the mesh', async (t) => {
    const { node1, node2 } = await pair(t)
    await subscribe(node1, node2, { dog: 'both' })
    const hub = await node1.pid('hub')
    const before = await node1.kill('leaf')
    assert.notEqual(await node1.replaced('leaf', before), before)
    await Promise.all([write(node1, 'here'), write(node2, 'there')])
    await quiet([node1, node2])
    assert.deepEqual([node1.host.applied, node2.host.applied], [['there'], ['here']])
    assert.equal(await node1.pid('hub'), hub, 'the hub keeps running')
    const states = node1.seen('mesh:state')
    assert.deepEqual(
      states.map(({ state }) => state),
      ['connecting', 'connected', 'disconnected', 'connected'],
    )
    assert.match(states[2]!.reason ?? '', /leaf server/)
    assert.equal(node2.seen('mesh:state').length, 2, 'the remote node is not affected')
  })

  for (const kind of kinds)
    test(`a ${kind} that hangs is detected, killed and restarted`, async (t) => {
      const { node1, node2 } = await pair(t)
      await subscribe(node1, node2, { dog: 'both' })
      const before = await node1.kill(kind, 'SIGSTOP')
      await node1.replaced(kind, before, 15_000)
      assert.equal(await isRunning(before), false)
      await Promise.all([write(node1, 'here'), write(node2, 'there')])
      await quiet([node1, node2])
      assert.deepEqual([node1.host.applied, node2.host.applied], [['there'], ['here']])
    })

  test('closing while a server hangs', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1')
    const pids = [await node.kill('leaf', 'SIGSTOP'), await node.pid('hub')]
    await node.cluster.close()
    for (const pid of pids) assert.equal(await isRunning(pid), false)
  })

  test('the next open replaces the servers that a killed host left behind', async (t) => {
    const cluster = TestCluster.for(t)
    const node1 = await cluster.start('node1', { tables })
    const process2 = await cluster.spawn('node2', { tables, routes: [node1.ports.cluster] })
    const orphans = await Promise.all(kinds.map((kind) => serverPid(process2, kind)))
    assert.ok(orphans.every((pid) => pid !== undefined))
    await killed(process2.child)
    const node2 = await cluster.open(process2, { tables })
    for (const orphan of orphans) assert.equal(await isRunning(orphan!), false)
    const pids = await Promise.all(kinds.map((kind) => node2.pid(kind)))
    await subscribe(node1, node2, { dog: 'both' })
    await Promise.all([write(node1, 'here'), write(node2, 'there')])
    await quiet([node1, node2])
    assert.deepEqual([node1.host.applied, node2.host.applied], [['there'], ['here']])
    await node2.cluster.close()
    for (const pid of pids) assert.equal(await isRunning(pid), false)
  })

  test('a host that exits without closing ends its servers', async (t) => {
    const cluster = TestCluster.for(t)
    const { child, ...files } = await cluster.spawn('node1')
    const pids = await Promise.all(kinds.map((kind) => serverPid(files, kind)))
    child.stdin!.end()
    for (const pid of pids) await eventually(`server ${pid} ends`, async () => !(await isRunning(pid!)))
  })
})

test('a suspended host reconnects: data in the old connections may arrive late', async (t) => {
  const cluster = TestCluster.for(t)
  const node = await cluster.start('node1', { tables })
  const states = () => node.seen('mesh:state').map(({ state }) => state)
  // Has the effect of SIGSTOP on this process.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_000)
  await eventually('it is connected again', () => /connected,disconnected,connected$/.test(states().join()))
  await node.host.write('a', insert('dog', { id: 'a' }))
})

test('the hub reports what its leaf and remote nodes subscribe to', async (t) => {
  const cluster = TestCluster.for(t)
  const [node1] = await cluster.startAll(['node1', 'node2'])
  const [hub, leaf] = [await cluster.client(node1!, 'hub', `${clusterUser}-admin`), await cluster.client(node1!)]
  const serverId = hub.info!.server_id
  const request = (subject: string, body: string) => hub.request(subject, body, { timeout: 2_000, noMux: true })
  const connection = { serverId, request, subjects: ['node1.__request__'] } as unknown as Connection
  const monitor = new HubMonitor({ hub: connection, mesh: connection, leafSession: leaf.info!.server_id })
  const [own, remote] = ['node1', 'node2'].map((node) => [
    `${node}.__request__`,
    `enmesh.consumer.${node}`,
    `$JS.${node}-leaf.API.>`,
    'enmesh.heartbeat',
  ])
  for (const [subjects, wanted] of [
    [() => monitor.routedSubjects(), remote],
    [() => monitor.subjectsOfHub(), remote],
    [() => monitor.subjectsOfLeaf('node1'), own],
  ] as const)
    await eventually('all are listed', async () => {
      const listed = new Set(await subjects())
      return wanted!.every((subject) => listed.has(subject))
    })
  assert.equal(await monitor.subjectsOfLeaf('node2'), undefined)
  const interest = new LeafInterest({ node: 'node1', monitor, version: () => [2, 9, 10] })
  assert.deepEqual(await interest.missing(), [])
})

describe('routes take effect at once', () => {
  test('of the hub, without a restart', async (t) => {
    const cluster = TestCluster.for(t)
    const [node1, node2] = await Promise.all([cluster.start('node1', { tables }), cluster.start('node2', { tables })])
    assert.deepEqual(names(await node1.cluster.network({})), ['node1'])
    const pids = await Promise.all([node1, node2].flatMap((node) => kinds.map((kind) => node.pid(kind))))
    const route = { host: '127.0.0.1', port: node2.ports.cluster }
    await node1.cluster.setRoutes({ server: 'hub', routes: [route] })
    await allMet([node1, node2])
    const { nodes } = await node1.cluster.network({})
    assert.deepEqual(
      nodes.map(({ name, connected_nodes, routes }) => ({ name, connected_nodes, routes })),
      [
        { name: 'node1', connected_nodes: ['node2'], routes: [route] },
        { name: 'node2', connected_nodes: ['node1'], routes: [] },
      ],
    )
    await subscribe(node1, node2, { dog: 'both' })
    await write(node1, 'one')
    await quiet([node1, node2])

    assert.deepEqual(await node1.cluster.deleteRoutes({ routes: [route] }), {
      message: 'cluster routes successfully deleted',
      deleted: [route],
      skipped: [],
    })
    await eventually(
      'they no longer see each other',
      async () => names(await node1.cluster.network({ timeout: 200 })).length === 1,
    )
    await write(node1, 'two')
    await node1.cluster.setRoutes({ server: 'hub', routes: [route] })
    await eventually('what was missed arrives', () => node2.host.applied.length === 2)
    assert.deepEqual(node2.host.applied, ['one', 'two'])
    assert.deepEqual(await Promise.all([node1, node2].flatMap((node) => kinds.map((kind) => node.pid(kind)))), pids)
  })

  test('of the hub, repeatedly: every request is answered afterwards', async (t) => {
    const { node1, node2 } = await pair(t)
    await subscribe(node1, node2, { dog: 'both' })
    const route = { host: '127.0.0.1', port: node2.ports.cluster }
    for (let round = 0; round < 5; round++) {
      await node1.cluster.deleteRoutes({ routes: [route] })
      await node1.cluster.setRoutes({ server: 'hub', routes: [route] })
    }
    const asked = Array.from({ length: 20 }, () => [node1, node2]).flat()
    const answers = await Promise.all(asked.map((node) => node.cluster.status({})))
    assert.deepEqual([...new Set(answers.map(({ connections }) => connections[0]?.status))], ['open'])
  })

  test('of the leaf: only the leaf restarts, and no transaction is lost', async (t) => {
    const { node1, node2 } = await pair(t)
    await subscribe(node1, node2, { dog: 'both' })
    const [hub, leaf] = [await node1.pid('hub'), await node1.pid('leaf')]
    const ids = Array.from({ length: 1000 }, (_, index) => `t${index}`)
    const writing = ids.map((id) => write(node1, id))
    const route = { host: '127.0.0.1', port: node2.ports.leafNodes }
    await node1.cluster.setRoutes({ server: 'leaf', routes: [route] })
    assert.equal(await node1.pid('hub'), hub)
    assert.notEqual(await node1.pid('leaf'), leaf)
    await Promise.all([...writing, write(node1, 'after'), write(node2, 'there')])
    await quiet([node1, node2])
    assert.deepEqual(node2.host.applied, [...ids, 'after'])
    assert.deepEqual(node1.host.applied, ['there'])
  })
})
