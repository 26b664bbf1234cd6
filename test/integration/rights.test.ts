// What a holder of the cluster's credentials can do to another node's streams: read them, and nothing else. From a node of
// ours, and from a hub that is none of ours and keeps to no rule.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { connect, headers, type NatsConnection, StringCodec } from 'nats'
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
  temporaryFolder,
} from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [
  ['dev', 'dog'],
  ['dev', 'cat'],
]
type Attack = [what: string, subject: string, body?: object | string]
/** ms: a refusal is no answer. */
const PATIENCE = 300
const text = StringCodec()

/** A client of the cluster's user on a hub of nobody's that is routed to this node's. */
async function foreignClient(t: TestContext, { ports }: TestNode): Promise<NatsConnection> {
  const [folder, remove] = await temporaryFolder()
  const [port = 0, cluster = 0] = await freePorts(2)
  const user = { user: clusterUser, password: clusterPassword }
  const configFile = join(folder, 'hub.json')
  const route = `nats-route://${clusterUser}:${encodeURIComponent(clusterPassword)}@127.0.0.1:${ports.cluster}`
  const configuration = {
    server_name: 'foreign-hub',
    listen: `127.0.0.1:${port}`,
    accounts: { SYS: { users: [{ ...user, user: `${clusterUser}-admin` }] }, HDB: { users: [user] } },
    system_account: 'SYS',
    cluster: { name: 'harperdb', listen: `127.0.0.1:${cluster}`, authorization: user, routes: [route] },
  }
  await writeFile(configFile, JSON.stringify(configuration))
  const server: ChildProcess = spawn('nats-server', ['-c', configFile], { stdio: 'ignore' })
  t.after(async () => {
    server.kill('SIGKILL')
    if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    await remove()
  })
  const client = await eventually('the foreign hub is there', () =>
    connect({ servers: `127.0.0.1:${port}`, user: clusterUser, pass: clusterPassword, reconnect: false }).catch(
      () => undefined,
    ),
  )
  t.after(() => client.close())
  return client
}

async function scene(t: TestContext) {
  const cluster = TestCluster.for(t)
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables })) as [TestNode, TestNode]
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
  ['a node of ours', async (_, { cluster, node2 }) => cluster.client(node2)],
  ['a hub of nobody’s', async (t, { node1 }) => foreignClient(t, node1)],
]

for (const [name, clientOf] of attackers)
  test(`${name} reads another node's stream, and neither alters nor destroys it`, async (t) => {
    const nodes = await scene(t)
    const { node1, node2, streams } = nodes
    const client = await clientOf(t, nodes)
    const isOurs = clientOf === attackers[0]![1]
    const [dog, cat] = await streams()
    assert.ok(dog && cat)
    const api = (verb: string, domain = 'node1-leaf') => `$JS.${domain}.API.${verb}`
    const ask = async (subject: string, body: object | string = ''): Promise<string> => {
      const data = typeof body === 'string' ? body : JSON.stringify(body)
      const answer = await client.request(subject, data, { timeout: PATIENCE }).catch((error) => error as Error)
      return answer instanceof Error ? answer.message : text.decode(answer.data)
    }
    const stream = dog.config.name

    await eventually('it can read', async () => /"messages":3/.test(await ask(api(`STREAM.INFO.${stream}`))))
    assert.match(await ask(api(`STREAM.MSG.GET.${stream}`), { seq: 2 }), /"seq":2/)
    const ephemeral = { stream_name: stream, config: { ack_policy: 'none', deliver_policy: 'all' } }
    assert.match(await ask(api(`CONSUMER.CREATE.${stream}`), ephemeral), /"num_pending":3/)

    const { config } = dog
    const attacks: Attack[] = [
      ['deletes it', api(`STREAM.DELETE.${stream}`)],
      // On a leaf of ours that is its own stream.
      ...(isOurs ? [] : [['deletes it, without a domain', `$JS.API.STREAM.DELETE.${stream}`] satisfies Attack]),
      ['purges it', api(`STREAM.PURGE.${stream}`), {}],
      ['deletes one of its messages', api(`STREAM.MSG.DELETE.${stream}`), { seq: 2 }],
      ['gives it limits', api(`STREAM.UPDATE.${stream}`), { ...config, max_msgs: 1 }],
      ['gives it another description', api(`STREAM.UPDATE.${stream}`), { ...config, description: 'dev.dog' }],
      ['seals it', api(`STREAM.UPDATE.${stream}`), { ...config, sealed: true }],
      ['makes another on its subject', api('STREAM.CREATE.other'), { ...config, name: 'other' }],
      ['makes one that fills the disk', api('STREAM.CREATE.full'), { name: 'full', subjects: ['>'], storage: 'file' }],
      ['restores another in its place', api(`STREAM.RESTORE.${stream}`), { config, state: dog.state }],
      ['has it copied', api(`STREAM.SNAPSHOT.${stream}`), { deliver_subject: 'x', no_consumers: true }],
      [
        'makes a consumer that stays',
        api(`CONSUMER.DURABLE.CREATE.${stream}.stays`),
        { stream_name: stream, config: { durable_name: 'stays', ack_policy: 'explicit' } },
      ],
    ]
    for (const [what, subject, body] of attacks) assert.match(await ask(subject, body), /TIMEOUT|503/, what)
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

// The server has no right that would forbid it: a consumer may deliver to any subject of its account.
test("one table's messages that the leaf is made to push into another's stream lose nothing", async (t) => {
  const { cluster, node1, node2, streams } = await scene(t)
  const client = await cluster.client(node2)
  const [dog] = await streams()
  const push = { ack_policy: 'none', deliver_policy: 'new', deliver_subject: 'txn.dev.cat.node1-leaf' }
  const body = JSON.stringify({ stream_name: dog!.config.name, config: push })
  await client.request(`$JS.node1-leaf.API.CONSUMER.CREATE.${dog!.config.name}`, body, { timeout: 2_000 })
  // It expects to follow the third message, and there is one in the other stream too.
  await node1.host.write('dog d', insert('dog', { id: 'd' }))
  await eventually('it is in the other stream', async () => (await streams())[1]?.state.last_seq === 4)
  await node1.host.write('cat d', insert('cat', { id: 'd' }))
  await eventually('it arrives', () => node2.host.from('node1', 'cat').some(({ id }) => id === 'cat d'))
  assert.deepEqual(
    node2.host.from('node1', 'cat').map(({ id }) => id),
    ['cat a', 'cat b', 'cat c', 'cat d'],
  )
})
