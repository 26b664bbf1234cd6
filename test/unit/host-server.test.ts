// The HTTP API of the reference host: the answer of every operation, the shape of errors, and authorization.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { clusterError } from '../../lib/errors.ts'
import { HybridClock } from '../../lib/host/hybrid-clock.ts'
import type { Caller, Transaction } from '../../lib/index.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Database } from '../host/database.ts'
import { createServer } from '../host/server.ts'
import { Users } from '../host/users.ts'

const admin = 'admin:secret'
const plain = 'anna:open sesame: you'

const forwarded: { request: unknown; caller: Caller | undefined }[] = []
const published: Transaction[] = []
const logged: object[] = []
let isUnready = false
let url: string
let database: Database
let close: () => Promise<void>

before(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'host-'))
  database = await Database.open(directory)
  const clock = new HybridClock('node1', 300_000)
  database.timestamp = () => clock.timestamp()
  database.publish = async (transaction) => void published.push(transaction)
  const server = createServer({
    database,
    users: new Users([
      { username: 'admin', password: 'secret', role: 'super_user' },
      { username: 'anna', password: 'open sesame: you', role: 'reader' },
      { username: 'mesh', password: 'mesh', role: 'cluster_user' },
    ]),
    cluster: {
      ...{ replicated: async () => {}, token: async () => '', caughtUp: async () => {} },
      health: () => ({ ready: !isUnready, degraded: [{ code: 'isolated', message: 'no other node is reached' }] }),
      execute: async (request, caller) => {
        forwarded.push({ request, caller })
        const { operation } = (request ?? {}) as { operation?: unknown }
        if (operation === 'boom') throw new Error('an internal error')
        if (operation === 'cluster_status') return { node_name: 'node1', is_enabled: false, connections: [] }
        if (!caller?.superUser) throw clusterError('forbidden')
        if (operation === undefined) throw clusterError('operation_missing')
        throw clusterError('operation_unknown', String(operation))
      },
    },
    logger: { debug() {}, info() {}, warn() {}, error: (details) => void logged.push(details) },
  })
  url = await server.listen({ host: '127.0.0.1', port: 0 })
  close = async () => {
    await server.close()
    await database.close()
    await rm(directory, { recursive: true })
  }
})
after(() => close())

type Answer = [status: number, body: unknown]

async function send(
  body: string | undefined,
  headers: Record<string, string>,
  method = 'POST',
  path = '/',
): Promise<Answer> {
  const response = await fetch(url + path, { method, headers, ...(body !== undefined && { body }) })
  assert.match(response.headers.get('content-type') ?? '', /^application\/json/)
  return [response.status, await response.json()]
}

const basic = (user: string) => ({ authorization: `Basic ${Buffer.from(user).toString('base64')}` })
const post = (body: unknown, user = admin) =>
  send(JSON.stringify(body), { 'content-type': 'application/json', ...basic(user) })

async function succeeds(body: object, expected: unknown, user = admin): Promise<void> {
  const [status, answer] = await post(body, user)
  // Answers of writes contain the timestamp, which differs each time.
  const { timestamp, ...rest } = answer as { timestamp?: unknown }
  if (timestamp !== undefined) assert.match(String(timestamp), /^[0-9a-f]{12}-/)
  assert.deepEqual([status, timestamp === undefined ? answer : rest], [200, expected])
}
async function fails(body: unknown, status: number, error: string | RegExp, user = admin): Promise<void> {
  const [actual, answer] = await post(body, user)
  const text = (answer as { error: string }).error
  if (typeof error === 'string') assert.equal(text, error)
  else assert.match(text, error)
  assert.equal(actual, status)
  if (status !== 403) assert.deepEqual(Object.keys(answer as object), ['error'])
}

const forbidden = {
  error: 'This operation is not authorized due to role restrictions and/or invalid database items',
  unauthorized_access: [],
  invalid_schema_items: [],
}

