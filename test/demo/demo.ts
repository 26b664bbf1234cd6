// A demonstration of the main use case: three database nodes replicate a table, lose one node, and converge. Everything is verified
// over HTTP. With `--mesh memory` it runs in one process without servers. With `--record DIRECTORY`, pictures of the status page are written
// there, and more rows are written, so that there is something to see.

import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Page } from 'playwright-core'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { Authority } from '../support/authority.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { admin, NodeProcess } from '../support/node-process.ts'
import { cachedPrograms } from '../support/program.ts'
import { MemoryNode } from './memory-node.ts'
import { Recorder } from './recorder.ts'
import { Story } from './story.ts'

const { values } = parseArgs({
  options: {
    keep: { type: 'boolean', default: false },
    tls: { type: 'boolean', default: false },
    mesh: { type: 'string' },
    record: { type: 'string' },
  },
})
const story = new Story()
process.env.TEST_PROGRAMS ??= await cachedPrograms()
if (values.mesh !== undefined && values.mesh !== 'memory' && values.mesh !== 'nats') {
  story.fail(new Error(`--mesh must be 'nats' or 'memory', received '${values.mesh}'`))
  process.exit(1)
}
const inMemory = values.mesh === 'memory' || (values.mesh === undefined && !(await hasNatsServer()))
const [directory, remove] = await temporaryDirectory()
const network = new MemoryNetwork()
const nodes: DemoNode[] = []
const dog = { database: 'dev', table: 'dog' }
/** Rows that are written while node3 is away. */
const LATE = values.record === undefined ? 1_000 : 30_000
let recorder: Recorder | undefined
const both = { ...dog, publish: true, subscribe: true }

type DemoNode = NodeProcess | MemoryNode
type Route = { host: string; port: number }
type Status = {
  connections: { node_name: string; status: string; latency_ms?: number; subscriptions: { table: string }[] }[]
}
type Network = { nodes: { name: string; response_time: number; connected_nodes: string[] }[] }

const route = (node: DemoNode): Route => ({ host: '127.0.0.1', port: node.ports.cluster })
const insert = (node: DemoNode, records: object[]) => node.operation({ operation: 'insert', ...dog, records })
const others = (node: DemoNode) => nodes.filter((other) => other !== node)

