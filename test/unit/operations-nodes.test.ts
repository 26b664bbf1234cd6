// add_node, update_node, set_node_replication, remove_node and configure_cluster through `execute`.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { clusterError } from '../../lib/errors.ts'
import { execute } from '../../lib/operations/index.ts'
import { errorOf, openContext, superUser } from './operations-context.ts'

const dog = { schema: 'dev', table: 'dog', publish: true, subscribe: false }
const cat = { schema: 'dev', table: 'cat', publish: true, subscribe: true }
const names = (nodes: readonly { name: string }[]) => nodes.map(({ name }) => name)

describe('add_node', () => {
  it('returns the added subscriptions, normalized', async (test) => {
    const { context, store, fakes } = await openContext(test)
    const request = {
      operation: 'add_node',
      node_name: 'node2',
      subscriptions: [
        { table: 'bird', subscribe: 'true', publish: 'false', extra: 1 },
        { database: 'dev', schema: 'dev', table: 'dog', subscribe: true, publish: true },
        { schema: 'dev', table: 'dog', subscribe: false, publish: true, start_time: '2022-09-02T22:06:35.993+02:00' },
      ],
    }
    assert.deepEqual(await execute(context, request, superUser), {
      message: "Successfully added 'node2' to manifest",
      added: [
        { schema: 'data', table: 'bird', publish: false, subscribe: true },
        { ...dog, start_time: '2022-09-02T20:06:35.993Z' },
      ],
      skipped: [],
    })
    assert.equal(fakes.calls.length, 1)
    assert.deepEqual(names(store.manifest.nodes), ['node2'])
  })

  it('rejects a node that was already added', async (test) => {
    const { context, fakes } = await openContext(test)
    const request = { operation: 'add_node', node_name: 'X', subscriptions: [dog] }
    // Of two concurrent requests the second finds the node of the first.
    const [first, second] = await Promise.allSettled([
      execute(context, request, superUser),
      execute(context, request, superUser),
    ])
    assert.equal(first.status, 'fulfilled')
    assert.equal(
      second.status === 'rejected' && second.reason.message,
      "Node 'X' has already been added, perform update_node to proceed.",
    )
    assert.equal(fakes.calls.length, 1)
  })

  it('does not wait for requests about another node', async (test) => {
    const { context, fakes } = await openContext(test)
    let open = () => {}
    fakes.gates.set(
      'slow',
      new Promise<void>((resolve) => {
        open = resolve
      }),
    )
    const slow = execute(context, { operation: 'add_node', node_name: 'slow', subscriptions: [dog] }, superUser)
    await execute(context, { operation: 'add_node', node_name: 'quick', subscriptions: [dog] }, superUser)
    // A request about all nodes waits for the slow one, and later requests wait for both.
    const all = execute(context, { operation: 'configure_cluster', connections: [] }, superUser)
    const last = execute(context, { operation: 'add_node', node_name: 'quick', subscriptions: [dog] }, superUser)
    open()
    await Promise.all([slow, all, last])
    assert.deepEqual(names(context.store.manifest.nodes), ['quick'])
  })

  it('returns the skipped subscriptions', async (test) => {
    const { context, fakes } = await openContext(test)
    fakes.unknownTables.add('cat')
    const request = { operation: 'add_node', node_name: 'node2', subscriptions: [dog, cat] }
    assert.deepEqual(await execute(context, request, superUser), {
      message:
        'Some subscriptions were unsuccessful due to schema and/or tables not existing on the local or remote node',
      added: [dog],
      skipped: [{ ...cat, reason: 'the table exists on neither node' }],
    })
    assert.deepEqual(await execute(context, { ...request, node_name: 'node3', subscriptions: [cat] }, superUser), {
      message: 'Unable to create subscriptions due to schema and/or tables not existing on the local or remote node',
      added: [],
      skipped: [{ ...cat, reason: 'the table exists on neither node' }],
    })
    assert.deepEqual(names(context.store.manifest.nodes), ['node2'])
  })

  it('rejects with the failure of the peer', async (test) => {
    const { context, fakes } = await openContext(test)
    fakes.failures.set('node9', clusterError('node_timeout', 'add_node', 'node9'))
    assert.deepEqual(
      await errorOf(execute(context, { operation: 'add_node', node_name: 'node9', subscriptions: [dog] }, superUser)),
      [504, "Unable to add_node, node 'node9' is listening but did not respond."],
    )
  })

  it('reports every issue of a body', async (test) => {
    const { context, fakes } = await openContext(test)
    const add = (body: object) => errorOf(execute(context, { operation: 'add_node', ...body }, superUser))
    const one = (body: object) => add({ node_name: 'n', subscriptions: [{ ...dog, ...body }] })
    const cases: [object, string][] = [
      [{}, "'node_name' is required. 'subscriptions' is required"],
      [{ node_name: null, subscriptions: null }, "'node_name' is required. 'subscriptions' must be an array"],
      [
        { node_name: 5, subscriptions: [] },
        "'node_name' must be a string. 'subscriptions' must contain at least 1 items",
      ],
      [
        { node_name: '', subscriptions: 'x' },
        "'node_name' is not allowed to be empty. 'subscriptions' must be an array",
      ],
      [{ node_name: 'a.b', subscriptions: [dog] }, "'node_name' invalid, must not contain ., * or >"],
      [{ node_name: 'node1', subscriptions: [dog] }, "'node_name' cannot be this nodes name"],
      [
        { node_name: 'n', subscriptions: [{}, null] },
        "'subscriptions[0].table' is required. 'subscriptions[0].subscribe' is required. 'subscriptions[0].publish' is required. 'subscriptions[1]' must be of type object",
      ],
      [
        { node_name: 'n', subscriptions: [{ table: null, subscribe: null, publish: 'x', start_time: 'x' }] },
        "'subscriptions[0].table' must be a string. 'subscriptions[0].subscribe' must be a boolean. 'subscriptions[0].publish' must be a boolean. 'subscriptions[0].start_time' must be in ISO 8601 date format",
      ],
      [
        { node_name: 'n', subscriptions: [dog, { ...dog, publish: false }] },
        "'subscriptions[1]' subscribe and/or publish must be set to true when adding a node",
      ],
    ]
    for (const [body, message] of cases) assert.deepEqual(await add(body), [400, message])
    for (const name of ['a b', 'a,b', 'a*', 'a>', 'a/b', 'a\n'])
      assert.deepEqual(await add({ node_name: name, subscriptions: [dog] }), [
        400,
        "'node_name' invalid, must not contain ., * or >",
      ])
    assert.deepEqual(await one({ start_time: '2022-09-02' }), [
      400,
      "'subscriptions[0].start_time' must be in ISO 8601 date format",
    ])
    for (const start_time of [5, null, {}])
      assert.deepEqual(await one({ start_time }), [400, "'subscriptions[0].start_time' must be a valid date"])
    assert.deepEqual(await one({ database: 'other' }), [
      400,
      "'subscriptions[0].database' and 'subscriptions[0].schema' must be the same",
    ])
    assert.deepEqual(await one({ table: '' }), [400, "'subscriptions[0].table' is not allowed to be empty"])
    for (const table of ['my dog', 'a.b', '*', 'a\t'])
      assert.deepEqual(await one({ table }), [
        400,
        `'${table}' cannot be replicated: a name must not contain blanks, control characters, '.', '*' or '>'`,
      ])
    assert.deepEqual(fakes.calls, [])
  })
})

