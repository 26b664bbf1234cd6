// Every error and rule of the operations over HTTP, on three real nodes and one without clustering.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { after, before, describe, test } from 'node:test'
import { parseDocument } from 'yaml'
import { clusterPassword, clusterUser, eventually, temporaryDirectory } from '../support/cluster.ts'
import { type Answer, admin, type Login, NodeProcess, ordinary } from '../support/node-process.ts'

type Subscription = { schema: string; table: string; publish: boolean; subscribe: boolean }
type Connection = { node_name: string; status: string; subscriptions: Subscription[] }

const dog = { schema: 'dev', table: 'dog', publish: true, subscribe: true }
const deleted = { message: 'cluster routes successfully deleted' }
const set = { message: 'cluster routes successfully set' }

/** One valid request of each operation. `node9` does not exist. */
const valid: Record<string, object> = {
  cluster_set_routes: { server: 'hub', routes: [{ host: 'host9', port: 9932 }] },
  cluster_get_routes: {},
  cluster_delete_routes: { routes: [{ host: 'host9', port: 9932 }] },
  add_node: { node_name: 'node3', subscriptions: [dog] },
  update_node: { node_name: 'node2', subscriptions: [{ ...dog, publish: false }] },
  set_node_replication: { node_name: 'node2', subscriptions: [{ ...dog, publish: false }] },
  remove_node: { node_name: 'node2' },
  configure_cluster: { connections: [] },
  cluster_status: {},
  cluster_network: {},
  purge_stream: { database: 'dev', table: 'dog' },
}
const operations = Object.keys(valid)
const withoutClustering = ['cluster_set_routes', 'cluster_get_routes', 'cluster_delete_routes', 'cluster_status']

const forbidden = {
  error: 'This operation is not authorized due to role restrictions and/or invalid database items',
  unauthorized_access: [],
  invalid_schema_items: [],
}

/** An invalid body of an operation, and the error text of the answer. */
type InvalidBody = [body: object, text: string]

/** Invalid values of `node_name`. */
const invalidNodeNames = (rest: object): InvalidBody[] => [
  [rest, "'node_name' is required"],
  [{ node_name: null, ...rest }, "'node_name' is required"],
  [{ node_name: 5, ...rest }, "'node_name' must be a string"],
  [{ node_name: '', ...rest }, "'node_name' is not allowed to be empty"],
  ...['a.b', 'a,b', 'a*', 'a>', 'a b', ' a', 'a/b', 'a\u0007'].map(
    (node_name): InvalidBody => [{ node_name, ...rest }, "'node_name' invalid, must not contain ., * or >"],
  ),
  [{ node_name: 'node1', ...rest }, "'node_name' cannot be this nodes name"],
]

const { publish: _publish, ...withoutPublish } = dog
const { table: _table, ...withoutTable } = dog
/** Invalid subscriptions. PATH stands for the path of the subscription. */
const invalidSubscriptions: [subscription: unknown, text: string][] = [
  ['dog', "'PATH' must be of type object"],
  [[], "'PATH' must be of type object"],
  [null, "'PATH' must be of type object"],
  [{}, "'PATH.table' is required. 'PATH.subscribe' is required. 'PATH.publish' is required"],
  [withoutTable, "'PATH.table' is required"],
  [withoutPublish, "'PATH.publish' is required"],
  [{ ...dog, table: 5 }, "'PATH.table' must be a string"],
  [{ ...dog, table: null }, "'PATH.table' must be a string"],
  [{ ...dog, table: '' }, "'PATH.table' is not allowed to be empty"],
  [{ ...dog, schema: 5 }, "'PATH.schema' must be a string"],
  [{ ...dog, schema: '' }, "'PATH.schema' is not allowed to be empty"],
  [{ ...dog, schema: null }, "'PATH.schema' must be a string"],
  [{ ...dog, schema: undefined, database: 5 }, "'PATH.database' must be a string"],
  [{ ...dog, publish: 'maybe' }, "'PATH.publish' must be a boolean"],
  [{ ...dog, publish: '' }, "'PATH.publish' must be a boolean"],
  [{ ...dog, publish: null }, "'PATH.publish' must be a boolean"],
  [{ ...dog, subscribe: 1 }, "'PATH.subscribe' must be a boolean"],
  [{ ...dog, start_time: 'yesterday' }, "'PATH.start_time' must be in ISO 8601 date format"],
  [{ ...dog, start_time: '2022-09-02' }, "'PATH.start_time' must be in ISO 8601 date format"],
  [{ ...dog, start_time: '2022-02-30T00:00:00Z' }, "'PATH.start_time' must be in ISO 8601 date format"],
  [{ ...dog, start_time: 5 }, "'PATH.start_time' must be a valid date"],
  [{ ...dog, start_time: null }, "'PATH.start_time' must be a valid date"],
  [
    { table: 5, subscribe: 'x', publish: 'y', start_time: 'z' },
    "'PATH.table' must be a string. 'PATH.subscribe' must be a boolean. 'PATH.publish' must be a boolean. 'PATH.start_time' must be in ISO 8601 date format",
  ],
]
const invalidSubscriptionLists = (path: string, body: (subscriptions: unknown) => object): InvalidBody[] => [
  ...invalidSubscriptions.map(
    ([subscription, text]): InvalidBody => [body([subscription]), text.replaceAll('PATH', `${path}subscriptions[0]`)],
  ),
  [body([dog, { ...dog, publish: 'x' }]), `'${path}subscriptions[1].publish' must be a boolean`],
  [
    body([{ ...dog, publish: 'x' }, dog, { ...dog, table: 5 }]),
    `'${path}subscriptions[0].publish' must be a boolean. '${path}subscriptions[2].table' must be a string`,
  ],
  [body(undefined), `'${path}subscriptions' is required`],
  [body(null), `'${path}subscriptions' must be an array`],
  [body('dog'), `'${path}subscriptions' must be an array`],
  [body({}), `'${path}subscriptions' must be an array`],
  [body([]), `'${path}subscriptions' must contain at least 1 items`],
]