test('databases and tables are created, described and dropped', async () => {
  await succeeds({ operation: 'create_schema', schema: 'zoo' }, { message: "database 'zoo' successfully created" })
  await fails({ operation: 'create_database', database: 'zoo' }, 409, "database 'zoo' already exists")
  const lion = { operation: 'create_table', schema: 'zoo', table: 'lion', hash_attribute: 'id' }
  await succeeds(lion, { message: "table 'zoo.lion' successfully created." })
  await fails(lion, 409, "Table 'lion' already exists in 'zoo'")
  await succeeds(
    { operation: 'create_table', table: 'cat', primary_key: 'name', attributes: [{ name: 'age', type: 'Int' }] },
    { message: "table 'data.cat' successfully created." },
  )
  const described = {
    schema: 'zoo',
    name: 'lion',
    hash_attribute: 'id',
    schema_defined: false,
    attributes: [{ attribute: 'id', is_primary_key: true }],
    record_count: 0,
  }
  await succeeds({ operation: 'describe_table', schema: 'zoo', table: 'lion' }, described, plain)
  await succeeds({ operation: 'describe_schema', schema: 'zoo' }, { lion: described })
  const [, all] = await post({ operation: 'describe_all' }, plain)
  assert.deepEqual(Object.keys(all as object), ['data', 'zoo'])
  assert.deepEqual((all as { data: { cat: { attributes: unknown } } }).data.cat.attributes, [
    { attribute: 'name', is_primary_key: true },
    { attribute: 'age' },
  ])
  const drop = { operation: 'drop_table', database: 'zoo', table: 'lion' }
  await succeeds(drop, { message: "successfully deleted table 'zoo.lion'" })
  await fails(drop, 404, "Table 'zoo.lion' does not exist")
  await succeeds({ operation: 'drop_schema', schema: 'zoo' }, { message: "successfully deleted 'zoo'" })
  await fails({ operation: 'drop_database', database: 'zoo' }, 404, "database 'zoo' does not exist")
  await fails({ operation: 'drop_database' }, 400, "'database' is required")
  await fails({ operation: 'describe_database', database: 'zoo' }, 404, "database 'zoo' does not exist")
  await succeeds({ operation: 'drop_database', database: 'data' }, { message: "successfully deleted 'data'" })
})

test('names and primary keys of tables are checked', async () => {
  const create = { operation: 'create_table', database: 'dev', primary_key: 'id' }
  await fails(create, 400, "'table' is required")
  await fails({ ...create, table: '' }, 400, "'table' is not allowed to be empty")
  await fails({ ...create, table: 7 }, 400, "'table' must be a string")
  await fails({ ...create, table: 'a/b' }, 400, /cannot include backticks, forward slashes/)
  await fails({ ...create, table: 'x'.repeat(251) }, 400, "'table' cannot exceed 250 characters")
  await fails({ ...create, table: 't', database: 'a`b' }, 400, /'database' names cannot include backticks/)
  await fails({ ...create, table: 't', primary_key: undefined }, 400, "'primary_key' is required")
  await fails({ ...create, table: 't', attributes: [7] }, 400, "'attributes[0].name' is required")
})

test('records are inserted, updated, upserted and deleted, each request one transaction', async () => {
  await post({ operation: 'create_table', schema: 'dev', table: 'dog', hash_attribute: 'id' })
  const dog = { schema: 'dev', table: 'dog' }
  published.length = 0
  const insert = {
    operation: 'insert',
    ...dog,
    records: [
      { id: 1, name: 'Harper' },
      { id: 2, name: 'Penny' },
    ],
  }
  const all = { message: 'inserted 2 of 2 records', inserted_hashes: [1, 2], skipped_hashes: [] }
  await succeeds(insert, all, plain)
  await succeeds(insert, { message: 'inserted 0 of 2 records', inserted_hashes: [], skipped_hashes: [1, 2] })
  await succeeds(
    {
      operation: 'update',
      ...dog,
      records: [
        { id: 1, age: 5 },
        { id: 9, age: 5 },
      ],
    },
    { message: 'updated 1 of 2 records', update_hashes: [1], skipped_hashes: [9] },
  )
  const [, upserted] = await post({ operation: 'upsert', ...dog, records: [{ id: 2 }, { id: 3 }, { name: 'Kato' }] })
  const { message, upserted_hashes: hashes } = upserted as { message: string; upserted_hashes: unknown[] }
  assert.equal(message, 'upserted 3 of 3 records')
  assert.deepEqual(hashes.slice(0, 2), [2, 3])
  assert.match(String(hashes[2]), /^[0-9a-f-]{36}$/)
  await succeeds(
    { operation: 'delete', ...dog, hash_values: [2, 77] },
    { message: '1 of 2 records successfully deleted', deleted_hashes: [2], skipped_hashes: [77] },
  )
  await succeeds(
    { operation: 'delete', database: 'dev', table: 'dog', ids: [3] },
    { message: '1 of 1 record successfully deleted', deleted_hashes: [3], skipped_hashes: [] },
  )
  const [status, kept] = await post({
    operation: 'search_by_hash',
    ...dog,
    hash_values: [1, 2, 3],
    get_attributes: ['*'],
  })
  assert.deepEqual([status, kept], [200, [{ id: 1, name: 'Harper', age: 5 }]])
  assert.deepEqual(
    published.map(({ user, writes }) => [user, ...writes.map(({ operation }) => operation)]),
    [
      ['anna', 'insert'],
      ['admin', 'update'],
      ['admin', 'upsert'],
      ['admin', 'delete'],
      ['admin', 'delete'],
    ],
  )
  const [, described] = await post({ operation: 'describe_table', ...dog })
  assert.equal((described as { record_count: number }).record_count, 2)
})

