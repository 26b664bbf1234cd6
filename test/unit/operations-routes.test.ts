// The route operations through `execute`, and the checks that all operations share.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { execute, operations, type SetRoutesResponse } from '../../lib/operations/index.ts'
import { enabledText, errorOf, openContext, superUser } from './operations-context.ts'

const a = { host: 'a', port: 1 }
const b = { host: 'b', port: 2 }

describe('every operation', () => {
  it('is for super users only, and checks the caller first', async (test) => {
    const { context } = await openContext(test)
    const text = 'This operation is not authorized due to role restrictions and/or invalid database items'
    for (const caller of [undefined, { superUser: false }, { superUser: 'yes' as unknown as boolean }])
      for (const request of [{}, { operation: 'nonsense' }, { operation: 'cluster_set_routes' }, null])
        assert.deepEqual(await errorOf(execute(context, request, caller)), [403, text])
  })

  it('rejects a missing or unknown operation', async (test) => {
    const { context } = await openContext(test)
    for (const request of [undefined, null, {}, { operation: null }, { operation: '' }, 'x'])
      assert.deepEqual(await errorOf(execute(context, request, superUser)), [
        400,
        "Request body must include an 'operation' property.",
      ])
    for (const operation of ['X', 'constructor', '__proto__', 'toString'])
      assert.deepEqual(await errorOf(execute(context, { operation }, superUser)), [
        400,
        `Operation '${operation}' not found`,
      ])
    assert.deepEqual(await errorOf(execute(context, { operation: 5 }, superUser)), [400, "Operation '5' not found"])
  })

  it('requires clustering, except for routes and status, and checks that before the body', async (test) => {
    const { context } = await openContext(test, 'clustering:\n  enabled: false\n  nodeName: node1\n')
    const rejected: string[] = []
    for (const operation of Object.keys(operations)) {
      try {
        await execute(context, { operation, server: 'hub', routes: [] }, superUser)
      } catch (error) {
        assert.equal((error as Error).message, 'Clustering must be enabled to perform this operation.')
        rejected.push(operation)
      }
    }
    assert.equal(rejected.length, 10)
    assert.deepEqual(await execute(context, { operation: 'cluster_status' }, superUser), {
      node_name: 'node1',
      is_enabled: false,
      connections: [],
    })
  })

  it('does nothing if it was aborted before it started', async (test) => {
    const { context, store } = await openContext(test)
    const request = { operation: 'cluster_set_routes', server: 'hub', routes: [a] }
    const answer = execute(context, request, superUser, { signal: AbortSignal.abort() })
    assert.deepEqual(await errorOf(answer), [499, 'Unable to cluster_set_routes, the caller aborted it.'])
    assert.deepEqual(store.manifest.routes.hub, [])
  })
})

