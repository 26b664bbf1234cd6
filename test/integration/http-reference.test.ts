// Every example of the operations reference, sent over HTTP to three real nodes. The answers must have the keys and types of
// the reference's answers.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { NodeProcess } from '../support/node-process.ts'

// --- examples of the reference ------------------------------------------------------------------------------------------

const fourRoutes = [
  { host: '3.22.181.22', port: 12345 },
  { host: '3.137.184.8', port: 12345 },
  { host: '18.223.239.195', port: 12345 },
  { host: '18.116.24.71', port: 12345 },
]
const reference = {
  cluster_set_routes: {
    body: { operation: 'cluster_set_routes', server: 'hub', routes: fourRoutes },
    answer: { message: 'cluster routes successfully set', set: fourRoutes, skipped: [] },
  },
  cluster_get_routes: {
    body: { operation: 'cluster_get_routes' },
    answer: { hub: fourRoutes, leaf: [] },
  },
  cluster_delete_routes: {
    body: { operation: 'cluster_delete_routes', routes: [{ host: '18.116.24.71', port: 12345 }] },
    answer: {
      message: 'cluster routes successfully deleted',
      deleted: [{ host: '18.116.24.71', port: 12345 }],
      skipped: [],
    },
  },
  add_node: {
    body: {
      operation: 'add_node',
      node_name: 'ec2-3-22-181-22',
      subscriptions: [
        { schema: 'dev', table: 'dog', subscribe: false, publish: true, start_time: '2022-09-02T20:06:35.993Z' },
      ],
    },
    answer: { message: "Successfully added 'ec2-3-22-181-22' to manifest" },
  },
  update_node: {
    body: {
      operation: 'update_node',
      node_name: 'ec2-18-223-239-195',
      subscriptions: [
        { schema: 'dev', table: 'dog', subscribe: true, publish: false, start_time: '2022-09-02T20:06:35.993Z' },
      ],
    },
    answer: { message: "Successfully updated 'ec2-3-22-181-22'" },
  },
  set_node_replication: {
    body: {
      operation: 'set_node_replication',
      node_name: 'node1',
      subscriptions: [{ table: 'dog', subscribe: true, publish: true }],
    },
    answer: { message: "Successfully updated 'ec2-3-22-181-22'" },
  },
  cluster_status: {
    body: { operation: 'cluster_status' },
    answer: {
      node_name: 'ec2-18-221-143-69',
      is_enabled: true,
      connections: [
        {
          node_name: 'ec2-3-22-181-22',
          status: 'open',
          ports: { clustering: 12345, operations_api: 9925 },
          latency_ms: 13,
          uptime: '30d 1h 18m 8s',
          subscriptions: [{ schema: 'dev', table: 'dog', publish: true, subscribe: true }],
        },
      ],
    },
  },
  cluster_network: {
    body: { operation: 'cluster_network' },
    answer: {
      nodes: [
        {
          name: 'local_node',
          response_time: 4,
          connected_nodes: ['ec2-3-142-255-78'],
          routes: [{ host: '3.142.255.78', port: 9932 }],
        },
        {
          name: 'ec2-3-142-255-78',
          response_time: 57,
          connected_nodes: ['ec2-3-12-153-124', 'ec2-3-139-236-138', 'local_node'],
          routes: [],
        },
      ],
    },
  },
  remove_node: {
    body: { operation: 'remove_node', node_name: 'ec2-3-22-181-22' },
    answer: { message: "Successfully removed 'ec2-3-22-181-22' from manifest" },
  },
  configure_cluster: {
    body: {
      operation: 'configure_cluster',
      connections: [
        {
          node_name: 'ec2-3-137-184-8',
          subscriptions: [{ schema: 'dev', table: 'dog', subscribe: true, publish: false }],
        },
        {
          node_name: 'ec2-18-223-239-195',
          subscriptions: [{ schema: 'dev', table: 'dog', subscribe: true, publish: true }],
        },
      ],
    },
    answer: { message: 'Cluster successfully configured.' },
  },
  purge_stream: {
    body: { operation: 'purge_stream', database: 'dev', table: 'dog', options: { keep: 100 } },
  },
} as const