async function play(): Promise<void> {
  const [first, second, third] = nodes as [DemoNode, DemoNode, DemoNode]

  await story.step(
    inMemory
      ? 'three nodes start, each a database with an HTTP API, in one process on an in-memory network'
      : `three nodes start, each a database process with a hub and a leaf nats-server${values.tls ? ', and TLS between them' : ''}`,
    () => Promise.all(nodes.map((node) => node.start())),
  )

  await story.step('cluster_set_routes: node2 and node3 get a route to node1, and the mesh is complete', async () => {
    for (const node of [second, third])
      await node.operation({ operation: 'cluster_set_routes', server: 'hub', routes: [route(first)] })
    const network = await eventually('three nodes in the network', async () => {
      const answer = await first.operation<Network>({ operation: 'cluster_network', timeout: 500 })
      return answer.nodes.length === 3 && answer.nodes.every(({ connected_nodes: all }) => all.length === 2) && answer
    })
    return network.nodes.map(({ name, connected_nodes: all }) => `${name} - ${all.join(', ')}`)
  })

  await story.step('set_node_replication on dev.dog, which exists only on node1', async () => {
    await first.operation({ operation: 'create_database', database: 'dev' })
    await first.operation({ operation: 'create_table', ...dog, primary_key: 'id' })
    const replicate = (node: DemoNode, other: DemoNode) =>
      node.operation<{ message: string }>({
        operation: 'set_node_replication',
        node_name: other.name,
        subscriptions: [both],
      })
    const answers = [await replicate(first, second), await replicate(first, third), await replicate(second, third)]
    return answers.map(({ message }) => message)
  })

  await story.step('100 rows written on each node arrive on the two other nodes', async () => {
    const medians: string[] = []
    for (const node of nodes) {
      const latencies: number[] = []
      for (let index = 0; index < 100; index++) {
        const id = `${node.name}-${index}`
        const started = performance.now()
        await insert(node, [{ id, name: `dog ${index}`, owner: node.name, tags: ['good', { really: true }] }])
        if (index % 10 > 0) continue
        await Promise.all(others(node).map((other) => arrival(other, id)))
        latencies.push(performance.now() - started)
      }
      latencies.sort((a, b) => a - b)
      medians.push(`${node.name}: on both other nodes ${latencies[5]!.toFixed(1)} ms after the request (median)`)
    }
    return [...medians, await equal(300)]
  })

  await record('1-healthy', first, async (tab) => {
    await tab.locator('#mesh [data-node="node3"].is-good').waitFor()
    await tab.locator('#mesh [data-link="node2 node3"] .link').first().waitFor({ state: 'attached' })
  })

  await story.step('a route is added by the API and one in the file: no server and no database restarts', async () => {
    const before = await processIds()
    await first.operation({ operation: 'cluster_set_routes', server: 'hub', routes: [route(second)] })
    const text = await readFile(third.configFile, 'utf8')
    const line = new RegExp(`^( *)- host: 127.0.0.1\\n *port: ${first.ports.cluster}\\n`, 'm')
    await writeFile(
      third.configFile,
      text.replace(
        line,
        (found, indent) =>
          `${found}${indent}# added by hand\n${indent}- { host: 127.0.0.1, port: ${second.ports.cluster} }\n`,
      ),
    )
    const { hub } = await eventually('the edit is in effect', async () => {
      const routes = await third.operation<{ hub: Route[] }>({ operation: 'cluster_get_routes' })
      return routes.hub.length === 2 && routes
    })
    const same = inMemory ? 'the same three nodes as before' : 'the same nine processes as before'
    story.check(JSON.stringify(await processIds()) === JSON.stringify(before), same)
    return [`cluster_get_routes of node3: ${JSON.stringify(hub)}`, same]
  })

  const killed = inMemory
    ? 'node3 loses its network and is closed'
    : 'database and servers of node3 are killed by SIGKILL'
  await story.step(`${killed}; the other nodes continue to write`, async () => {
    await third.kill()
    const records = Array.from({ length: LATE }, (_, index) => ({ id: `late-${index}`, name: `dog ${index}` }))
    for (let index = 0; index < LATE; index += 100) await insert(first, records.slice(index, index + 100))
    await second.operation({ operation: 'update', ...dog, records: [{ id: 'node3-0', name: 'renamed while away' }] })
    await first.operation({ operation: 'delete', ...dog, ids: ['node3-1'] })
    const answer = await eventually('node1 detects that node3 is down', async () => {
      const status = await first.operation<Status>({ operation: 'cluster_status' })
      return status.connections.find(({ node_name }) => node_name === 'node3')?.status !== 'open' && status
    })
    return [...answer.connections.map(describe), `node1 has ${await first.count('dev', 'dog')} rows`]
  })

  await record('2-node-down', first, (tab) => tab.getByText('no heartbeat of node3').waitFor())

  await story.step('node3 restarts and catches up until all tables are equal', async () => {
    const recorded = record('3-back', first, async (tab) => {
      await tab.locator('.conditions [data-code="peer_down"]').waitFor({ state: 'detached' })
    })
    await third.start()
    const started = performance.now()
    const summary = await equal(299 + LATE)
    await recorded
    return [`${summary}, ${((performance.now() - started) / 1000).toFixed(1)} s after the start`]
  })

  if (recorder) await playGap()

  await story.step('cluster_status and cluster_network of node1', async () => {
    const status = await first.operation<Status>({ operation: 'cluster_status' })
    const network = await first.operation<Network>({ operation: 'cluster_network' })
    story.check(
      status.connections.every((each) => each.status === 'open'),
      'every connection is open',
    )
    story.check(network.nodes.length === 3, 'the network has three nodes')
    return ['cluster_status', ...status.connections.map(compact), 'cluster_network', ...network.nodes.map(compact)]
  })
}