test('invalid bodies of writes are rejected and change nothing', async () => {
  await post({ operation: 'create_table', schema: 'dev', table: 'bird', hash_attribute: 'id' })
  const bird = { schema: 'dev', table: 'bird' }
  await fails({ operation: 'insert', ...bird }, 400, "'records' is required")
  await fails({ operation: 'insert', ...bird, records: {} }, 400, "'records' must be an array")
  await fails({ operation: 'insert', ...bird, records: [{ id: 1 }, null] }, 400, "'records[1]' must be of type object")
  await fails({ operation: 'insert', ...bird, records: [{ id: 1 }, { id: {} }] }, 400, /primary key must be/)
  await fails({ operation: 'insert', ...bird, records: [{ id: 1 }, { id: 2, '': 1 }] }, 400, /attribute name/)
  await fails(
    { operation: 'update', ...bird, records: [{ age: 1 }] },
    400,
    'a valid hash attribute must be provided with update record',
  )
  await fails({ operation: 'delete', ...bird, ids: 'all' }, 400, "'ids' must be an array")
  await fails({ operation: 'delete', ...bird, ids: [null] }, 400, "'ids[0]' must be a string or a number")
  await fails(
    { operation: 'insert', table: 'x', records: [{}], schema: 'nowhere' },
    404,
    "database 'nowhere' does not exist",
  )
  await fails({ operation: 'insert', schema: 'dev', table: 'x', records: [{}] }, 404, "Table 'dev.x' does not exist")
  await succeeds({ operation: 'sql', sql: 'SELECT count(*) AS c FROM dev.bird' }, [{ c: 0 }])
})

test('records are searched by id and by value', async () => {
  await post({ operation: 'create_table', schema: 'dev', table: 'fish', hash_attribute: 'id' })
  const fish = { schema: 'dev', table: 'fish' }
  const records = [
    { id: 1, name: 'Kyle', age: 5, tags: ['a'] },
    { id: 2, name: 'Sky', age: '5' },
    { id: 3, name: null },
  ]
  await post({ operation: 'insert', ...fish, records })
  const byName = { operation: 'search_by_value', ...fish, search_attribute: 'name', get_attributes: ['id'] }
  await succeeds({ ...byName, search_value: 'Ky*' }, [{ id: 1 }])
  await succeeds({ ...byName, search_value: '*ky' }, [{ id: 2 }])
  await succeeds({ ...byName, search_value: '*k*' }, [{ id: 2 }])
  await succeeds({ ...byName, search_value: '*' }, [{ id: 1 }, { id: 2 }])
  await succeeds({ ...byName, search_value: 'Ky' }, [])
  const byAge = { operation: 'search_by_value', database: 'dev', table: 'fish', attribute: 'age' }
  await succeeds({ ...byAge, value: 5, get_attributes: ['id', 'color'] }, [{ id: 1, color: null }])
  await succeeds({ ...byAge, attribute: 'tags', value: ['a'] }, [records[0]])
  await fails({ ...byAge, attribute: undefined }, 400, "'search_attribute' is required")
  await fails({ ...byAge }, 400, "'search_value' is required")
  await fails({ ...byAge, value: 5, get_attributes: [1] }, 400, "'get_attributes[0]' must be a string")
  await succeeds({ operation: 'search_by_id', ...fish, ids: [2, 9], get_attributes: ['name'] }, [{ name: 'Sky' }])
  await fails({ operation: 'search_by_id', schema: 'dev', table: 'no', ids: [1] }, 404, "Table 'dev.no' does not exist")
})

