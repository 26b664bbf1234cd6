// Names that the network cannot carry: which these are, and that they are refused wherever a name comes in.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import type { Problem } from '../../lib/index.ts'
import { nameProblems } from '../../lib/manifest/config-names.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import { isNodeName, isToken, tokenFault } from '../../lib/manifest/names.ts'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { unsupportedName } from '../../lib/mesh/nats/name-support.ts'
import { execute } from '../../lib/operations/index.ts'
import { eventually } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { dog, Scene } from '../support/memory-scene.ts'
import { openContext, superUser } from './operations-context.ts'
import { openStore } from './store-fixture.ts'

/** As an old nats-server has it. */
const noAtSign = (name: string) => (name.includes('@') ? "this server cannot carry '@'" : undefined)
const reason = "this server cannot carry '@'"

it('an at sign is carried by nats-server from 2.10.28 of 2.10 on, and from 2.11.2 on', () => {
  const carrying = ['2.10.28', '2.10.29', '2.11.2', '2.11.17', '2.12.0', '2.15.1', '3.0.0']
  const versions = ['2.9.0', '2.9.25', '2.10.0', '2.10.27', '2.11.0', '2.11.1', ...carrying]
  for (const version of versions) {
    const [major, minor, patch] = version.split('.').map(Number) as [number, number, number]
    assert.equal(unsupportedName('dog', [major, minor, patch]), undefined)
    for (const name of ['@', 'a@b', '@b', 'a@'])
      assert.equal(
        unsupportedName(name, [major, minor, patch]),
        carrying.includes(version)
          ? undefined
          : `nats-server ${version} cannot carry '@' in a name; 2.10.28 or later of 2.10, and 2.11.2 or later, can`,
      )
  }
})

it('a name has at most 255 characters, and all of them are characters', () => {
  for (const [name, fault] of [
    ['日'.repeat(255), undefined],
    ['x'.repeat(256), 'a name must have at most 255 characters'],
    ['a\ud83d', 'a name must be valid Unicode'],
    ['😀', undefined],
  ] as const) {
    assert.equal(tokenFault(name), fault)
    assert.equal(isToken(name), fault === undefined)
    assert.equal(isNodeName(name), fault === undefined)
  }
})

describe('an operation with a name that the network cannot carry', () => {
  const subscribed = (table: object) => ({ schema: 'dev', table: 'dog', publish: true, subscribe: true, ...table })
  const rejected = (code: string, message: string) => ({ code, statusCode: 400, message })

  it('is refused as names that are no part of a subject are', async (test) => {
    const { context, fakes, store } = await openContext(test)
    fakes.unsupported = noAtSign
    const requests = (node_name: string, subscriptions: object[]) => [
      { operation: 'add_node', node_name, subscriptions },
      { operation: 'update_node', node_name, subscriptions },
      { operation: 'set_node_replication', node_name, subscriptions },
      { operation: 'configure_cluster', connections: [{ node_name, subscriptions }] },
      { operation: 'configure_cluster', connections: [{ node_name, subscriptions }], dry_run: true },
    ]
    for (const [table, name] of [
      [{ table: 'a@b' }, 'a@b'],
      [{ schema: 'd@v' }, 'd@v'],
    ] as const)
      for (const request of requests('node2', [subscribed({}), subscribed(table)]))
        await assert.rejects(
          execute(context, request, superUser),
          rejected('name_not_replicable', `'${name}' cannot be replicated: ${reason}`),
          request.operation,
        )
    for (const request of requests('pi@garage', [subscribed({})])) {
      const path = request.operation === 'configure_cluster' ? 'connections[0].node_name' : 'node_name'
      await assert.rejects(
        execute(context, request, superUser),
        rejected('invalid_request', `'${path}' invalid, ${reason}`),
        request.operation,
      )
    }
    assert.deepEqual(fakes.calls, [])
    assert.deepEqual(store.manifest.nodes, [])
  })

  it('purges the stream of a local table, which is written all the same', async (test) => {
    const { context, fakes } = await openContext(test)
    fakes.unsupported = noAtSign
    fakes.tables = [{ database: 'dev', table: 'a@b', primaryKey: 'id', attributes: ['id'] }]
    await execute(context, { operation: 'purge_stream', database: 'dev', table: 'a@b' }, superUser)
    assert.deepEqual(fakes.calls, [['purge', 'dev', 'a@b', {}]])
  })
})

