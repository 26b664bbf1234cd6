// A holder of the cluster's credentials can read a remote node's streams, and nothing else: from an enmesh node, and from a foreign
// hub or leaf without restrictions.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { connect, headers, type NatsConnection, StringCodec } from 'nats'
import { exposuresOf, factsOf } from '../../lib/mesh/nats/advisories.ts'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import {
  clusterPassword,
  clusterUser,
  eventually,
  freePorts,
  quiet,
  streamInfo,
  subscribe,
  TestCluster,
  type TestNode,
  temporaryDirectory,
} from '../support/cluster.ts'
import { sampled } from '../support/long.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [
  ['dev', 'dog'],
  ['dev', 'cat'],
]
type Attack = [what: string, subject: string, body?: object | string]
/** A rejection is the absence of an answer. */
const PATIENCE = 300
const text = StringCodec()
/** No answer, or an error. */
const REFUSED = /TIMEOUT|503|jetstream not enabled for account|"err_code":10012\b/i
/** With `harperdb4`, nodes make consumers that nodes of HarperDB would make, and no others. */
const compatibilities = [undefined, 'harperdb4'] as const

/** A client with the cluster's user on a foreign server. */
async function foreignClient(t: TestContext, configuration: (port: number, other: number) => object) {
  const [directory, remove] = await temporaryDirectory()
  const [port = 0, other = 0] = await freePorts(2)
  const configFile = join(directory, 'server.json')
  await writeFile(configFile, JSON.stringify(configuration(port, other)))
  const server: ChildProcess = spawn('nats-server', ['-c', configFile], { stdio: 'ignore' })
  t.after(async () => {
    server.kill('SIGKILL')
    if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    await remove()
  })
  const client = await eventually('the foreign server is there', () =>
    connect({ servers: `127.0.0.1:${port}`, user: clusterUser, pass: clusterPassword, reconnect: false }).catch(
      () => undefined,
    ),
  )
  t.after(() => client.close())
  return client
}

const user = { user: clusterUser, password: clusterPassword }
const admin = { ...user, user: `${clusterUser}-admin` }
const accounts = { SYS: { users: [admin] }, HDB: { users: [user] } }
const dialled = (scheme: string, { user, password }: typeof admin, port: number) =>
  `${scheme}://${user}:${encodeURIComponent(password)}@127.0.0.1:${port}`

const foreignHub = (t: TestContext, { ports }: TestNode) =>
  foreignClient(t, (port, cluster) => ({
    server_name: 'foreign-hub',
    listen: `127.0.0.1:${port}`,
    accounts,
    system_account: 'SYS',
    cluster: {
      name: 'harperdb',
      listen: `127.0.0.1:${cluster}`,
      authorization: admin,
      routes: [dialled('nats-route', admin, ports.cluster)],
    },
  }))

/** A leaf without restrictions at the attacked node's hub. */
const foreignLeaf = (t: TestContext, { ports }: TestNode) =>
  foreignClient(t, (port) => ({
    server_name: 'foreign-leaf',
    listen: `127.0.0.1:${port}`,
    accounts,
    system_account: 'SYS',
    leafnodes: {
      remotes: [
        { account: 'SYS', urls: [dialled('nats-leaf', admin, ports.leafNodes)] },
        { account: 'HDB', urls: [dialled('nats-leaf', user, ports.leafNodes)] },
      ],
    },
  }))

async function scene(t: TestContext, compatibility?: (typeof compatibilities)[number]) {
  const cluster = TestCluster.for(t)
  const clustering = compatibility ? { compatibility } : {}
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables, clustering })) as [TestNode, TestNode]
  await subscribe(node1, node2, { dog: 'publish', cat: 'publish' })
  for (const table of ['dog', 'cat'])
    for (const id of ['a', 'b', 'c']) await node1.host.write(`${table} ${id}`, insert(table, { id }))
  await quiet([node1, node2])
  const victim = await cluster.client(node1)
  const streams = async () =>
    Promise.all(
      ['dog', 'cat'].map(async (table) => {
        const { config, created, state } = (await streamInfo(victim, 'dev', table))!
        const { consumer_count: _, ...rest } = state
        return { config, created, state: rest }
      }),
    )
  return { cluster, node1, node2, streams }
}