describe('update_node and set_node_replication', () => {
  it('add a missing node, and change only the named tables', async (test) => {
    const { context, store, fakes } = await openContext(test)
    const run = (operation: string, ...subscriptions: object[]) =>
      execute(context, { operation, node_name: 'node2', subscriptions }, superUser)
    assert.deepEqual(await run('update_node', dog), {
      message: "Successfully updated 'node2'",
      updated: [dog],
      skipped: [],
    })
    const off = { ...dog, publish: false }
    assert.deepEqual(await run('set_node_replication', cat, off), {
      message: "Successfully updated 'node2'",
      updated: [cat, off],
      skipped: [],
    })
    assert.deepEqual(store.manifest.nodes[0]?.subscriptions, [
      { database: 'dev', table: 'dog', publish: false, subscribe: false },
      { database: 'dev', table: 'cat', publish: true, subscribe: true },
    ])
    fakes.unknownTables.add('cat')
    assert.deepEqual(await run('update_node', cat), {
      message: 'Unable to update subscriptions due to schema and/or tables not existing on the local or remote node',
      updated: [],
      skipped: [{ ...cat, reason: 'the table exists on neither node' }],
    })
    assert.deepEqual(
      fakes.calls.map((call) => (call[3] as { operation: string }).operation),
      ['update_node', 'set_node_replication', 'update_node'],
    )
  })
})