/** Only while it is recorded. */
async function playGap(): Promise<void> {
  const [first, , third] = nodes as [DemoNode, DemoNode, DemoNode]
  await story.step('node3 misses transactions that the streams do not keep, and copies the rows', async () => {
    await third.kill()
    const records = Array.from({ length: 5_000 }, (_, index) => ({ id: `purged-${index}`, name: `dog ${index}` }))
    for (let index = 0; index < records.length; index += 100) await insert(first, records.slice(index, index + 100))
    await first.operation({ operation: 'purge_stream', ...dog })
    await third.start()
    const files = await record('4-copy', third, (tab) =>
      tab
        .locator('#history')
        .getByText(/rows copied [1-9]/)
        .waitFor(),
    )
    return [await equal(5_299 + LATE), ...files]
  })
}

async function record(name: string, node: DemoNode, awaited: (tab: Page) => Promise<unknown>): Promise<string[]> {
  return (await recorder?.take(name, node.url, awaited)) ?? []
}

/** Without nats-server, the demo runs on the in-memory network. */
async function hasNatsServer(): Promise<boolean> {
  return findBinary().then(
    () => true,
    () => false,
  )
}

const compact = (value: object) => `  ${JSON.stringify(value)}`

const describe = ({ node_name, status, subscriptions }: Status['connections'][0]) =>
  `${node_name}: ${status}, ${subscriptions.length} subscription(s)`

const arrival = (node: DemoNode, id: string) =>
  eventually(`${id} on ${node.name}`, async () => {
    const found = await node.operation<unknown[]>({
      operation: 'search_by_id',
      ...dog,
      ids: [id],
      get_attributes: ['id'],
    })
    return found.length === 1
  })

/** Waits until all three nodes have `count` rows and equal digests. */
async function equal(count: number): Promise<string> {
  const digest = await eventually(`three equal tables of ${count} rows`, async () => {
    const counts = await Promise.all(nodes.map((node) => node.count('dev', 'dog')))
    if (counts.some((each) => each !== count)) return false
    const digests = await Promise.all(nodes.map((node) => node.digest('dev', 'dog')))
    return new Set(digests).size === 1 && digests[0]
  })
  return `${count} rows on each of the three, digest ${digest}`
}

const processIds = () => Promise.all(nodes.map((node) => node.incarnation()))

async function end(): Promise<void> {
  await recorder?.close()
  await Promise.all(nodes.map((node) => node.end()))
  await network.close()
  await remove()
}

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void end().finally(() => process.exit(130)))

try {
  if (inMemory && values.tls) throw new Error('--tls requires servers: remove --mesh memory')
  if (values.mesh === undefined && inMemory)
    story.say('No nats-server found: the nodes run on the in-memory network instead (--mesh memory).')
  if (values.record !== undefined) recorder = await Recorder.open(values.record)
  const authority = values.tls ? await Authority.create() : undefined
  for (const name of ['node1', 'node2', 'node3']) {
    const tls = await authority?.issue(join(directory, name, 'tls'), name)
    const node = inMemory
      ? await MemoryNode.create(directory, name, network)
      : await NodeProcess.create(directory, name, tls && { tls })
    node.onProgress = (progress) => story.draw(name, progress)
    nodes.push(node)
  }
  await play()
  story.end('three nodes replicated one table in every direction, lost one node, and are equal again, row for row')
  if (values.keep) {
    story.say(
      ...nodes.map((node) => `${node.name}: ${node.url}  (${node.configFile})`),
      `Status page: ${nodes[0]!.url}/status/ (user '${admin.username}', password '${admin.password}')`,
      `curl -u '${admin.username}:${admin.password}' -H 'content-type: application/json' -d '{"operation":"cluster_status"}' ${nodes[0]!.url}`,
      'Press Ctrl-C to stop.',
    )
    await new Promise(() => setInterval(() => {}, 1 << 30))
  }
} catch (error) {
  story.fail(error)
  process.exitCode = 1
} finally {
  await end()
  await rm(directory, { recursive: true, force: true })
}