const attackers: [
  name: string,
  client: (t: TestContext, nodes: Awaited<ReturnType<typeof scene>>) => Promise<NatsConnection>,
][] = [
  ['a node of the cluster', async (_, { cluster, node2 }) => cluster.client(node2, 'hub')],
  ['a hub of nobody’s', async (t, { node1 }) => foreignHub(t, node1)],
  ['a leaf of nobody’s', async (t, { node1 }) => foreignLeaf(t, node1)],
]

/** What a holder of the credentials tries with the consumers that nodes of HarperDB make: here node2 would be one. */
async function attackGate(
  client: NatsConnection,
  ask: (subject: string, body: object) => Promise<string>,
  stream: string,
  otherSubject: string,
) {
  const harper = { durable_name: 'node2-leaf', ack_policy: 'explicit' }
  const create = (config: object, name = 'node2-leaf', ofStream = stream) =>
    ask(`$JS.node1-leaf.API.CONSUMER.CREATE.${ofStream}.${name}`, { stream_name: ofStream, config })
  const refused: [what: string, answer: Promise<string>][] = [
    ['delivers to a stream', create({ ...harper, deliver_subject: otherSubject })],
    ['needs no acknowledgement', create({ ...harper, ack_policy: 'none' })],
    ['takes headers only', create({ ...harper, headers_only: true })],
    ['has another name', create({ ...harper, durable_name: 'other' })],
    ['is of a node that does not subscribe', create({ ...harper, durable_name: 'node3-leaf' }, 'node3-leaf')],
    ['is of a stream that is not published', create(harper, 'node2-leaf', '0'.repeat(32))],
    ['has no configuration', ask(`$JS.node1-leaf.API.CONSUMER.CREATE.${stream}.node2-leaf`, [])],
  ]
  for (const [what, answer] of refused) assert.match(await answer, REFUSED, what)
  assert.match(await create(harper), /"max_ack_pending":1\b/)
  assert.match(await create(harper), /"err_code":10148,"description":"consumer already exists"/)
  // The messages go to the subject that the request names, and acknowledgements that ask for something do nothing.
  const pull = { batch: 10, expires: 1e9, idle_heartbeat: 1e8 }
  const subject = `$JS.node1-leaf.API.CONSUMER.MSG.NEXT.${stream}.node2-leaf--of--node1`
  client.publish(subject, text.encode(JSON.stringify(pull)), { reply: otherSubject })
  const acknowledgement = `$JS.ACK.${stream}.node2-leaf--of--node1.1.1.1.${Date.now()}000000.0`
  for (const body of ['+NXT {"batch":10}', '-NAK', '+TERM', '+WPI', '+ACK'])
    client.publish(acknowledgement, text.encode(body), { reply: otherSubject })
  for (const config of ['CREATE', 'DURABLE.CREATE', 'INFO', 'DELETE'])
    client.publish(`$JS.node1-leaf.API.CONSUMER.${config}.${stream}.node2-leaf`, '', { reply: otherSubject })
}