const invalidNodeBodies = (node_name: string): InvalidBody[] => [
  ...invalidNodeNames({ subscriptions: [dog] }),
  ...invalidSubscriptionLists('', (subscriptions) => ({ node_name, subscriptions })),
  [{}, "'node_name' is required. 'subscriptions' is required"],
  [{ node_name: 5, subscriptions: 5 }, "'node_name' must be a string. 'subscriptions' must be an array"],
]

/** Invalid values of `routes`. */
const invalidRoutes = (rest: object): InvalidBody[] => {
  const of = (route: unknown, text: string): InvalidBody => [{ ...rest, routes: [route] }, text]
  const host = (value: unknown, text: string) => of({ host: value, port: 1 }, `'routes[0].host' ${text}`)
  const port = (value: unknown, text: string) => of({ host: 'h', port: value }, `'routes[0].port' ${text}`)
  return [
    [rest, "'routes' is required"],
    [{ ...rest, routes: null }, "'routes' is required"],
    [{ ...rest, routes: 'h:1' }, "'routes' must be an array"],
    [{ ...rest, routes: { host: 'h', port: 1 } }, "'routes' must be an array"],
    of('h:1', "'routes[0]' must be of type object"),
    of(null, "'routes[0]' must be of type object"),
    of({}, "'routes[0].host' is required. 'routes[0].port' is required"),
    of({ port: 1 }, "'routes[0].host' is required"),
    of({ host: 'h' }, "'routes[0].port' is required"),
    host(5, 'must be a string'),
    host(null, 'must be a string'),
    host('', 'is not allowed to be empty'),
    ...['two words', 'a/b', 'user:pw@h', 'h:1', ' h', 'h ', '999.1.1.1', 'h'.repeat(254)].map((value) =>
      host(value, 'must be a valid host'),
    ),
    port('abc', 'must be a number'),
    port('', 'must be a number'),
    port(null, 'must be a number'),
    port(true, 'must be a number'),
    port(0, 'must be greater than or equal to 1'),
    port(-1, 'must be greater than or equal to 1'),
    port('-1', 'must be greater than or equal to 1'),
    port(70_000, 'must be less than or equal to 65535'),
    port(1.5, 'must be an integer'),
    port('1.5', 'must be an integer'),
    port(2 ** 60, 'must be a safe number'),
    [
      { ...rest, routes: [{ host: 5, port: 'x' }, { host: 'h', port: 1 }, { host: '' }] },
      "'routes[0].host' must be a string. 'routes[0].port' must be a number. 'routes[2].host' is not allowed to be empty. 'routes[2].port' is required",
    ],
  ]
}

const connections = (...all: unknown[]) => ({ connections: all })
const purge = (options: unknown) => ({ database: 'dev', table: 'dog', options })

