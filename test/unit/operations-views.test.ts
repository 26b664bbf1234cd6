// cluster_status, cluster_network and purge_stream through `execute`.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ClusterError } from '../../lib/errors.ts'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { execute } from '../../lib/operations/index.ts'
import type { ClusterStatusResponse } from '../../lib/operations/status.ts'
import { openContext, superUser } from './operations-context.ts'

const rejected = (message: string) => (error: unknown) =>
  error instanceof ClusterError && error.statusCode === 400 && error.message === message

const dog = { schema: 'dev', table: 'dog', publish: true, subscribe: false }

describe('cluster_status', () => {
  it('returns every connection in the order of the manifest', async (test) => {
    const { context, fakes } = await openContext(test)
    for (const node_name of ['up', 'down'])
      await execute(context, { operation: 'add_node', node_name, subscriptions: [dog] }, superUser)
    fakes.peers.set('up', {
      status: 'open',
      latency: 12.6,
      uptime: '1h 0m 0s',
      ports: { clustering: 9932, operations_api: 9925 },
      systemInfo: { hdb_version: '1.0.0', node_version: '20.20.2', platform: 'linux' },
    })
    assert.deepEqual(await execute(context, { operation: 'cluster_status' }, superUser), {
      node_name: 'node1',
      is_enabled: true,
      connections: [
        {
          node_name: 'up',
          status: 'open',
          ports: { clustering: 9932, operations_api: 9925 },
          latency_ms: 13,
          uptime: '1h 0m 0s',
          subscriptions: [dog],
          system_info: { hdb_version: '1.0.0', node_version: '20.20.2', platform: 'linux' },
        },
        { node_name: 'down', status: 'NoResponders', ports: {}, subscriptions: [dog] },
      ],
    })
  })

  it('returns gaps and lost transactions, only for tables that had a gap', async (test) => {
    const { context, fakes } = await openContext(test)
    const cat = { ...dog, table: 'cat' }
    await execute(context, { operation: 'add_node', node_name: 'up', subscriptions: [dog, cat] }, superUser)
    fakes.losses.set('up cat', { gaps: 2, lost: 30 })
    const { connections } = (await execute(
      context,
      { operation: 'cluster_status' },
      superUser,
    )) as ClusterStatusResponse
    assert.deepEqual(connections[0]?.subscriptions, [dog, { ...cat, gaps: 2, lost: 30 }])
  })
})

describe('cluster_network', () => {
  const member = { node: 'node1', responseTime: 3.4, connectedNodes: ['node2'], routes: [{ host: 'a', port: 1 }] }

  it('returns the answers of the hubs, without the omitted fields', async (test) => {
    const { context, fakes } = await openContext(test)
    fakes.members = async () => [member]
    const run = (body: object) => execute(context, { operation: 'cluster_network', ...body }, superUser)
    const whole = { name: 'node1', response_time: 3, connected_nodes: ['node2'], routes: [{ host: 'a', port: 1 }] }
    assert.deepEqual(await run({}), { nodes: [whole] })
    assert.deepEqual(await run({ connected_nodes: 'false', routes: false, timeout: '50' }), { nodes: [whole] })
    assert.deepEqual(await run({ connected_nodes: true, routes: 'true' }), {
      nodes: [{ name: 'node1', response_time: 3 }],
    })
    assert.deepEqual(
      fakes.calls.map((call) => (call[1] as { timeout: number }).timeout),
      [2000, 50, 2000],
    )
  })

  it('is empty if no hub answers', async (test) => {
    const { context, fakes } = await openContext(test)
    fakes.members = async () => {
      throw new MeshError('disconnected')
    }
    assert.deepEqual(await execute(context, { operation: 'cluster_network' }, superUser), { nodes: [] })
  })

  it('reports every issue of a body', async (test) => {
    const { context } = await openContext(test)
    const run = (body: object) => execute(context, { operation: 'cluster_network', ...body }, superUser)
    await assert.rejects(
      run({ timeout: 'x', connected_nodes: 1, routes: null }),
      rejected("'timeout' must be a number. 'connected_nodes' must be a boolean. 'routes' must be a boolean"),
    )
    await assert.rejects(run({ timeout: 0 }), rejected("'timeout' must be greater than or equal to 1"))
    await assert.rejects(run({ timeout: null }), rejected("'timeout' must be a number"))
  })
})

describe('purge_stream', () => {
  it('purges the whole stream, or with keep or seq a part of it', async (test) => {
    const { context, fakes } = await openContext(test)
    fakes.tables.push({ database: 'data', table: 'cat', primaryKey: 'id', attributes: [] })
    const run = (body: object) => execute(context, { operation: 'purge_stream', ...body }, superUser)
    assert.deepEqual(await run({ database: 'dev', table: 'dog' }), { message: "Successfully purged table 'dev.dog'" })
    assert.deepEqual(await run({ schema: 'dev', table: 'dog', options: { keep: '0', other: 1 } }), {
      message: "Successfully purged table 'dev.dog'",
    })
    assert.deepEqual(await run({ table: 'cat', options: { seq: 5 } }), {
      message: "Successfully purged table 'data.cat'",
    })
    await run({ table: 'cat', options: null })
    assert.deepEqual(fakes.calls, [
      ['purge', 'dev', 'dog', {}],
      ['purge', 'dev', 'dog', { keep: 0 }],
      ['purge', 'data', 'cat', { before: 5 }],
      ['purge', 'data', 'cat', {}],
    ])
  })

  it('rejects invalid bodies and unknown tables', async (test) => {
    const { context, fakes } = await openContext(test)
    const run = (body: object) =>
      execute(context, { operation: 'purge_stream', database: 'dev', table: 'dog', ...body }, superUser)
    const cases: [object, string][] = [
      [{ table: undefined }, "'table' is required"],
      [{ database: 5, table: null }, "'database' must be a string. 'table' must be a string"],
      [{ schema: 'x' }, "'database' and 'schema' must be the same"],
      [{ options: 5 }, "'options' must be of type object"],
      [{ options: [] }, "'options' must be of type object"],
      [{ options: { keep: 1, seq: 1 } }, 'can specify one of keep or seq'],
      [{ options: { keep: -1 } }, "'options.keep' must be greater than or equal to 0"],
      [{ options: { seq: 1.5 } }, "'options.seq' must be an integer"],
      [{ options: { keep: null } }, "'options.keep' must be a number"],
      [{ table: 'cow' }, "Table 'cow' does not exist"],
      [{ database: 'x' }, "Database 'x' does not exist. Table 'dog' does not exist"],
      [
        { table: 'a b' },
        "'a b' cannot be replicated: a name must not contain blanks, control characters, '.', '*' or '>'",
      ],
    ]
    for (const [body, message] of cases) await assert.rejects(run(body), rejected(message), message)
    assert.deepEqual(fakes.calls, [])
  })
})