const allRuns = compatibilities.flatMap((compatibility) =>
  attackers.map(([name, clientOf]) => ({ name, clientOf, compatibility })),
)
const runs = sampled(allRuns, ({ name, compatibility }) => compatibility !== undefined || name === attackers[0]![0])
// Most of the time is waiting for answers that do not come.
describe('a holder of the credentials', { concurrency: 3 }, () => {
  for (const { name, clientOf, compatibility } of runs)
    test(`${name} reads a remote node's stream, and can neither change nor delete it${compatibility ? `, with ${compatibility}` : ''}`, async (t) => {
      const nodes = await scene(t, compatibility)
      const { node1, node2, streams } = nodes
      const client = await clientOf(t, nodes)
      const [dog, cat] = await streams()
      assert.ok(dog && cat)
      const api = (verb: string, domain = 'node1-leaf') => `$JS.${domain}.API.${verb}`
      const ask = async (subject: string, body: object | string = ''): Promise<string> => {
        const data = typeof body === 'string' ? body : JSON.stringify(body)
        const answer = await client
          .request(subject, data, { timeout: PATIENCE, noMux: true })
          .catch((error) => error as Error)
        return answer instanceof Error ? answer.message : text.decode(answer.data)
      }
      const stream = dog.config.name

      await eventually('it can read', async () => /"messages":3/.test(await ask(api(`STREAM.INFO.${stream}`))))
      assert.match(await ask(api(`STREAM.MSG.GET.${stream}`), { seq: 2 }), /"seq":2/)
      const reading = JSON.stringify({ database: 'dev', table: 'dog', start: { sequence: 1 } })
      const { name: consumer } = JSON.parse(await ask('enmesh.consumer.node1', reading)) as { name: string }
      assert.match(await ask(api(`CONSUMER.MSG.NEXT.${stream}.${consumer}`), { batch: 1 }), /dog a/)

      const { config } = dog
      const attacks: Attack[] = [
        ['deletes it', api(`STREAM.DELETE.${stream}`)],
        ['deletes it, without a domain', `$JS.API.STREAM.DELETE.${stream}`],
        ['purges it', api(`STREAM.PURGE.${stream}`), {}],
        ['deletes one of its messages', api(`STREAM.MSG.DELETE.${stream}`), { seq: 2 }],
        ['gives it limits', api(`STREAM.UPDATE.${stream}`), { ...config, max_msgs: 1 }],
        ['gives it another description', api(`STREAM.UPDATE.${stream}`), { ...config, description: 'dev.dog' }],
        ['seals it', api(`STREAM.UPDATE.${stream}`), { ...config, sealed: true }],
        ['makes another on its subject', api('STREAM.CREATE.other'), { ...config, name: 'other' }],
        [
          'makes one that fills the disk',
          api('STREAM.CREATE.full'),
          { name: 'full', subjects: ['>'], storage: 'file' },
        ],
        ['restores another in its place', api(`STREAM.RESTORE.${stream}`), { config, state: dog.state }],
        ['has it copied', api(`STREAM.SNAPSHOT.${stream}`), { deliver_subject: 'x', no_consumers: true }],
        [
          'makes a consumer that stays',
          api(`CONSUMER.DURABLE.CREATE.${stream}.stays`),
          { stream_name: stream, config: { durable_name: 'stays', ack_policy: 'explicit' } },
        ],
      ]
      // The creator of a consumer decides what it delivers and to which subject: messages, heartbeats, advisories.
      const deliver = {
        ack_policy: 'none',
        deliver_policy: 'all',
        deliver_subject: cat.config.subjects[0],
        idle_heartbeat: 1e8,
      }
      for (const config of [{ ack_policy: 'none' }, deliver, { ...deliver, headers_only: true }])
        attacks.push(
          ['makes a consumer', api(`CONSUMER.CREATE.${stream}`), { stream_name: stream, config }],
          [
            'makes one by name',
            api(`CONSUMER.CREATE.${stream}.named`),
            { stream_name: stream, config: { ...config, name: 'named' } },
          ],
        )
      for (const [what, subject, body] of attacks) assert.match(await ask(subject, body), REFUSED, what)
      if (compatibility) await attackGate(client, ask, stream, cat.config.subjects[0]!)

      // Answers and pulled messages go to the subject that the request names.
      const reply = cat.config.subjects[0]!
      const pull = text.encode(JSON.stringify({ batch: 10, expires: 1e9, idle_heartbeat: 1e8 }))
      client.publish(api('INFO'), '', { reply })
      client.publish(api(`STREAM.INFO.${stream}`), '', { reply })
      client.publish(api(`STREAM.MSG.GET.${stream}`), text.encode(JSON.stringify({ seq: 1 })), { reply })
      client.publish(api(`CONSUMER.MSG.NEXT.${stream}.${consumer}`), pull, { reply })
      client.publish('enmesh.consumer.node1', text.encode(reading), { reply })
      client.publish('node1.__request__', '', { reply })
      client.publish('enmesh.probe.node1', '', { reply })
      for (const [table, expected] of [
        ['dog', undefined],
        ['cat', '3'],
      ] as const) {
        const forged = headers()
        forged.set('origin', 'node1')
        if (expected) forged.set('Nats-Expected-Last-Sequence', expected)
        client.publish(`txn.dev.${table}.node1-leaf`, 'forged', { headers: forged })
      }
      await client.flush()
      // That request expires after a second.
      await client.request('enmesh.probe.node1', '', { timeout: 2_000 })
      await node1.host.write('last', insert('dog', { id: 'last' }), insert('cat', { id: 'last' }))
      await quiet([node1, node2])
      for (const [index, before] of [dog, cat].entries()) {
        const { config, created, state } = (await streams())[index]!
        assert.deepEqual([config, created], [before.config, before.created])
        assert.deepEqual([state.first_seq, state.last_seq, state.messages], [1, 4, 4])
      }
      assert.deepEqual(node2.seen('replication:gap'), [])
      assert.deepEqual(node2.seen('replication:quarantined'), [])
    })
})