describe('the configuration file with a name that the network cannot carry', () => {
  const text = `clustering:
  enabled: true
  nodeName: pi@garage
  nodes:
    - name: node2
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true }
        - { database: dev, table: a@b, publish: true, subscribe: true }
    - name: no@de3
      subscriptions:
        - { database: d@v, table: dog, publish: true, subscribe: true }
`
  const good = text.replaceAll('@', '_')

  it('has a problem at each of them, and none without clustering', () => {
    const problems = (config: string) => {
      const lines: string[] = []
      for (const { line, column, path, message } of nameProblems(new ConfigText(config), noAtSign))
        lines.push(`${line}:${column} ${path} ${message}`)
      return lines
    }
    assert.deepEqual(problems(text), [
      `3:13 clustering.nodeName must not be 'pi@garage': ${reason}`,
      `8:35 clustering.nodes[0].subscriptions[1].table must not be 'a@b': ${reason}`,
      `9:13 clustering.nodes[1].name must not be 'no@de3': ${reason}`,
      `11:23 clustering.nodes[1].subscriptions[0].database must not be 'd@v': ${reason}`,
    ])
    assert.deepEqual(problems(text.replace('enabled: true', 'enabled: false')), [])
    assert.deepEqual(problems(good), [])
  })

  it('is rejected as a whole', async (test) => {
    const { store } = await openStore(test, text)
    assert.throws(() => store.restrictNames(noAtSign), {
      code: 'config_rejected',
      message: /line 3, column 13: clustering\.nodeName must not be 'pi@garage': this server/,
    })
  })

  it('is rejected when it is edited, and not overwritten, until the name is gone', async (test) => {
    const { store, path, listener } = await openStore(test, good)
    store.restrictNames(noAtSign)
    const before = store.manifest
    const bad = good.replace('a_b', 'a@b')
    await writeFile(path, bad)
    const { rejected } = await listener.next()
    assert.deepEqual(
      rejected?.map(({ line, path: where }) => [line, where]),
      [[8, 'clustering.nodes[0].subscriptions[1].table']],
    )
    await assert.rejects(
      store.commit((current) => current, 'api'),
      { code: 'config_rejected', message: /must not be 'a@b'/ },
    )
    assert.equal(store.manifest, before)
    assert.equal(await readFile(path, 'utf8'), bad)
    await writeFile(path, good.replace('a_b', 'cat'))
    const { commit } = await listener.next()
    assert.equal(commit?.cause, 'file')
  })
})

describe('of two nodes of which one has a network that cannot carry an at sign', () => {
  /** A node whose network is that of the others but for this. */
  const limited = (scene: Scene, test: TestContext) => {
    const mesh: Mesh = scene.network.mesh()
    mesh.nameCheck = async () => noAtSign
    test.after(() => mesh.close())
    return mesh
  }
  const at = { database: 'dev', table: 'a@b' }

  it('that one refuses what the other asks for, and tells the reason', async (test) => {
    const scene = new Scene(test)
    const old = await scene.start('old', { options: { mesh: limited(scene, test) } })
    const young = await scene.start('young')
    const garage = await scene.start('pi@garage')
    for (const { host } of [old, young]) await host.createTable({ ...at, primaryKey: 'id', attributes: ['id'] })
    const subscriptions = [{ ...at, publish: true, subscribe: true }]
    await assert.rejects(young.cluster.updateNode({ node_name: 'old', subscriptions }), {
      code: 'peer_rejected',
      message: `Error returned from remote node old: 'dev.a@b' cannot be replicated: ${reason}`,
    })
    const dogs = [{ ...dog, publish: true, subscribe: true }]
    await assert.rejects(garage.cluster.addNode({ node_name: 'old', subscriptions: dogs }), {
      code: 'peer_rejected',
      message: `Error returned from remote node old: 'node_name' invalid, ${reason}`,
    })
    assert.deepEqual(
      [old, young, garage].map(({ cluster }) => cluster.manifest.nodes),
      [[], [], []],
    )
    // The other two have no such limit.
    for (const { host } of [garage]) await host.createTable({ ...at, primaryKey: 'id', attributes: ['id'] })
    await young.cluster.addNode({ node_name: 'pi@garage', subscriptions })
    await young.host.write('a', insert('a@b', { id: 'a' }))
    await eventually('it arrives', () => garage.from(young, 'a@b').length === 1)
  })

  it('that one rejects its own such name at open, and such entries of an edited file with an event', async (test) => {
    const scene = new Scene(test)
    await assert.rejects(scene.start('pi@garage', { options: { mesh: limited(scene, test) } }), {
      code: 'config_rejected',
      message: /clustering\.nodeName must not be 'pi@garage': this server cannot carry '@'/,
    })
    const old = await scene.start('old', { options: { mesh: limited(scene, test) } })
    const problems: Problem[] = []
    old.cluster.on('config:rejected', (rejected) => void problems.push(...rejected.problems))
    const entry = { name: 'node2', subscriptions: [{ ...at, publish: true, subscribe: true }] }
    const file = await readFile(old.configFile, 'utf8')
    await writeFile(old.configFile, `${file}  nodes: ${JSON.stringify([entry])}\n`)
    await eventually('the event', () => problems.length > 0)
    assert.deepEqual(
      problems.map(({ path, message }) => [path, message]),
      [['clustering.nodes[0].subscriptions[0].table', `must not be 'a@b': ${reason}`]],
    )
    assert.deepEqual(old.cluster.manifest.nodes, [])
  })
})