// --- comparison ----------------------------------------------------------------------------------------------------

/** Asserts the same structure: objects have exactly the example's keys, elements of an array match its first element. */
function assertLike(answer: unknown, example: unknown, path = 'the answer'): void {
  if (Array.isArray(example)) {
    assert.ok(Array.isArray(answer), `${path} is an array: ${JSON.stringify(answer)}`)
    if (example.length > 0)
      for (const [index, element] of answer.entries()) assertLike(element, example[0], `${path}[${index}]`)
  } else if (typeof example === 'object' && example !== null) {
    assert.ok(typeof answer === 'object' && answer !== null, `${path} is an object: ${JSON.stringify(answer)}`)
    assert.deepEqual(Object.keys(answer).sort(), Object.keys(example).sort(), `the keys of ${path}`)
    for (const [key, value] of Object.entries(example))
      assertLike((answer as Record<string, unknown>)[key], value, `${path}.${key}`)
  } else {
    assert.equal(typeof answer, typeof example, `the type of ${path}`)
  }
}

/** The example's message with another node name. */
const messageFor = (node: string, { message }: { message: string }) => message.replace(/'.*'/, `'${node}'`)

type Route = { host: string; port: number }
type Subscription = { schema: string; table: string; publish: boolean; subscribe: boolean }
type Connection = {
  node_name: string
  status: string
  ports: { clustering?: number; operations_api?: number }
  latency_ms: number
  uptime: string
  subscriptions: Subscription[]
  system_info: { hdb_version: string; node_version: string; platform: string }
  replicas: object[]
}
type Status = { node_name: string; is_enabled: boolean; connections: Connection[] }
type Network = { nodes: { name: string; response_time: number; connected_nodes: string[]; routes: Route[] }[] }
type Configured = {
  message: string
  connections: {
    node_name: string
    subscriptions: { message: string; added: Subscription[]; skipped: Subscription[] }
  }[]
  failed_nodes?: string[]
}

const START_TIME = '2022-09-02T20:06:35.993Z'
/** A subscription in the answers of add_node, update_node and set_node_replication, which the reference does not show. */
const subscriptionExample = { schema: 'dev', table: 'dog', publish: true, subscribe: true }
const connectionExample = {
  ...reference.cluster_status.answer.connections[0],
  system_info: { hdb_version: '4.3.0', node_version: 'v20.20.2', platform: 'linux' },
  replicas: [],
}

const subscription = (
  table: string,
  direction: 'publish' | 'subscribe' | 'both' | 'neither',
  schema = 'dev',
): Subscription => ({
  schema,
  table,
  publish: direction === 'publish' || direction === 'both',
  subscribe: direction === 'subscribe' || direction === 'both',
})

const route = ({ ports }: NodeProcess): Route => ({ host: '127.0.0.1', port: ports.cluster })
/** Without `state` and `reason` of subscriptions that are not in effect at this moment, which the reference does not have. */
async function status(node: NodeProcess): Promise<Status> {
  const answer = await node.operation<Status>(reference.cluster_status.body)
  const connections = answer.connections.map((connection) => ({
    ...connection,
    subscriptions: connection.subscriptions.map(
      ({ state: _, reason: __, ...each }: Subscription & { state?: string; reason?: string }) => each,
    ),
  }))
  return { ...answer, connections }
}
const network = (node: NodeProcess, more: object = {}) =>
  node.operation<Network>({ ...reference.cluster_network.body, ...more })

/** The subscriptions of a node with a peer, sorted by table; undefined if the peer is not in its manifest. */
async function subscriptionsWith(node: NodeProcess, other: NodeProcess): Promise<Subscription[] | undefined> {
  const { connections } = await status(node)
  const found = connections.find(({ node_name }) => node_name === other.name)
  return found?.subscriptions.sort((a, b) => (`${a.schema}.${a.table}` < `${b.schema}.${b.table}` ? -1 : 1))
}