test('the system account reports on servers and gives no access to streams', async (t) => {
  const { node1, node2, streams } = await scene(t)
  const before = await streams()
  const client = await connect({ servers: `127.0.0.1:${node2.ports.hub}`, user: admin.user, pass: admin.password })
  t.after(() => client.close())
  const ask = (subject: string) =>
    client.request(subject, '', { timeout: PATIENCE, noMux: true }).then(
      () => 'answered',
      (error: Error) => error.message,
    )
  assert.equal(await ask('$SYS.REQ.SERVER.PING'), 'answered')
  for (const prefix of ['$JS.API', '$JS.node1-leaf.API'])
    for (const call of ['ACCOUNT.PURGE.HDB', 'ACCOUNT.PURGE.MESH', 'SERVER.REMOVE', 'INFO', 'STREAM.NAMES'])
      assert.match(await ask(`${prefix}.${call}`), REFUSED, call)
  await quiet([node1, node2])
  assert.deepEqual(await streams(), before)
})

/** A remote server publishes trace events itself: the denied subjects must cover them, too. */
test('a message trace does not reach the administration of streams', async (t) => {
  const { version } = await findBinary()
  const { node1, node2, streams } = await scene(t)
  const facts = factsOf({ listen: '127.0.0.1', tls: undefined })
  if (exposuresOf(version, facts).some(({ id }) => id === 'CVE-2026-58254'))
    return t.skip('this version is affected by CVE-2026-58254')
  const before = await streams()
  const client = await connect({ servers: `127.0.0.1:${node2.ports.hub}`, user: admin.user, pass: admin.password })
  t.after(() => client.close())
  for (const account of ['HDB', 'MESH']) {
    const traced = headers()
    traced.set('Nats-Trace-Dest', `$JS.API.ACCOUNT.PURGE.${account}`)
    await client
      .request('$SYS.REQ.SERVER.PING', '', { timeout: PATIENCE, noMux: true, headers: traced })
      .catch(() => {})
  }
  await quiet([node1, node2])
  assert.deepEqual(await streams(), before)
})

test('a flood of requests and messages at most interrupts, and ends with its sender', async (t) => {
  const { cluster, node1, node2 } = await scene(t)
  const client = await cluster.client(node2, 'hub')
  const reading = JSON.stringify({ database: 'dev', table: 'dog', start: { sequence: 1 } })
  const inbox = client.subscribe('flooded.>', { callback: () => {} })
  for (let round = 0; round < 100; round++) {
    for (let each = 0; each < 100; each++) {
      const reply = `flooded.${round}.${each}`
      client.publish('node1.__request__', text.encode(`garbage ${each}`), { reply })
      client.publish('enmesh.heartbeat', text.encode(`garbage ${each}`))
      client.publish('$JS.node1-leaf.API.INFO', '', { reply })
      if (each % 10 > 0) continue
      client.publish('enmesh.consumer.node1', text.encode(reading), { reply })
      client.publish('enmesh.probe.node1', 'nobody', { reply })
    }
    await client.flush()
  }
  await node1.host.write('behind', insert('dog', { id: 'behind' }))
  await eventually('it arrives', () => node2.host.from('node1', 'dog').some(({ id }) => id === 'behind'))
  inbox.unsubscribe()
  await quiet([node1, node2])
  assert.deepEqual(node2.seen('replication:gap'), [])
})
