// A caller who is no super user is rejected before anything of the request is read.

import assert from 'node:assert/strict'
import { tracingChannel } from 'node:diagnostics_channel'
import { after, before, test } from 'node:test'
import type { Caller } from '../../lib/index.ts'
import { MemoryNetwork, startCluster, type TestingCluster } from '../../lib/testing.ts'

const unreadable = () => {
  throw new Error('the request was read')
}
/** Every way to look at it throws. */
const untouchable = new Proxy(
  {},
  {
    get: unreadable,
    has: unreadable,
    ownKeys: unreadable,
    getOwnPropertyDescriptor: unreadable,
    getPrototypeOf: unreadable,
  },
)
const requests: Record<string, unknown> = {
  undefined: undefined,
  null: null,
  'a string': 'cluster_status',
  'a number': 5,
  'an array': [{ operation: 'cluster_status' }],
  'an empty object': {},
  'an unknown operation': { operation: 'nothing_like_it' },
  'an operation that is no string': { operation: Object.create(null) },
  'a symbol as the operation': { operation: Symbol('operation') },
  'a getter that throws': Object.defineProperty({}, 'operation', { get: unreadable, enumerable: true }),
  'a proxy that throws': untouchable,
  'a very large body': {
    operation: 'add_node',
    node_name: 'x'.repeat(10_000_000),
    subscriptions: Array(100_000).fill({}),
  },
  'a valid request': { operation: 'cluster_set_routes', server: 'hub', routes: [{ host: 'h', port: 1 }] },
}
const callers: Record<string, unknown> = {
  nobody: undefined,
  null: null,
  'a caller without rights': { superUser: false, username: 'anna' },
  'a caller with a string for superUser': { superUser: 'true' },
}

let cluster: TestingCluster
const observer = { start() {}, end() {}, asyncStart() {}, asyncEnd() {}, error() {} }

before(async () => {
  // A trace names the operation, so it must not be started before the caller was checked.
  tracingChannel('enmesh:operation').subscribe(observer)
  cluster = await startCluster(1, { network: new MemoryNetwork() })
})
after(async () => {
  tracingChannel('enmesh:operation').unsubscribe(observer)
  await cluster.close()
})

for (const [caller, value] of Object.entries(callers))
  for (const [request, body] of Object.entries(requests))
    test(`${request} from ${caller} is forbidden`, async () => {
      const manager = cluster.node('node1').cluster
      await assert.rejects(manager.execute(body as object, value as Caller), { code: 'forbidden', statusCode: 403 })
      assert.deepEqual(manager.manifest.routes, { hub: [], leaf: [] })
    })

test('a super user gets an error that says what is wrong', async () => {
  const manager = cluster.node('node1').cluster
  const run = (body: unknown) => manager.execute(body as object, { superUser: true })
  for (const body of [undefined, null, 'cluster_status', 5, [], {}, { operation: null }, { operation: '' }])
    await assert.rejects(run(body), { code: 'operation_missing', statusCode: 400 })
  for (const operation of [Object.create(null), Symbol('operation'), 5, ['add_node'], 'nothing_like_it'])
    await assert.rejects(run({ operation }), { code: 'operation_unknown', statusCode: 400 })
})