/** Asserts the subscriptions of `node` with `other`, and the mirror image on `other`. undefined: no subscriptions on either node. */
async function assertMirrored(
  node: NodeProcess,
  other: NodeProcess,
  expected: Subscription[] | undefined,
): Promise<void> {
  assert.deepEqual(await subscriptionsWith(node, other), expected, `${node.name} of ${other.name}`)
  const mirrored = expected?.map((each) => ({ ...each, publish: each.subscribe, subscribe: each.publish }))
  assert.deepEqual(await subscriptionsWith(other, node), mirrored, `${other.name} of ${node.name}`)
}

const createTable = (node: NodeProcess, database: string, table: string) =>
  node.operation({ operation: 'create_table', database, table, primary_key: 'id' })
const insert = (node: NodeProcess, database: string, table: string, ids: readonly string[]) =>
  node.operation({ operation: 'insert', database, table, records: ids.map((id) => ({ id })) })
const ids = async (node: NodeProcess, database: string, table: string) =>
  (await node.rows(database, table)).map(({ id }) => id).sort()
const arrives = (node: NodeProcess, database: string, table: string, id: string) =>
  eventually(`${id} in ${database}.${table} of ${node.name}`, async () =>
    // The table may not exist yet.
    (await ids(node, database, table).catch((): unknown[] => [])).includes(id),
  )

// --- the examples in sequence ------------------------------------------------------------------------------------