describe('routes', () => {
  it('are set, returned and deleted', async (test) => {
    const { context, path } = await openContext(test)
    const run = (request: object) => execute(context, request, superUser)
    assert.deepEqual(
      await run({ operation: 'cluster_set_routes', server: 'hub', routes: [a, b, { host: 'A', port: '1' }] }),
      {
        message: 'cluster routes successfully set',
        set: [a, b],
        skipped: [{ host: 'A', port: 1 }],
      },
    )
    assert.deepEqual(
      await run({ operation: 'cluster_set_routes', server: 'leaf', routes: [b, { host: '::1', port: ' 3 ' }] }),
      {
        message: 'cluster routes successfully set',
        set: [{ host: '::1', port: 3 }],
        skipped: [b],
      },
    )
    assert.deepEqual(await run({ operation: 'cluster_get_routes' }), { hub: [a, b], leaf: [{ host: '::1', port: 3 }] })
    assert.match(await readFile(path, 'utf8'), /- host: a\n +port: 1\n/)
    assert.deepEqual(
      await run({
        operation: 'cluster_delete_routes',
        routes: [{ host: '[::1]', port: 3 }, { host: 'B', port: '2' }, { host: 'c', port: 1 }, a],
      }),
      {
        message: 'cluster routes successfully deleted',
        deleted: [{ host: '[::1]', port: 3 }, { host: 'B', port: 2 }, a],
        skipped: [{ host: 'c', port: 1 }],
      },
    )
    assert.deepEqual(await run({ operation: 'cluster_get_routes' }), { hub: [], leaf: [] })
    assert.match(await readFile(path, 'utf8'), /routes: null/)
  })

  it('accept an empty list', async (test) => {
    const { context, path, listener } = await openContext(test)
    assert.deepEqual(
      await execute(context, { operation: 'cluster_set_routes', server: 'hub', routes: [] }, superUser),
      {
        message: 'cluster routes successfully set',
        set: [],
        skipped: [],
      },
    )
    assert.deepEqual(await execute(context, { operation: 'cluster_delete_routes', routes: [] }, superUser), {
      message: 'cluster routes successfully deleted',
      deleted: [],
      skipped: [],
    })
    assert.equal(await readFile(path, 'utf8'), enabledText)
    assert.equal(listener.pending, 0)
  })

  it('are applied one request at a time', async (test) => {
    const { context, store } = await openContext(test)
    const routes = Array.from({ length: 10 }, (_, index) => ({ host: `h${index}`, port: 1 }))
    const answers = await Promise.all(
      [1, 2, 3].map(() => execute(context, { operation: 'cluster_set_routes', server: 'hub', routes }, superUser)),
    )
    assert.deepEqual(
      answers.map((answer) => (answer as SetRoutesResponse).set.length),
      [10, 0, 0],
    )
    assert.equal(store.manifest.routes.hub.length, 10)
  })

  it('report every invalid route, and change nothing', async (test) => {
    const { context, store, path } = await openContext(test)
    const set = (body: object) => errorOf(execute(context, { operation: 'cluster_set_routes', ...body }, superUser))
    const cases: [object, string][] = [
      [{}, "'server' is required. 'routes' is required"],
      [{ server: null, routes: null }, "'server' must be one of [hub, leaf]. 'routes' is required"],
      [{ server: 'both', routes: {} }, "'server' must be one of [hub, leaf]. 'routes' must be an array"],
      [{ server: 'hub', routes: [5] }, "'routes[0]' must be of type object"],
      [{ server: 'hub', routes: [a, {}] }, "'routes[1].host' is required. 'routes[1].port' is required"],
      [
        { server: 'hub', routes: [{ host: '', port: '' }] },
        "'routes[0].host' is not allowed to be empty. 'routes[0].port' must be a number",
      ],
      [
        { server: 'hub', routes: [{ host: null, port: null }] },
        "'routes[0].host' must be a string. 'routes[0].port' must be a number",
      ],
      [
        { server: 'hub', routes: [{ host: 5, port: 1.5 }] },
        "'routes[0].host' must be a string. 'routes[0].port' must be an integer",
      ],
      [
        {
          server: 'hub',
          routes: [
            { host: 'a', port: 0 },
            { host: 'a', port: -1 },
          ],
        },
        "'routes[0].port' must be greater than or equal to 1. 'routes[1].port' must be greater than or equal to 1",
      ],
      [{ server: 'hub', routes: [{ host: 'a', port: 70000 }] }, "'routes[0].port' must be less than or equal to 65535"],
    ]
    for (const [body, message] of cases) assert.deepEqual(await set(body), [400, message])
    for (const host of ['two words', 'a/b', 'user:pw@h', 'h:1', ' a', 'a '])
      assert.deepEqual(await set({ server: 'hub', routes: [a, { host, port: 1 }] }), [
        400,
        "'routes[1].host' must be a valid host",
      ])
    const remove = execute(context, { operation: 'cluster_delete_routes' }, superUser)
    assert.deepEqual(await errorOf(remove), [400, "'routes' is required"])
    assert.deepEqual(store.manifest.routes, { hub: [], leaf: [] })
    assert.equal(await readFile(path, 'utf8'), enabledText)
  })

  it('drop unknown keys', async (test) => {
    const { context, path } = await openContext(test)
    const request = { operation: 'cluster_set_routes', server: 'hub', routes: [{ ...a, password: 'x' }], more: 1 }
    assert.deepEqual(await execute(context, request, superUser), {
      message: 'cluster routes successfully set',
      set: [a],
      skipped: [],
    })
    assert.ok(!(await readFile(path, 'utf8')).includes('password'))
  })
})
