// Server settings in options and in the configuration file take effect in the running processes.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { parse, stringify } from 'yaml'
import type { ClusterOptions } from '../../lib/index.ts'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { isAtLeast, type Version, versionText } from '../../lib/mesh/nats/versions.ts'
import {
  allMet,
  eventually,
  quiet,
  type ServerKind,
  subscribe,
  TestCluster,
  type TestNode,
  temporaryDirectory,
} from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [['dev', 'dog']]
const { path, version } = await findBinary()
const since = (needed: Version) =>
  !isAtLeast(version, needed) && `nats-server ${versionText(version)} is older than ${versionText(needed)}`

/** A monitoring answer of a server. */
async function monitor<T>(cluster: TestCluster, node: TestNode, server: ServerKind, endpoint: string): Promise<T> {
  const client = await cluster.client(node, server, 'cluster_user-admin')
  const answer = await client.request(`$SYS.REQ.SERVER.${client.info!.server_id}.${endpoint}`, '', { timeout: 5_000 })
  return answer.json<{ data: T }>().data
}

/** A node whose file has these keys in `leafServer.streams`. */
async function startWith(cluster: TestCluster, streams: object, options: Partial<ClusterOptions> = {}) {
  const files = await cluster.prepare('node1')
  const config = parse(await readFile(files.configFile, 'utf8'))
  config.clustering.leafServer.streams = streams
  await writeFile(files.configFile, stringify(config))
  return cluster.open(files, { options })
}

test('serverEnvironment and PATH are the whole environment of both servers', async (t) => {
  const serverEnvironment = { GOMEMLIMIT: '500MiB', GOMAXPROCS: '1' }
  const node = await TestCluster.for(t).start('node1', { options: { serverEnvironment } })
  for (const server of ['hub', 'leaf'] as const) {
    const text = await readFile(`/proc/${await node.pid(server)}/environ`, 'utf8')
    const variables = Object.fromEntries(text.split('\0').flatMap((line) => (line ? [line.split(/=(.*)/s)] : [])))
    assert.deepEqual(variables, { ...serverEnvironment, PATH: process.env.PATH })
  }
})

test('an invalid serverEnvironment is rejected by name', async (t) => {
  const cluster = TestCluster.for(t)
  for (const [serverEnvironment, message] of [
    [{ 'A B': '1' }, /serverEnvironment.*'A B'/],
    [{ A: 1 }, /serverEnvironment\.A.*string/],
    [{ A: 'a\0b' }, /serverEnvironment\.A/],
  ] as const)
    await assert.rejects(cluster.start('node1', { options: { serverEnvironment } as never }), {
      code: 'invalid_option',
      message,
    })
})

for (const [sync, expected] of [
  ['always', { sync_always: true }],
  ['15s', { sync_interval: 15e9 }],
] as const)
  test(`streams.sync: ${sync}`, { skip: since([2, 10, 0]) }, async (t) => {
    const cluster = TestCluster.for(t)
    const node = await startWith(cluster, { sync })
    type Varz = { jetstream: { config: Record<string, unknown> } }
    const { jetstream } = await monitor<Varz>(cluster, node, 'leaf', 'VARZ')
    for (const [key, value] of Object.entries(expected)) assert.equal(jetstream.config[key], value)
  })

test('keys that this version does not support are reported and ignored', {
  skip: isAtLeast(version, [2, 10, 0]) && 'it takes all',
}, async (t) => {
  const lines: string[] = []
  const note = (details: object, text?: string) => void lines.push(`${text} ${JSON.stringify(details)}`)
  const logger = { debug() {}, info() {}, warn: note, error: note }
  await startWith(TestCluster.for(t), { sync: '10s' }, { logger })
  assert.ok(
    lines.some((line) => /ignores a configuration key.*streams\.sync.*2\.10\.0/.test(line)),
    lines.join('\n'),
  )
})

test('keys with invalid values are rejected', async (t) => {
  const cluster = TestCluster.for(t)
  for (const sync of ['sometimes', '10', '0s', '', '10 s'])
    await assert.rejects(startWith(cluster, { sync }), {
      code: 'config_rejected',
      message: /streams\.sync/,
    })
})

test('hubs compress routes when the file enables it', { skip: since([2, 10, 0]) }, async (t) => {
  const cluster = TestCluster.for(t)
  const nodes: TestNode[] = []
  for (const name of ['node1', 'node2']) {
    const files = await cluster.prepare(name, { routes: nodes.map(({ ports }) => ports.cluster) })
    const text = await readFile(files.configFile, 'utf8')
    await writeFile(files.configFile, text.replace('    cluster:\n', '    cluster:\n      compression: s2_better\n'))
    nodes.push(await cluster.open(files))
  }
  await allMet(nodes)
  type Routez = { routes: { compression?: string }[] }
  const { routes } = await monitor<Routez>(cluster, nodes[0]!, 'hub', 'ROUTEZ')
  assert.ok(routes.length > 0)
  for (const { compression } of routes) assert.equal(compression, 's2_better')
})

test('the leafnode port offers no compression: its negotiation precedes authentication', async (t) => {
  const node = await TestCluster.for(t).start('node1')
  const socket = connect(node.ports.leafNodes, '127.0.0.1')
  t.after(() => socket.destroy())
  let text = ''
  socket.setEncoding('utf8').on('data', (data) => {
    text += data
  })
  const line = await eventually('the server introduces itself', () => /^INFO (.*)\r\n/.exec(text)?.[1])
  const { compression = 'off' } = JSON.parse(line) as { compression?: string }
  assert.equal(compression, 'off')
})

test('messages that a stream drops beyond its queue (429) are sent again, in order', {
  skip: since([2, 11, 0]),
}, async (t) => {
  const cluster = TestCluster.for(t)
  const [directory, remove] = await temporaryDirectory()
  t.after(remove)
  // The generated limit exceeds the messages in flight: the test sets the lowest, so that any server reaches it.
  const natsServer = join(directory, 'nats-server')
  const edit = `sed -i 's/"max_buffered_msgs": [0-9]*/"max_buffered_msgs": 1/' "$2"`
  await writeFile(natsServer, `#!/bin/sh\nif [ "$1" = -c ]; then ${edit}; fi\nexec '${path}' "$@"\n`, { mode: 0o755 })
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], {
    tables,
    options: { natsServer, publishTimeout: 60_000, publishWindow: 200 },
  })) as [TestNode, TestNode]
  await subscribe(node1, node2, { dog: 'publish' })
  // Each of them is so large that its message has no other.
  const ids = Array.from({ length: 200 }, (_, index) => `${index}`)
  const text = 'x'.repeat(270_000)
  await Promise.all(ids.map((id) => node1.host.write(id, insert('dog', { id, text }))))
  await quiet([node1, node2])
  assert.deepEqual(
    node2.host.from('node1', 'dog').map(({ id }) => id),
    ids,
  )
  assert.ok(node1.cluster.metrics()!.publish.retries > 0, 'the limit was exceeded')
})