describe('three nodes answer as the reference says', () => {
  let nodes: NodeProcess[] = []
  let node1: NodeProcess
  let node2: NodeProcess
  let node3: NodeProcess
  let remove = async () => {}

  before(async () => {
    const [directory, removeDirectory] = await temporaryDirectory()
    remove = removeDirectory
    nodes = await Promise.all(['node1', 'node2', 'node3'].map((name) => NodeProcess.create(directory, name)))
    ;[node1, node2, node3] = nodes as [NodeProcess, NodeProcess, NodeProcess]
    await Promise.all(nodes.map((node) => node.start()))
    await createTable(node1, 'dev', 'dog')
    await createTable(node1, 'data', 'dog')
  })
  after(async () => {
    await Promise.all(nodes.map((node) => node.end()))
    await remove()
  })

  /** Waits until all nodes are connected. Nodes without a direct route find each other by gossip of the hubs. */
  async function meshComplete(): Promise<void> {
    await eventually('a complete mesh', async () => {
      const { nodes: members } = await network(node1)
      return members.length === 3 && members.every(({ connected_nodes }) => connected_nodes.length === 2)
    })
    const nowhere = [subscription('nowhere', 'both')]
    const ask = (node: NodeProcess, other: NodeProcess) =>
      eventually(`${other.name} answers ${node.name}`, async () => {
        const request = { operation: 'update_node', node_name: other.name, subscriptions: nowhere }
        return (await node.request(request)).status === 200
      })
    await Promise.all(nodes.flatMap((node) => nodes.filter((other) => other !== node).map((other) => ask(node, other))))
  }

  test('cluster_set_routes', async () => {
    const { body, answer: example } = reference.cluster_set_routes
    const request = { ...body, routes: [route(node2), route(node3)] }
    const answer = await node1.operation(request)
    assertLike(answer, example)
    assert.deepEqual(answer, { message: example.message, set: request.routes, skipped: [] })
    assert.deepEqual(await node1.operation(request), { message: example.message, set: [], skipped: request.routes })
  })

  test('cluster_get_routes', async () => {
    const { body, answer: example } = reference.cluster_get_routes
    const answer = await node1.operation(body)
    assertLike(answer, example)
    assert.deepEqual(answer, { hub: [route(node2), route(node3)], leaf: [] })
    assert.deepEqual(await node2.operation(body), { hub: [], leaf: [] })
  })

  test('the routes take effect: all nodes are connected and answer each other', meshComplete)

  test('cluster_network', async () => {
    const { answer: example } = reference.cluster_network
    const answer = await network(node1)
    assertLike(answer, example)
    for (const { response_time } of answer.nodes) assert.ok(Number.isInteger(response_time) && response_time >= 0)
    const connections = answer.nodes.map(({ name, connected_nodes, routes }) => ({
      name,
      connected_nodes,
      // The hub lists them in any order.
      routes: routes.sort((a, b) => a.port - b.port),
    }))
    const routes = [route(node2), route(node3)].sort((a, b) => a.port - b.port)
    assert.deepEqual(connections, [
      { name: 'node1', connected_nodes: ['node2', 'node3'], routes },
      { name: 'node2', connected_nodes: ['node1', 'node3'], routes: [] },
      { name: 'node3', connected_nodes: ['node1', 'node2'], routes: [] },
    ])
    const names = (await network(node3)).nodes.map(({ name }) => name)
    assert.deepEqual(names, ['node3', 'node1', 'node2'], 'the local node first, then by name')
  })

  test('cluster_network: connected_nodes and routes omit these fields, and timeout is a limit', async () => {
    const keys = async (more: object) => {
      const all = (await network(node1, more)).nodes.map((node) => Object.keys(node).sort().join())
      assert.equal(all.length, 3)
      return [...new Set(all)]
    }
    assert.deepEqual(await keys({ connected_nodes: true }), ['name,response_time,routes'])
    assert.deepEqual(await keys({ routes: true }), ['connected_nodes,name,response_time'])
    assert.deepEqual(await keys({ connected_nodes: true, routes: true, timeout: 3000 }), ['name,response_time'])
    const whole = ['connected_nodes,name,response_time,routes']
    assert.deepEqual(await keys({ connected_nodes: false, routes: false, timeout: '3000' }), whole)
    const started = performance.now()
    await network(node1, { timeout: 20_000 })
    assert.ok(performance.now() - started < 10_000, 'answers as soon as all nodes have answered')
  })

  test('cluster_delete_routes', async () => {
    const { body, answer: example } = reference.cluster_delete_routes
    const request = { ...body, routes: [route(node3)] }
    const answer = await node1.operation(request)
    assertLike(answer, example)
    assert.deepEqual(answer, { message: example.message, deleted: [route(node3)], skipped: [] })
    assert.deepEqual(await node1.operation(request), { message: example.message, deleted: [], skipped: [route(node3)] })
    assert.deepEqual(await node1.operation(reference.cluster_get_routes.body), { hub: [route(node2)], leaf: [] })
    await node3.operation({ ...reference.cluster_set_routes.body, routes: [route(node1)] })
    await meshComplete()
  })

  test('add_node', async () => {
    const { body, answer: example } = reference.add_node
    const answer = await node1.operation({ ...body, node_name: 'node2' })
    const added = [{ ...subscriptionExample, start_time: START_TIME }]
    assertLike(answer, { ...example, added, skipped: [] })
    assert.deepEqual(answer, {
      message: messageFor('node2', example),
      added: [{ ...subscription('dog', 'publish'), start_time: START_TIME }],
      skipped: [],
    })
    await assertMirrored(node1, node2, [subscription('dog', 'publish')])
    const table = await node2.operation({ operation: 'describe_table', database: 'dev', table: 'dog' })
    assert.equal(table.hash_attribute, 'id', 'the table was created on node2 with its primary key')
    await insert(node1, 'dev', 'dog', ['published'])
    await arrives(node2, 'dev', 'dog', 'published')
  })

  test('update_node', async () => {
    const { body, answer: example } = reference.update_node
    const answer = await node1.operation({ ...body, node_name: 'node2' })
    const updated = [{ ...subscriptionExample, start_time: START_TIME }]
    assertLike(answer, { ...example, updated, skipped: [] })
    assert.deepEqual(answer, {
      message: messageFor('node2', example),
      updated: [{ ...subscription('dog', 'subscribe'), start_time: START_TIME }],
      skipped: [],
    })
    await assertMirrored(node1, node2, [subscription('dog', 'subscribe')])
    await insert(node2, 'dev', 'dog', ['subscribed'])
    await arrives(node1, 'dev', 'dog', 'subscribed')
  })

  test('set_node_replication', async () => {
    const { body, answer: example } = reference.set_node_replication
    const answer = await node1.operation({ ...body, node_name: 'node2' })
    assertLike(answer, { ...example, updated: [subscriptionExample], skipped: [] })
    const agreed = subscription('dog', 'both', 'data')
    assert.deepEqual(answer, { message: messageFor('node2', example), updated: [agreed], skipped: [] })
    // Other subscriptions do not change.
    await assertMirrored(node1, node2, [agreed, subscription('dog', 'subscribe')])
    // Adds a missing node, and may be sent to either node.
    assert.deepEqual(await node3.operation({ ...body, node_name: 'node1' }), {
      message: messageFor('node1', example),
      updated: [agreed],
      skipped: [],
    })
    await assertMirrored(node1, node3, [agreed])
    await insert(node1, 'data', 'dog', ['from-node1'])
    await insert(node2, 'data', 'dog', ['from-node2'])
    await arrives(node3, 'data', 'dog', 'from-node1')
    await arrives(node2, 'data', 'dog', 'from-node1')
    await arrives(node1, 'data', 'dog', 'from-node2')
  })

  test('cluster_status', async () => {
    const { answer: example } = reference.cluster_status
    const answer = await status(node1)
    assertLike(answer, { ...example, connections: [connectionExample] })
    assert.equal(answer.node_name, 'node1')
    assert.equal(answer.is_enabled, true)
    const names = answer.connections.map(({ node_name }) => node_name)
    assert.deepEqual(names, ['node2', 'node3'], 'in the order of the manifest')
    for (const [index, node] of [node2, node3].entries()) {
      const { status, ports, latency_ms, uptime, system_info } = answer.connections[index]!
      assert.equal(status, 'open')
      assert.deepEqual(ports, { clustering: node.ports.cluster, operations_api: Number(new URL(node.url).port) })
      assert.ok(Number.isInteger(latency_ms) && latency_ms >= 0 && latency_ms < 5000, `latency_ms: ${latency_ms}`)
      // Leading zero parts are omitted. A test takes minutes at most.
      assert.match(uptime, /^([1-9]\d?m )?\d{1,2}s$/)
      assert.deepEqual(system_info, {
        hdb_version: '1.0.0',
        node_version: process.version,
        platform: process.platform,
      })
    }
  })

  test('purge_stream', async () => {
    const message = (table: string) => ({ message: `Successfully purged table '${table}'` })
    const { body } = reference.purge_stream
    assert.deepEqual(await node1.operation(body), message('dev.dog'))

    // A node that subscribes from the beginning reads what is left in the stream.
    const purges = {
      emptied: undefined,
      emptied_too: { keep: 0 },
      kept: { keep: 2 },
      // Up to, but not including, this sequence.
      cut: { seq: 4 },
    }
    const tables = Object.keys(purges)
    for (const table of tables) await createTable(node1, 'dev', table)
    const replicate = (node: NodeProcess, more: object = {}) =>
      node1.operation({
        operation: 'set_node_replication',
        node_name: node.name,
        subscriptions: tables.map((table) => ({ ...subscription(table, 'publish'), ...more })),
      })
    // An acknowledged insert may not be in the stream yet; rows that node2 has read are in it.
    await replicate(node2)
    for (const id of ['1', '2', '3', '4', '5']) for (const table of tables) await insert(node1, 'dev', table, [id])
    for (const [table, options] of Object.entries(purges)) {
      await arrives(node2, 'dev', table, '5')
      const { operation, database } = body
      const answer = await node1.operation({ operation, database, table, ...(options && { options }) })
      assert.deepEqual(answer, message(`dev.${table}`))
      await insert(node1, 'dev', table, ['6'])
    }
    await replicate(node3, { start_time: START_TIME })
    for (const table of tables) await arrives(node3, 'dev', table, '6')
    assert.deepEqual(await ids(node3, 'dev', 'emptied'), ['6'])
    assert.deepEqual(await ids(node3, 'dev', 'emptied_too'), ['6'])
    assert.deepEqual(await ids(node3, 'dev', 'kept'), ['4', '5', '6'])
    assert.deepEqual(await ids(node3, 'dev', 'cut'), ['4', '5', '6'])
    assert.equal(await node1.count('dev', 'kept'), 6, 'the table itself keeps its rows')
  })

  test('remove_node', async () => {
    const { body, answer: example } = reference.remove_node
    const answer = await node1.operation({ ...body, node_name: 'node2' })
    assertLike(answer, example)
    assert.deepEqual(answer, { message: messageFor('node2', example) })
    await assertMirrored(node1, node2, undefined)
    // The reference also documents the field as `name`.
    assert.deepEqual(await node1.operation({ operation: 'remove_node', name: 'node3' }), {
      message: messageFor('node3', example),
    })
    await assertMirrored(node1, node3, undefined)
  })

  test('configure_cluster', async () => {
    const { body, answer: example } = reference.configure_cluster
    // configure_cluster replaces the previous subscriptions.
    const both = { ...reference.set_node_replication.body, node_name: 'node3' }
    await node1.operation(both)
    const connections = [
      { ...body.connections[0], node_name: 'node2' },
      { ...body.connections[1], node_name: 'node3' },
    ]
    const answer = await node1.operation<Configured>({ ...body, connections })
    assertLike(answer, {
      ...example,
      connections: [{ node_name: 'node2', subscriptions: { message: '', added: [subscriptionExample], skipped: [] } }],
    })
    assert.equal(answer.message, example.message)
    const agreed = answer.connections.map(({ node_name, subscriptions: { added, skipped } }) => ({
      node_name,
      added,
      skipped,
    }))
    assert.deepEqual(agreed, [
      { node_name: 'node2', added: [subscription('dog', 'subscribe')], skipped: [] },
      { node_name: 'node3', added: [subscription('dog', 'both')], skipped: [] },
    ])
    await assertMirrored(node1, node2, [subscription('dog', 'subscribe')])
    await assertMirrored(node1, node3, [subscription('dog', 'both')])
    await insert(node2, 'dev', 'dog', ['configured'])
    await arrives(node1, 'dev', 'dog', 'configured')
  })

  test('configure_cluster: a table that exists on neither node is skipped', async () => {
    const nowhere = subscription('nowhere', 'both')
    const { message, connections } = await node1.operation<Configured>({
      operation: 'configure_cluster',
      connections: [
        { node_name: 'node2', subscriptions: [subscription('dog', 'subscribe'), nowhere] },
        { node_name: 'node3', subscriptions: [subscription('dog', 'both')] },
      ],
    })
    assert.equal(message, reference.configure_cluster.answer.message)
    assert.deepEqual(connections[0]!.subscriptions.added, [subscription('dog', 'subscribe')])
    assert.deepEqual(connections[0]!.subscriptions.skipped, [
      { ...nowhere, reason: 'the table exists on neither node' },
    ])
    await assertMirrored(node1, node2, [subscription('dog', 'subscribe')])
  })

  test('configure_cluster: a dry run returns the plan and changes nothing', async () => {
    const before = await Promise.all(nodes.map((node) => status(node)))
    const answer = await node1.operation({
      operation: 'configure_cluster',
      dry_run: true,
      connections: [
        {
          node_name: 'node2',
          subscriptions: [subscription('dog', 'publish'), subscription('dog', 'both', 'data')],
        },
        { node_name: 'node9', subscriptions: [subscription('dog', 'both')] },
      ],
    })
    assertLike(answer, { message: '', plan: [{ node_name: 'node2', schema: 'dev', table: 'dog', action: 'update' }] })
    assert.deepEqual(answer, {
      message: 'Cluster configuration planned.',
      plan: [
        { node_name: 'node2', schema: 'dev', table: 'dog', action: 'update' },
        { node_name: 'node2', schema: 'data', table: 'dog', action: 'add' },
        { node_name: 'node9', schema: 'dev', table: 'dog', action: 'add' },
        { node_name: 'node3', schema: 'dev', table: 'dog', action: 'remove' },
      ],
    })
    const after = await Promise.all(nodes.map((node) => status(node)))
    for (const [index, { connections }] of after.entries())
      assert.deepEqual(
        connections.map(({ node_name, subscriptions }) => ({ node_name, subscriptions })),
        before[index]!.connections.map(({ node_name, subscriptions }) => ({ node_name, subscriptions })),
      )
  })

  test('configure_cluster: a node that does not answer does not stop the others', async () => {
    const answer = await node1.operation<Configured>({
      operation: 'configure_cluster',
      connections: [
        { node_name: 'node9', subscriptions: [subscription('dog', 'both')] },
        { node_name: 'node2', subscriptions: [subscription('dog', 'both')] },
        { node_name: 'node3', subscriptions: [subscription('dog', 'both')] },
      ],
    })
    assert.deepEqual(Object.keys(answer).sort(), ['connections', 'failed_nodes', 'message'])
    assert.equal(answer.message, PARTIALLY_CONFIGURED)
    assert.deepEqual(answer.failed_nodes, ['node9'])
    const names = (await status(node1)).connections.map(({ node_name }) => node_name)
    assert.deepEqual(names, ['node9', 'node2', 'node3'])
    await assertMirrored(node1, node2, [subscription('dog', 'both')])
    await assertMirrored(node1, node3, [subscription('dog', 'both')])
  })

  test('nodes that are down: cluster_status and cluster_network', async () => {
    await Promise.all([node2.kill(), node3.kill()])
    let states: string[] = []
    const { connections } = await eventually(
      () => `both are reported down: ${states.join(', ')}`,
      async () => {
        const answer = await status(node1)
        states = answer.connections.map(({ node_name, status }) => `${node_name} ${status}`)
        return answer.connections.every(({ status }) => status === 'NoResponders') && answer
      },
    )
    for (const connection of connections)
      assert.deepEqual(connection, {
        node_name: connection.node_name,
        status: 'NoResponders',
        ports: {},
        subscriptions: [subscription('dog', 'both')],
        replicas: connection.replicas,
      })
    const { nodes: members } = await eventually('a network of one', async () => {
      const answer = await network(node1)
      return answer.nodes.length === 1 && answer
    })
    assert.equal(members[0]!.name, 'node1')
    assert.deepEqual(members[0]!.connected_nodes, [])
  })

  test('nodes that are down: configure_cluster and remove_node', async () => {
    const answer = await node1.operation<Configured>({
      operation: 'configure_cluster',
      connections: [
        { node_name: 'node2', subscriptions: [subscription('dog', 'subscribe')] },
        { node_name: 'node9', subscriptions: [subscription('dog', 'both')] },
      ],
    })
    assert.equal(answer.message, PARTIALLY_CONFIGURED)
    assert.deepEqual(answer.failed_nodes, ['node2', 'node9'])
    assert.deepEqual(await node1.operation({ operation: 'remove_node', node_name: 'node9' }), {
      message:
        "Successfully removed 'node9' from local manifest, however there was an error reaching remote node. Check the logs for more details.",
    })
    const left = (await status(node1)).connections.map(({ node_name, subscriptions }) => ({ node_name, subscriptions }))
    assert.deepEqual(left, [{ node_name: 'node2', subscriptions: [subscription('dog', 'subscribe')] }])
  })

  test('restarted nodes: pending subscriptions are set up', async () => {
    await Promise.all([node2.start(), node3.start()])
    await eventually('node2 has the mirror image', async () => {
      const [found] = (await subscriptionsWith(node2, node1)) ?? []
      return found?.publish === true && found.subscribe === false
    })
    await assertMirrored(node1, node2, [subscription('dog', 'subscribe')])
    await insert(node2, 'dev', 'dog', ['back'])
    await arrives(node1, 'dev', 'dog', 'back')
  })

  test('restarted nodes: a removed node learns of the removal', async () => {
    await eventually('node3 has removed node1', async () => !(await subscriptionsWith(node3, node1)))
    await assertMirrored(node1, node3, undefined)
  })

  test('configure_cluster: an empty list removes every node', async () => {
    await node1.operation({ ...reference.set_node_replication.body, node_name: 'node3' })
    const answer = await node1.operation({ operation: 'configure_cluster', connections: [] })
    assert.deepEqual(answer, { message: reference.configure_cluster.answer.message, connections: [] })
    assert.deepEqual((await status(node1)).connections, [])
    await assertMirrored(node1, node2, undefined)
    await assertMirrored(node1, node3, undefined)
  })
})

const PARTIALLY_CONFIGURED =
  'Configure cluster was partially successful. Errors occurred when attempting to configure the following nodes. Check the logs for more details.'
