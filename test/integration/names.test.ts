// Names of nodes, databases and tables on real servers: carried in both directions, or rejected with the reason.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { isNodeName, isToken } from '../../lib/manifest/names.ts'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { unsupportedName } from '../../lib/mesh/nats/name-support.ts'
import { allMet, eventually, TestCluster, type TestNode } from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import { insert } from '../support/memory-host.ts'

const { version } = await findBinary()
const unsupported = (name: string) => unsupportedName(name, version)
const carriesAtSign = unsupported('@') === undefined
const reason =
  /nats-server \d+\.\d+\.\d+ cannot carry '@' in a name; 2\.10\.28 or later of 2\.10, and 2\.11\.2 or later, can$/

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => String.fromCodePoint(from + index))
const ascii = range(0x21, 0x7e).filter((character) => !/[a-z0-9]/i.test(character))
/** Names with a special meaning as the first token of a subject, or otherwise unusual. */
const special = ['$JS', '$SYS', '$LDS', '_INBOX', '_R_', '_GR_', 'txn', 'ünï', '日本語', '😀', '\ufffd', '1e5', 'true']

const both = (tables: readonly [database: string, table: string][]) =>
  tables.map(([database, table]) => ({ database, table, publish: true, subscribe: true }))

const rowOf = (database: string, table: string, id: string) => ({ ...insert(table, { id }), database })

/** Subscribes both nodes to these tables, writes a row on each, and resolves when all rows have arrived. */
async function exchange(node1: TestNode, node2: TestNode, tables: readonly [database: string, table: string][]) {
  const answer = await node1.cluster.updateNode({ node_name: node2.name, subscriptions: both(tables) })
  assert.deepEqual(answer.skipped, [])
  for (const node of [node1, node2])
    await Promise.all(
      tables.map(([database, table], index) =>
        node.host.write(`${node.name} ${index}`, rowOf(database, table, node.name)),
      ),
    )
  const missing = () =>
    [node1, node2].flatMap(({ name, cluster }) =>
      cluster
        .subscriptions()
        .filter(({ state, appliedSequence }) => state !== 'live' || appliedSequence !== 1)
        .map(({ source }) => `${source.database}.${source.table} on ${name}`),
    )
  await eventually(
    () => `every row arrives, missing are ${missing().slice(0, 5).join(', ')}`,
    () => missing().length === 0,
    30_000,
  )
  for (const { cluster } of [node1, node2]) assert.equal(cluster.subscriptions().length, tables.length)
}

test('databases and tables with any valid name replicate, for all characters and positions', async (t) => {
  const names = [
    // Each position for itself in a long run.
    ...ascii.flatMap((character) =>
      isLong ? [`${character}b`, `a${character}b`, `a${character}`] : [`${character}a${character}b${character}`],
    ),
    ...ascii,
    ...special,
  ]
  const usable = [...names.filter(isToken), 'x'.repeat(255), '日'.repeat(255)].filter((name) => !unsupported(name))
  const tables = usable.map((name): [string, string] => [name, name])
  const cluster = TestCluster.for(t)
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables })) as [TestNode, TestNode]
  await allMet([node1, node2])
  await exchange(node1, node2, tables)
})

/** Names with every valid character at the beginning, in the middle and at the end. */
const characters = ascii.filter((character) => isNodeName(character) && !unsupported(character))
const nodeNames = [
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((group) => {
    const some = characters.filter((_, index) => index % 8 === group).join('')
    return `${some}a${some}b${some}`
  }),
  ...special,
  '日'.repeat(255),
]

test('a node with any valid name replicates', async (t) => {
  const tables: [string, string][] = [['dev', 'dog']]
  const cluster = TestCluster.for(t)
  const hub = await cluster.start('node1', { tables })
  for (const name of nodeNames) {
    const node = await cluster.start(name, { tables, routes: [hub.ports.cluster] })
    await eventually(`${name} reaches node1`, async () => {
      const answer = await node.cluster
        .updateNode({ node_name: 'node1', subscriptions: both(tables) })
        .catch(() => undefined)
      return answer?.skipped.length === 0
    })
    await node.host.write(`of ${name}`, insert('dog', { id: name }))
    await hub.host.write(`for ${name}`, insert('dog', { id: name }))
    await eventually(
      `rows of ${name} and node1 arrive`,
      () => hub.host.from(name, 'dog').length === 1 && node.host.from('node1', 'dog').at(-1)?.id === `for ${name}`,
    )
    await node.cluster.close()
  }
})

test('names with an at sign are carried', { skip: !carriesAtSign }, async (t) => {
  const tables: [string, string][] = ['@', 'a@b', '@b', 'a@', 'a@b@c'].flatMap((name) => [
    ['dev', name],
    [name, 'dog'],
  ])
  const cluster = TestCluster.for(t)
  const [node1, node2] = (await cluster.startAll(['pi@garage', '@@'], { tables })) as [TestNode, TestNode]
  await allMet([node1, node2])
  await exchange(node1, node2, tables)
})

test('names with an at sign are rejected with the reason', { skip: carriesAtSign }, async (t) => {
  const tables: [string, string][] = [
    ['dev', 'dog'],
    ['dev', 'a@b'],
    ['d@v', 'dog'],
  ]
  const cluster = TestCluster.for(t)
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables })) as [TestNode, TestNode]
  await allMet([node1, node2])
  for (const table of tables.slice(1))
    await assert.rejects(
      node1.cluster.updateNode({ node_name: 'node2', subscriptions: both([['dev', 'dog'], table]) }),
      { code: 'name_not_replicable', statusCode: 400, message: reason },
    )
  await assert.rejects(node1.cluster.addNode({ node_name: 'pi@garage', subscriptions: both([['dev', 'dog']]) }), {
    code: 'invalid_request',
    statusCode: 400,
    message: reason,
  })
  await assert.rejects(cluster.start('pi@garage'), { code: 'config_rejected', statusCode: 409, message: reason })

  const file = await readFile(node1.configFile, 'utf8')
  const entry = { name: 'node2', subscriptions: both([['dev', 'a@b']]) }
  await writeFile(node1.configFile, `${file}  nodes: ${JSON.stringify([entry])}\n`)
  await eventually('the edit is rejected', () => node1.seen('config:rejected').length > 0)
  const [problem] = node1.seen('config:rejected')[0]!.problems
  assert.equal(problem?.path, 'clustering.nodes[0].subscriptions[0].table')
  assert.match(problem.message, reason)
  await writeFile(node1.configFile, file)

  // Such local tables have no effect on others, before and after a restart.
  await eventually('the file is good again', () =>
    node1.cluster.updateNode({ node_name: 'node2', subscriptions: both([['dev', 'dog']]) }).catch(() => undefined),
  )
  const rows = async (id: string) => {
    for (const [database, table] of tables)
      await node1.host.write(`${id} ${database} ${table}`, rowOf(database, table, id))
    await eventually(`row ${id} arrives`, () =>
      node2.host.from('node1', 'dog').some((each) => each.id === `${id} dev dog`),
    )
  }
  await rows('before')
  await node1.reopen()
  await rows('after')
  assert.deepEqual(node1.cluster.metrics()?.publish.rejected, 0)
  await node1.cluster.purgeStream({ database: 'dev', table: 'a@b' })
})