const invalidBodies: Record<string, InvalidBody[]> = {
  cluster_set_routes: [
    ...invalidRoutes({ server: 'hub' }),
    ...['x', '', 'HUB', null, 5].map(
      (server): InvalidBody => [{ server, routes: [] }, "'server' must be one of [hub, leaf]"],
    ),
    [{ routes: [] }, "'server' is required"],
    [{}, "'server' is required. 'routes' is required"],
    [{ server: 'x', routes: 5 }, "'server' must be one of [hub, leaf]. 'routes' must be an array"],
  ],
  cluster_delete_routes: invalidRoutes({}),
  add_node: [
    ...invalidNodeBodies('node3'),
    [
      { node_name: 'node3', subscriptions: [{ ...dog, publish: false, subscribe: false }] },
      "'subscriptions[0]' subscribe and/or publish must be set to true when adding a node",
    ],
    [
      { node_name: 'node3', subscriptions: [dog, { ...dog, table: 'cat', publish: 'false', subscribe: 'false' }] },
      "'subscriptions[1]' subscribe and/or publish must be set to true when adding a node",
    ],
    [
      { node_name: 'node2', subscriptions: [dog] },
      "Node 'node2' has already been added, perform update_node to proceed.",
    ],
  ],
  update_node: invalidNodeBodies('node2'),
  set_node_replication: invalidNodeBodies('node2'),
  remove_node: [
    ...invalidNodeNames({}),
    [{ name: null }, "'node_name' is required"],
    [{ name: 'node1' }, "'node_name' cannot be this nodes name"],
    [{ node_name: 'node9' }, "Node 'node9' was not found."],
    [{ name: 'node9' }, "Node 'node9' was not found."],
    [{ node_name: 'NODE2' }, "Node 'NODE2' was not found."],
  ],
  configure_cluster: [
    [{}, "'connections' is required"],
    [{ connections: null }, "'connections' must be an array"],
    [{ connections: 'x' }, "'connections' must be an array"],
    [connections('x'), "'connections[0]' must be of type object"],
    [connections({}), "'connections[0].node_name' is required. 'connections[0].subscriptions' is required"],
    [connections({ node_name: null, subscriptions: [dog] }), "'connections[0].node_name' is required"],
    [
      connections({ node_name: 'a.b', subscriptions: [dog] }),
      "'connections[0].node_name' invalid, must not contain ., * or >",
    ],
    [connections({ node_name: 'node1', subscriptions: [dog] }), "'node_name' cannot be this nodes name"],
    [
      connections({ node_name: 'node2', subscriptions: [dog] }, { node_name: 'node2', subscriptions: [dog] }),
      "'connections' must not name a node twice",
    ],
    ...invalidSubscriptionLists('connections[1].', (subscriptions) =>
      connections({ node_name: 'node2', subscriptions: [dog] }, { node_name: 'node3', subscriptions }),
    ),
    [{ connections: [], dry_run: 'maybe' }, "'dry_run' must be a boolean"],
  ],
  cluster_network: [
    [{ timeout: 'x' }, "'timeout' must be a number"],
    [{ timeout: null }, "'timeout' must be a number"],
    [{ timeout: 0 }, "'timeout' must be greater than or equal to 1"],
    [{ timeout: 2 ** 60 }, "'timeout' must be a safe number"],
    [{ connected_nodes: 'maybe' }, "'connected_nodes' must be a boolean"],
    [{ routes: null }, "'routes' must be a boolean"],
    [{ routes: 1 }, "'routes' must be a boolean"],
    [
      { timeout: [], connected_nodes: 1, routes: 1 },
      "'timeout' must be a number. 'connected_nodes' must be a boolean. 'routes' must be a boolean",
    ],
  ],
  purge_stream: [
    [{ database: 'dev' }, "'table' is required"],
    [{ database: 'dev', table: '' }, "'table' is not allowed to be empty"],
    [{ database: 'dev', table: 5 }, "'table' must be a string"],
    [{ database: 5, table: 'dog' }, "'database' must be a string"],
    [{ database: 'dev', table: 'nope' }, "Table 'nope' does not exist"],
    [{ schema: 'dev', table: 'nope' }, "Table 'nope' does not exist"],
    [{ database: 'nope', table: 'dog' }, "Database 'nope' does not exist. Table 'dog' does not exist"],
    [{ table: 'dog' }, "Database 'data' does not exist. Table 'dog' does not exist"],
    [purge({ keep: 1, seq: 1 }), 'can specify one of keep or seq'],
    [purge({ keep: 0, seq: 0 }), 'can specify one of keep or seq'],
    [purge({ keep: -1 }), "'options.keep' must be greater than or equal to 0"],
    [purge({ seq: -1 }), "'options.seq' must be greater than or equal to 0"],
    [purge({ keep: 1.5 }), "'options.keep' must be an integer"],
    [purge({ keep: 'x' }), "'options.keep' must be a number"],
    [purge({ keep: null }), "'options.keep' must be a number"],
    [purge({ seq: true }), "'options.seq' must be a number"],
    [purge({ seq: 2 ** 60 }), "'options.seq' must be a safe number"],
    [purge(5), "'options' must be of type object"],
    [purge('x'), "'options' must be of type object"],
    [purge([]), "'options' must be of type object"],
  ],
}