test('SQL supports two forms of SELECT', async () => {
  await post({ operation: 'create_table', schema: 'sea', table: 'crab', hash_attribute: 'id' })
  await post({
    operation: 'insert',
    schema: 'sea',
    table: 'crab',
    records: [
      { id: 1, a: 1, b: 1 },
      { id: 2, a: 2 },
    ],
  })
  const sql = (text: unknown) => ({ operation: 'sql', sql: text })
  await succeeds(sql('SELECT count(*) AS c FROM sea.crab'), [{ c: 2 }])
  await succeeds(sql('select COUNT( * ) from `sea`.crab;'), [{ 'COUNT(*)': 2 }])
  await succeeds(sql('\n select a ,"b"\n from sea.crab ; '), [
    { a: 1, b: 1 },
    { a: 2, b: null },
  ])
  await succeeds(sql('select * from sea.crab'), [
    { id: 1, a: 1, b: 1 },
    { id: 2, a: 2 },
  ])
  for (const text of ['DELETE FROM sea.crab', 'select a from sea.crab where a = 1', 'select', 'x'.repeat(1e6)]) {
    await fails(sql(text), 400, /Unsupported SQL|is not a valid name/)
  }
  await fails(sql('select a+b from sea.crab'), 400, /is not a valid name/)
  await fails(sql(7), 400, "'sql' must be a string")
  await fails(sql('select a from sea.none'), 404, "Table 'sea.none' does not exist")
  const long = `select ${' from '.repeat(1e5)}`
  await fails(sql(long), 400, /SQL|is not a valid name/)
})

test('answers contain dates, bigints and binary values as JSON', async () => {
  await post({ operation: 'create_table', schema: 'dev', table: 'odd', hash_attribute: 'id' })
  await database.transact('admin', (write) =>
    write.insert('dev', 'odd', [
      {
        id: 1,
        date: new Date(0),
        small: 5n,
        large: 2n ** 64n,
        bytes: Buffer.from('hi'),
        array: new Uint8Array([104, 105]),
      },
    ]),
  )
  await succeeds({ operation: 'search_by_id', schema: 'dev', table: 'odd', ids: [1] }, [
    { id: 1, date: '1970-01-01T00:00:00.000Z', small: 5, large: '18446744073709551616', bytes: 'aGk=', array: 'aGk=' },
  ])
  await succeeds(
    { operation: 'search_by_value', schema: 'dev', table: 'odd', attribute: 'small', value: 5, get_attributes: ['id'] },
    [{ id: 1 }],
  )
})

test('a caller without valid credentials gets 401 on every path', async () => {
  const json = { 'content-type': 'application/json' }
  const body = JSON.stringify({ operation: 'describe_all' })
  assert.deepEqual(await send(body, json), [401, { error: 'Must login' }])
  assert.deepEqual(await send(undefined, {}, 'GET', '/nowhere'), [401, { error: 'Must login' }])
  const wrong = ['admin:wrong', 'nobody:secret', 'admin', 'admin:', ':', '', 'anna:open sesame', 'toString:x']
  for (const user of wrong)
    assert.deepEqual(await send(body, { ...json, ...basic(user) }), [401, { error: 'Login failed' }])
  const bearer = { ...json, authorization: `Bearer ${Buffer.from(admin).toString('base64')}` }
  assert.deepEqual(await send(body, bearer), [401, { error: 'Login failed' }])
})

test('ordinary users and the cluster user cannot change the schema', async () => {
  for (const user of [plain, 'mesh:mesh']) {
    for (const operation of [
      'create_schema',
      'create_database',
      'create_table',
      'drop_table',
      'drop_schema',
      'drop_database',
    ]) {
      assert.deepEqual(await post({ operation, database: 'dev', table: 'dog' }, user), [403, forbidden])
    }
  }
})