describe('remove_node', () => {
  it('accepts node_name or name', async (test) => {
    const { context, store, fakes } = await openContext(test)
    const remove = (body: object) => execute(context, { operation: 'remove_node', ...body }, superUser)
    for (const node_name of ['a', 'b', 'c'])
      await execute(context, { operation: 'add_node', node_name, subscriptions: [dog] }, superUser)
    assert.deepEqual(await remove({ node_name: 'a' }), { message: "Successfully removed 'a' from manifest" })
    assert.deepEqual(await remove({ name: 'b', node_name: null }), {
      message: "Successfully removed 'b' from manifest",
    })
    fakes.unreachable.add('c')
    assert.deepEqual(await remove({ name: 'c', node_name: 'c' }), {
      message:
        "Successfully removed 'c' from local manifest, however there was an error reaching remote node. Check the logs for more details.",
    })
    assert.deepEqual(store.manifest.nodes, [])
  })

  it('rejects an invalid or unknown node', async (test) => {
    const { context } = await openContext(test)
    const remove = (body: object) => errorOf(execute(context, { operation: 'remove_node', ...body }, superUser))
    assert.deepEqual(await remove({}), [400, "'node_name' is required"])
    assert.deepEqual(await remove({ name: 'a', node_name: 'b' }), [400, "'node_name' and 'name' must be the same"])
    assert.deepEqual(await remove({ name: 'a.b' }), [400, "'name' invalid, must not contain ., * or >"])
    assert.deepEqual(await remove({ name: 'node1' }), [400, "'node_name' cannot be this nodes name"])
    assert.deepEqual(await remove({ name: 'x' }), [400, "Node 'x' was not found."])
  })
})