/** Only the status and a part of the text are specified. */
const contradictions: [operation: string, body: object, text: RegExp][] = [
  ...['add_node', 'update_node', 'set_node_replication'].flatMap((operation): [string, object, RegExp][] => [
    [operation, { node_name: 'node3', subscriptions: [{ ...dog, database: 'data' }] }, /database.*schema/],
    ...['two words', 'x.y', '*', '>', 'bell\u0007'].flatMap((name): [string, object, RegExp][] => [
      [operation, { node_name: 'node3', subscriptions: [{ ...dog, table: name }] }, /cannot be replicated/],
      [operation, { node_name: 'node3', subscriptions: [{ ...dog, schema: name }] }, /cannot be replicated/],
    ]),
  ]),
  ['remove_node', { node_name: 'node2', name: 'node3' }, /node_name.*name/],
  [
    'configure_cluster',
    connections({ node_name: 'node3', subscriptions: [{ ...dog, table: 'x.y' }] }),
    /cannot be replicated/,
  ],
  [
    'configure_cluster',
    connections({ node_name: 'node3', subscriptions: [{ ...dog, database: 'data' }] }),
    /database.*schema/,
  ],
  ['purge_stream', { database: 'dev', schema: 'data', table: 'dog' }, /database.*schema/],
]

describe('errors and rules over HTTP', () => {
  let nodes: NodeProcess[] = []
  let node1: NodeProcess
  let node2: NodeProcess
  let node3: NodeProcess
  let alone: NodeProcess
  let remove = async () => {}

  before(async () => {
    const [directory, removeDirectory] = await temporaryDirectory()
    remove = removeDirectory
    nodes = await Promise.all([
      ...['node1', 'node2', 'node3'].map((name) => NodeProcess.create(directory, name)),
      NodeProcess.create(directory, 'alone', { enabled: false }),
    ])
    ;[node1, node2, node3, alone] = nodes as [NodeProcess, NodeProcess, NodeProcess, NodeProcess]
    for (const { configFile } of [node2, node3]) {
      const document = parseDocument(await readFile(configFile, 'utf8'))
      const routes = [{ host: '127.0.0.1', port: node1.ports.cluster }]
      document.setIn(['clustering', 'hubServer', 'cluster', 'network', 'routes'], routes)
      await writeFile(configFile, String(document))
    }
    await Promise.all(nodes.map((node) => node.start()))
    await eventually('a complete mesh', async () => {
      type Network = { nodes: { connected_nodes: string[] }[] }
      const { nodes: members } = await node1.operation<Network>({ operation: 'cluster_network', timeout: 500 })
      return members.length === 3 && members.every(({ connected_nodes }) => connected_nodes.length === 2)
    })
    await createTable(node1, 'dog')
    await node1.operation({ operation: 'add_node', node_name: 'node2', subscriptions: [dog] })
  })
  after(async () => {
    await Promise.all(nodes.map((node) => node.end()))
    await remove()
  })

  const createTable = (node: NodeProcess, table: string, primary_key = 'id') =>
    node.operation({ operation: 'create_table', database: 'dev', table, primary_key })

  /** Sends a request with exactly these headers. */
  async function post(node: NodeProcess, body: string, headers: Record<string, string>) {
    const response = await fetch(node.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body,
    })
    return { status: response.status, headers: response.headers, body: (await response.json()) as Answer['body'] }
  }
  const basic = ({ username, password }: Login) => ({
    authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
  })

  async function connectionsOf(node: NodeProcess) {
    const { connections } = await node.operation<{ connections: Connection[] }>({ operation: 'cluster_status' })
    return connections.map(({ node_name, subscriptions }) => ({
      node_name,
      // `state` and `reason` are there while a subscription is not in effect, such as right after a peer was away.
      subscriptions: subscriptions.map(
        ({ state: _, reason: __, ...each }: object & { state?: string; reason?: string }) => each,
      ),
    }))
  }

  /** Everything that an operation can change on a node, including the bytes of its file. */
  const stateOf = async (node: NodeProcess) => ({
    nodes: await connectionsOf(node),
    routes: await node.operation({ operation: 'cluster_get_routes' }),
    file: await readFile(node.configFile, 'utf8'),
    tables: await node.operation({ operation: 'describe_all' }),
  })

  /** Asserts that `work` changes nothing on any node. */
  async function changesNothing(work: () => Promise<void>): Promise<void> {
    const before = await Promise.all(nodes.map(stateOf))
    await work()
    assert.deepEqual(await Promise.all(nodes.map(stateOf)), before)
  }

  const rejects = async (node: NodeProcess, request: object, status: number, error: string) =>
    assert.deepEqual(await node.request(request), { status, body: { error } }, JSON.stringify(request))

  // --- callers and operations -------------------------------------------------------------------------------------------

  test('a request without valid credentials gets 401 before any other check', async () => {
    for (const body of ['{"operation":"cluster_status"}', '{"operation":"nonsense"}', '{"operation"', '']) {
      const { status, headers, body: answer } = await post(node1, body, {})
      assert.equal(status, 401)
      assert.deepEqual(answer, { error: 'Must login' })
      assert.match(headers.get('www-authenticate') ?? '', /^Basic/)
    }
    const wrong = [
      basic({ ...admin, password: 'wrong' }),
      basic({ ...admin, username: 'nobody' }),
      basic({ ...admin, password: '' }),
      { authorization: 'Basic ***' },
      { authorization: 'Bearer token' },
    ]
    for (const authorization of wrong) {
      const { status, body } = await post(node1, '{"operation":"cluster_status"}', authorization)
      assert.equal(status, 401)
      assert.deepEqual(body, { error: 'Login failed' })
    }
  })

  test('an ordinary user gets 403 for every operation, and nothing changes', async () => {
    const meshUser = { username: clusterUser, password: clusterPassword }
    await changesNothing(async () => {
      for (const login of [ordinary, meshUser])
        for (const operation of operations)
          for (const body of [valid[operation], { routes: 5, subscriptions: 5, connections: 5, options: 5 }])
            assert.deepEqual(await node1.request({ operation, ...body }, login), { status: 403, body: forbidden })
      assert.deepEqual(await alone.request({ operation: 'add_node' }, ordinary), { status: 403, body: forbidden })
      assert.deepEqual(await node1.request({ operation: 'nonsense' }, ordinary), { status: 403, body: forbidden })
      assert.deepEqual(await node1.request({}, ordinary), { status: 403, body: forbidden })
    })
  })

  test('a missing or unknown operation', async () => {
    for (const body of ['{}', '[]', 'null', '"cluster_status"', '5'])
      assert.deepEqual(
        await node1.request(body),
        { status: 400, body: { error: "Request body must include an 'operation' property." } },
        body,
      )
    for (const operation of ['nonsense', 'cluster_Status', ' cluster_status', 'toString', 'constructor'])
      await rejects(node1, { operation }, 400, `Operation '${operation}' not found`)
  })

  test('a body that is not JSON', async () => {
    for (const body of ['{"operation":', '{operation: "cluster_status"}', 'cluster_status', '']) {
      const { status, body: answer } = await node1.request(body)
      assert.equal(status, 400, body)
      assert.deepEqual(Object.keys(answer), ['error'])
      assert.equal(typeof answer.error, 'string')
    }
    assert.equal((await node1.request({ operation: 'cluster_status' })).status, 200, 'the node still answers')
  })

  // --- invalid bodies ---------------------------------------------------------------------------------------------------

  for (const [operation, all] of Object.entries(invalidBodies))
    test(`${operation}: ${all.length} invalid bodies are rejected with their texts and change nothing`, () =>
      changesNothing(async () => {
        for (const [body, text] of all) await rejects(node1, { operation, ...body }, 400, text)
      }))

  test('contradicting fields and names that cannot be replicated', () =>
    changesNothing(async () => {
      for (const [operation, body, text] of contradictions) {
        const { status, body: answer } = await node1.request({ operation, ...body })
        assert.equal(status, 400, JSON.stringify(body))
        assert.match(String(answer.error), text, JSON.stringify(body))
      }
    }))

  // --- clustering disabled ------------------------------------------------------------------------------------------------

  test('without clustering: only routes and status are available', async () => {
    for (const operation of operations) {
      if (withoutClustering.includes(operation)) continue
      for (const body of [valid[operation], { node_name: 5, table: 5, connections: 5, timeout: 'x' }])
        await rejects(alone, { operation, ...body }, 400, 'Clustering must be enabled to perform this operation.')
    }
    assert.deepEqual(await alone.request({ operation: 'cluster_status' }), {
      status: 200,
      body: { node_name: 'alone', is_enabled: false, connections: [] },
    })
  })

  test('without clustering: routes are set, read and deleted, and occur in one list only', async () => {
    const [a, b, c] = [
      { host: 'a.example', port: 1 },
      { host: '10.0.0.1', port: 65535 },
      { host: '::1', port: 9932 },
    ]
    const get = () => alone.operation({ operation: 'cluster_get_routes' })
    const put = (server: string, ...routes: object[]) =>
      alone.operation({ operation: 'cluster_set_routes', server, routes })
    const drop = (...routes: object[]) => alone.operation({ operation: 'cluster_delete_routes', routes })
    const before = await readFile(alone.configFile, 'utf8')

    assert.deepEqual(await put('hub'), { ...set, set: [], skipped: [] })
    assert.deepEqual(await drop(), { ...deleted, deleted: [], skipped: [] })
    assert.equal(await readFile(alone.configFile, 'utf8'), before)

    // Ports as strings, and unknown keys.
    assert.deepEqual(await put('hub', { ...a, port: ' 1 ', weight: 5 }, a, b), { ...set, set: [a, b], skipped: [a] })
    const duplicate = { ...a, host: 'A.Example' }
    assert.deepEqual(await put('leaf', duplicate, c), { ...set, set: [c], skipped: [duplicate] })
    assert.deepEqual(await get(), { hub: [a, b], leaf: [c] })
    assert.deepEqual(await put('hub', c), { ...set, set: [], skipped: [c] })

    const unknown = { host: 'a.example', port: 2 }
    assert.deepEqual(await drop({ ...a, port: '1', weight: 5 }, unknown, c), {
      ...deleted,
      deleted: [a, c],
      skipped: [unknown],
    })
    assert.deepEqual(await get(), { hub: [b], leaf: [] })
    assert.deepEqual(await drop(b), { ...deleted, deleted: [b], skipped: [] })
    assert.deepEqual(await get(), { hub: [], leaf: [] })
    const after = await readFile(alone.configFile, 'utf8')
    assert.match(after, /routes: null/)
    assert.doesNotMatch(after, /weight|a\.example/)
  })

  // --- nodes and tables ---------------------------------------------------------------------------------------------

  test('a node that does not exist', () =>
    changesNothing(async () => {
      for (const operation of ['add_node', 'update_node', 'set_node_replication'])
        await rejects(
          node1,
          { operation, node_name: 'node9', subscriptions: [dog] },
          500,
          `Unable to ${operation}, node 'node9' is not listening.`,
        )
    }))

  test('all tables exist on neither node', () =>
    changesNothing(async () => {
      const reason = 'the table exists on neither node'
      const skipped = [
        { ...dog, table: 'nowhere', reason },
        { ...dog, schema: 'data', table: 'dog', reason },
      ]
      const { schema: _, ...anywhere } = dog
      const subscriptions = [{ ...dog, table: 'nowhere' }, anywhere]
      const text = (verb: string) =>
        `Unable to ${verb} subscriptions due to schema and/or tables not existing on the local or remote node`
      assert.deepEqual(await node1.request({ operation: 'add_node', node_name: 'node3', subscriptions }), {
        status: 200,
        body: { message: text('create'), added: [], skipped },
      })
      for (const operation of ['update_node', 'set_node_replication'])
        for (const node_name of ['node2', 'node3'])
          assert.deepEqual(await node1.request({ operation, node_name, subscriptions }), {
            status: 200,
            body: { message: text('update'), updated: [], skipped },
          })
    }))

  const some =
    'Some subscriptions were unsuccessful due to schema and/or tables not existing on the local or remote node'

  test('some tables exist on neither node', async () => {
    const nowhere = { ...dog, table: 'nowhere' }
    const one = { ...dog, publish: false }
    const skipped = [{ ...nowhere, reason: 'the table exists on neither node' }]
    const request = { node_name: 'node3', subscriptions: [nowhere, one] }
    const { status, body } = await node1.request({ operation: 'add_node', ...request })
    assert.deepEqual({ status, body }, { status: 200, body: { message: some, added: [one], skipped } })
    for (const operation of ['update_node', 'set_node_replication'])
      assert.deepEqual(await node1.request({ operation, ...request }), {
        status: 200,
        body: { message: some, updated: [one], skipped },
      })
    assert.deepEqual(await connectionsOf(node3), [
      { node_name: 'node1', subscriptions: [{ ...dog, subscribe: false }] },
    ])
    await node1.operation({ operation: 'remove_node', node_name: 'node3' })
    assert.deepEqual(await connectionsOf(node3), [])
  })

  test('a table whose primary key differs is skipped', async () => {
    await createTable(node1, 'differs')
    await createTable(node3, 'differs', 'name')
    const differs = { ...dog, table: 'differs' }
    const reason = "its primary key is 'id' on the local node and 'name' on the remote node"
    const ask = (...subscriptions: object[]) =>
      node1.request({ operation: 'add_node', node_name: 'node3', subscriptions })
    await changesNothing(async () => {
      const message =
        'Unable to create subscriptions due to schema and/or tables not existing on the local or remote node'
      assert.deepEqual(await ask(differs), {
        status: 200,
        body: { message, added: [], skipped: [{ ...differs, reason }] },
      })
    })
    assert.deepEqual(await ask(differs, dog), {
      status: 200,
      body: { message: some, added: [dog], skipped: [{ ...differs, reason }] },
    })
    await node1.operation({ operation: 'remove_node', node_name: 'node3' })
  })

  test('strings become booleans, the last entry of a table counts, and unknown keys are dropped', async () => {
    const { schema: _, ...anywhere } = dog
    const answer = await node1.operation({
      operation: 'update_node',
      node_name: 'node3',
      weight: 5,
      subscriptions: [
        { ...dog, publish: 'true', subscribe: 'true', weight: 5 },
        { ...anywhere, database: 'dev', publish: ' TRUE ', subscribe: 'false' },
      ],
    })
    const agreed = { ...dog, subscribe: false }
    assert.deepEqual(answer, { message: "Successfully updated 'node3'", updated: [agreed], skipped: [] })
    assert.deepEqual((await connectionsOf(node1)).at(-1), { node_name: 'node3', subscriptions: [agreed] })
    assert.doesNotMatch(await readFile(node1.configFile, 'utf8'), /weight/)
  })

  test('start_time is converted to UTC, and a future time becomes now', async () => {
    const update = async (start_time: string) => {
      const { updated } = await node1.operation<{ updated: { start_time: string }[] }>({
        operation: 'update_node',
        node_name: 'node3',
        subscriptions: [{ ...dog, subscribe: false, start_time }],
      })
      return updated[0]!.start_time
    }
    assert.equal(await update('2022-09-02T22:06:35.993+02:00'), '2022-09-02T20:06:35.993Z')
    assert.equal(await update('2022-09-02T20:06:35Z'), '2022-09-02T20:06:35.000Z')
    const before = Date.now()
    const now = Date.parse(await update('2999-01-01T00:00:00Z'))
    assert.ok(before <= now && now <= Date.now())
  })

  test('both directions false end the flow and keep the entry', async () => {
    const ended = { ...dog, publish: false, subscribe: false }
    const answer = await node1.operation({ operation: 'update_node', node_name: 'node3', subscriptions: [ended] })
    assert.deepEqual(answer, { message: "Successfully updated 'node3'", updated: [ended], skipped: [] })
    assert.deepEqual((await connectionsOf(node1)).at(-1), { node_name: 'node3', subscriptions: [ended] })
    assert.deepEqual(await connectionsOf(node3), [{ node_name: 'node1', subscriptions: [ended] }])
    await rejects(
      node1,
      { operation: 'add_node', node_name: 'node3', subscriptions: [dog] },
      400,
      "Node 'node3' has already been added, perform update_node to proceed.",
    )
    await node1.operation({ operation: 'remove_node', node_name: 'node3' })
  })

  test('of two concurrent requests to add a node one succeeds and one is rejected', async () => {
    const request = { operation: 'add_node', node_name: 'node3', subscriptions: [dog] }
    const both = await Promise.all([node1.request(request), node1.request(request)])
    assert.deepEqual(both.map(({ status }) => status).sort(), [200, 400])
    const rejected = both.find(({ status }) => status === 400)!.body
    assert.deepEqual(rejected, { error: "Node 'node3' has already been added, perform update_node to proceed." })
    await node1.operation({ operation: 'remove_node', node_name: 'node3' })
    assert.deepEqual(await connectionsOf(node3), [])
  })

  test('purge_stream accepts all forms of its options', async () => {
    const body = { message: "Successfully purged table 'dev.fresh'" }
    await createTable(node1, 'fresh')
    const all = [undefined, null, {}, { keep: '5' }, { seq: ' 1 ' }, { keep: 0 }, { other: 5, keep: 1e3 }]
    for (const options of all)
      assert.deepEqual(
        await node1.request({ operation: 'purge_stream', schema: 'dev', table: 'fresh', options }),
        { status: 200, body },
        JSON.stringify(options),
      )
  })

  test('cluster_network accepts strings as flags', async () => {
    const { nodes: members } = await node1.operation<{ nodes: object[] }>({
      operation: 'cluster_network',
      timeout: '1000',
      connected_nodes: 'true',
      routes: 'TRUE',
    })
    assert.deepEqual(Object.keys(members[0]!).sort(), ['name', 'response_time'])
  })

  // --- peers that fail, and invalid files -----------------------------------------------------------------------------

  /** Makes the file of a node invalid while `work` runs. */
  async function withInvalidFile(node: NodeProcess, work: () => Promise<void>): Promise<void> {
    const good = await readFile(node.configFile, 'utf8')
    await writeFile(node.configFile, `${good}\nbroken: [\n`)
    try {
      await work()
    } finally {
      await writeFile(node.configFile, good)
    }
  }

  test('a rejection by the peer reports its reason and changes nothing', () =>
    changesNothing(async () => {
      await withInvalidFile(node3, async () => {
        for (const operation of ['add_node', 'update_node', 'set_node_replication']) {
          const { status, body } = await node1.request({ operation, node_name: 'node3', subscriptions: [dog] })
          assert.equal(status, 500)
          assert.match(String(body.error), /^Error returned from remote node node3: Configuration file .*config\.yaml/)
        }
      })
    }))

  test('an invalid local file rejects every change on both nodes', () =>
    changesNothing(async () => {
      await withInvalidFile(node1, async () => {
        const changed = { ...dog, publish: false }
        const requests = [
          { operation: 'cluster_set_routes', server: 'hub', routes: [{ host: 'host9', port: 1 }] },
          { operation: 'add_node', node_name: 'node3', subscriptions: [changed] },
          { operation: 'update_node', node_name: 'node2', subscriptions: [changed] },
          { operation: 'remove_node', node_name: 'node2' },
          { operation: 'configure_cluster', connections: [{ node_name: 'node2', subscriptions: [changed] }] },
        ]
        for (const request of requests) {
          const { status, body } = await node1.request(request)
          assert.equal(status, 409, `${request.operation}: ${JSON.stringify(body)}`)
          assert.match(String(body.error), /^Configuration file .*config\.yaml is not valid: /)
        }
      })
    }))

  test('a hanging node times out, its hub still answers, and other nodes are not delayed', async () => {
    const add = { operation: 'add_node', node_name: 'node3', subscriptions: [{ ...dog, publish: false }] }
    await node1.operation(add)
    await changesNothing(async () => {
      process.kill(node3.pid, 'SIGSTOP')
      try {
        const started = performance.now()
        const [updated, status, network] = await Promise.all([
          node1.request({ operation: 'update_node', node_name: 'node3', subscriptions: [dog] }),
          node1.operation<{ connections: Connection[] }>({ operation: 'cluster_status' }),
          node1.operation<{ nodes: { name: string }[] }>({ operation: 'cluster_network' }),
        ])
        assert.deepEqual(updated, {
          status: 504,
          body: { error: "Unable to update_node, node 'node3' is listening but did not respond." },
        })
        const states = status.connections.map(({ node_name, status }) => [node_name, status])
        assert.deepEqual(states, [
          ['node2', 'open'],
          ['node3', 'Timeout'],
        ])
        assert.deepEqual(Object.keys(status.connections[1]!).sort(), ['node_name', 'ports', 'status', 'subscriptions'])
        const names = network.nodes.map(({ name }) => name)
        assert.deepEqual(names, ['node1', 'node2', 'node3'])
        assert.ok(performance.now() - started < 7_000, 'nodes are requested in parallel')
      } finally {
        process.kill(node3.pid, 'SIGCONT')
      }
      // The request that timed out is withdrawn: it does not take effect later.
      await eventually('node3 answers again', async () => {
        const { connections } = await node1.operation<{ connections: Connection[] }>({ operation: 'cluster_status' })
        return connections[1]!.status === 'open'
      })
    })
  })
})