test('all other operations are forwarded to the cluster with the caller', async () => {
  forwarded.length = 0
  const status = { operation: 'cluster_status' }
  await succeeds(status, { node_name: 'node1', is_enabled: false, connections: [] }, plain)
  assert.deepEqual(forwarded, [{ request: status, caller: { username: 'anna', superUser: false } }])
  await fails({ operation: 'fly' }, 400, "Operation 'fly' not found")
  await fails({ operation: 'toString' }, 400, "Operation 'toString' not found")
  assert.deepEqual(await post({ operation: 'add_node' }, plain), [403, forbidden])
  for (const body of [{}, [], null, 'text', 7])
    await fails(body, 400, "Request body must include an 'operation' property.")
  await fails({ operation: 'boom' }, 500, /^There was an error processing your request/)
  assert.match(String((logged.at(-1) as { error: Error }).error), /an internal error/)
})

test("the HTTP framework's own errors have the same shape", async () => {
  const login = basic(admin)
  const json = { 'content-type': 'application/json', ...login }
  const shape = async (answer: Promise<Answer>, status: number) => {
    const [actual, body] = await answer
    assert.deepEqual([actual, Object.keys(body as object)], [status, ['error']])
    assert.equal(typeof (body as { error: unknown }).error, 'string')
  }
  await shape(send('{ not json', json), 400)
  await shape(send('', json), 400)
  await shape(send('{"__proto__": {}}', json), 400)
  await shape(send('<a/>', { ...login, 'content-type': 'text/xml' }), 415)
  await shape(send(undefined, login, 'GET'), 404)
  await shape(send('{}', json, 'POST', '/nowhere'), 404)
  await shape(send(undefined, login, 'GET', '/%zz'), 400)
  const [status, { error }] = (await send(undefined, login)) as [number, { error: string }]
  assert.deepEqual([status, error], [400, "Request body must include an 'operation' property."])
})

test('a body over the limit and data that is not HTTP are rejected in the same shape', async () => {
  const raw = async (text: string) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    socket.setEncoding('utf8')
    let answer = ''
    socket.on('data', (chunk) => {
      answer += chunk
    })
    socket.write(text)
    await once(socket, 'end')
    socket.destroy()
    const [head = '', body = ''] = answer.split('\r\n\r\n')
    return [head.split('\r\n')[0], Object.keys(JSON.parse(body))]
  }
  const headers = `Host: x\r\nContent-Type: application/json\r\nAuthorization: ${basic(admin).authorization}\r\nConnection: close`
  assert.deepEqual(await raw(`POST / HTTP/1.1\r\n${headers}\r\nContent-Length: 999999999\r\n\r\n`), [
    'HTTP/1.1 413 Payload Too Large',
    ['error'],
  ])
  assert.deepEqual(await raw('garbage\r\n\r\n'), ['HTTP/1.1 400 Bad Request', ['error']])
})

test('probes need no credentials, and show the conditions to a super user', async () => {
  const probe = async (path: string, headers: Record<string, string> = {}) => send(undefined, headers, 'GET', path)
  const degraded = [{ code: 'isolated', message: 'no other node is reached' }]
  for (const path of ['/healthz', '/readyz']) {
    assert.deepEqual(await probe(path), [200, { ready: true }])
    assert.deepEqual(await probe(path, basic(plain)), [200, { ready: true }])
    assert.deepEqual(await probe(path, basic(admin)), [200, { ready: true, degraded }])
    assert.deepEqual(await probe(path, basic('admin:wrong')), [401, { error: 'Login failed' }])
  }
  isUnready = true
  assert.deepEqual(await probe('/healthz'), [200, { ready: false }])
  assert.deepEqual(await probe('/readyz'), [503, { ready: false }])
  assert.deepEqual(await probe('/readyz', basic(admin)), [503, { ready: false, degraded }])
  isUnready = false
  assert.equal((await probe('/other'))[0], 401)
})

test('a connection without a request does not hold up the end of the server', { timeout: 20_000 }, async () => {
  const server = createServer({
    database,
    users: new Users([]),
    cluster: { health: () => ({ ready: true, degraded: [] }) } as never,
    logger: silentLogger,
  })
  const { port } = new URL(await server.listen({ host: '127.0.0.1', port: 0 }))
  const arrived = once(server.server, 'connection')
  const unused = connect(Number(port), '127.0.0.1')
  const ended = once(unused, 'close')
  await arrived
  await server.close()
  await ended
})