describe('configure_cluster', () => {
  const connect = (node_name: string, ...subscriptions: object[]) => ({ node_name, subscriptions })

  it('replaces the nodes of the manifest by the connections, in their order', async (test) => {
    const { context, store, fakes } = await openContext(test)
    const run = (...connections: object[]) =>
      execute(context, { operation: 'configure_cluster', connections }, superUser)
    assert.deepEqual(await run(connect('x', dog), connect('y', dog, cat)), {
      message: 'Cluster successfully configured.',
      connections: [
        { node_name: 'x', subscriptions: { message: "Successfully added 'x' to manifest", added: [dog], skipped: [] } },
        {
          node_name: 'y',
          subscriptions: { message: "Successfully added 'y' to manifest", added: [dog, cat], skipped: [] },
        },
      ],
    })
    fakes.calls.length = 0
    await run(connect('z', dog), connect('y', cat))
    assert.deepEqual(store.manifest.nodes, [
      { name: 'z', subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: false }] },
      { name: 'y', subscriptions: [{ database: 'dev', table: 'cat', publish: true, subscribe: true }] },
    ])
    assert.deepEqual(fakes.calls.map(([method, node]) => `${method} ${node}`).toSorted(), [
      'remove x',
      'subscribe y',
      'subscribe z',
    ])
    assert.deepEqual(await run(), { message: 'Cluster successfully configured.', connections: [] })
    assert.deepEqual(store.manifest.nodes, [])
  })

  it('continues without nodes that do not answer, and keeps them pending', async (test) => {
    const { context, store, fakes } = await openContext(test)
    await execute(context, { operation: 'add_node', node_name: 'node8', subscriptions: [cat] }, superUser)
    fakes.failures.set('node8', clusterError('peer_rejected', 'node8', 'no'))
    fakes.failures.set('node9', clusterError('node_not_listening', 'configure_cluster', 'node9'))
    const connections = [connect('node9', dog), connect('node2', dog), connect('node8', dog)]
    assert.deepEqual(await execute(context, { operation: 'configure_cluster', connections }, superUser), {
      message:
        'Configure cluster was partially successful. Errors occurred when attempting to configure the following nodes. Check the logs for more details.',
      connections: [
        {
          node_name: 'node2',
          subscriptions: { message: "Successfully added 'node2' to manifest", added: [dog], skipped: [] },
        },
      ],
      failed_nodes: ['node9', 'node8'],
    })
    assert.deepEqual(names(store.manifest.nodes), ['node9', 'node2', 'node8'])
    const scheduled = fakes.calls.filter(([method]) => method === 'pending').map(([, node]) => node)
    assert.deepEqual(scheduled, ['node9', 'node8'])
    for (const { subscriptions } of store.manifest.nodes)
      assert.deepEqual(
        subscriptions.map(({ table }) => table),
        ['dog'],
      )
  })

  it('skips a table that exists on neither node', async (test) => {
    const { context, store, fakes } = await openContext(test)
    await execute(context, { operation: 'add_node', node_name: 'x', subscriptions: [dog] }, superUser)
    fakes.unknownTables.add('cat')
    const connections = [connect('x', cat), connect('y', cat)]
    const answer = await execute(context, { operation: 'configure_cluster', connections }, superUser)
    const message =
      'Unable to create subscriptions due to schema and/or tables not existing on the local or remote node'
    assert.deepEqual(
      (answer as { connections: unknown[] }).connections,
      ['x', 'y'].map((node_name) => ({
        node_name,
        subscriptions: { message, added: [], skipped: [{ ...cat, reason: 'the table exists on neither node' }] },
      })),
    )
    assert.deepEqual(store.manifest.nodes, [])
  })

  it('rejects if the local node fails', async (test) => {
    const { context, fakes } = await openContext(test)
    fakes.failures.set('x', clusterError('config_unwritable', 'f', 'full'))
    const request = { operation: 'configure_cluster', connections: [connect('x', dog)] }
    assert.equal((await errorOf(execute(context, request, superUser)))[0], 500)
  })

  it('plans a dry run and changes nothing', async (test) => {
    const { context, store, fakes } = await openContext(test)
    await execute(context, { operation: 'add_node', node_name: 'x', subscriptions: [dog, cat] }, superUser)
    await execute(context, { operation: 'add_node', node_name: 'y', subscriptions: [dog] }, superUser)
    const { manifest } = store
    fakes.calls.length = 0
    const connections = [connect('z', dog), connect('x', { ...dog, subscribe: true }, { ...dog, table: 'bird' })]
    assert.deepEqual(
      await execute(context, { operation: 'configure_cluster', connections, dry_run: 'true' }, superUser),
      {
        message: 'Cluster configuration planned.',
        plan: [
          { node_name: 'z', schema: 'dev', table: 'dog', action: 'add' },
          { node_name: 'x', schema: 'dev', table: 'dog', action: 'update' },
          { node_name: 'x', schema: 'dev', table: 'bird', action: 'add' },
          { node_name: 'x', schema: 'dev', table: 'cat', action: 'remove' },
          { node_name: 'y', schema: 'dev', table: 'dog', action: 'remove' },
        ],
      },
    )
    assert.equal(store.manifest, manifest)
    assert.deepEqual(fakes.calls, [])
  })

  it('reports every issue of a body', async (test) => {
    const { context } = await openContext(test)
    const run = (connections: unknown) =>
      errorOf(execute(context, { operation: 'configure_cluster', connections }, superUser))
    const cases: [unknown, string][] = [
      [undefined, "'connections' is required"],
      [null, "'connections' must be an array"],
      [
        [5, {}],
        "'connections[0]' must be of type object. 'connections[1].node_name' is required. 'connections[1].subscriptions' is required",
      ],
      [
        [{ node_name: null, subscriptions: [{ ...dog, publish: null }] }],
        "'connections[0].node_name' is required. 'connections[0].subscriptions[0].publish' must be a boolean",
      ],
      [[connect('a.b', dog)], "'connections[0].node_name' invalid, must not contain ., * or >"],
      [[connect('x', dog), connect('x', cat)], "'connections' must not name a node twice"],
      [[connect('x', dog), connect('node1', cat)], "'node_name' cannot be this nodes name"],
      [
        [connect('x', { ...dog, table: 'a b' })],
        "'a b' cannot be replicated: a name must not contain blanks, control characters, '.', '*' or '>'",
      ],
    ]
    for (const [connections, message] of cases) assert.deepEqual(await run(connections), [400, message])
  })
})
