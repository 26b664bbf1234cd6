// The cluster's password is renewed while everything runs.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { clusterPassword, eventually, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [['dev', 'dog']]
const received = (node: TestNode, from: TestNode) => node.host.from(from.name, 'dog').map(({ id }) => id)

test('a password that is renewed on one node after the other loses no transaction', async (t) => {
  const cluster = TestCluster.for(t)
  const renewed = `another ${clusterPassword}`
  let current = clusterPassword
  const logged: string[] = []
  const note = (details: unknown, text?: string) => void logged.push(`${JSON.stringify(details)} ${text}`)
  const logger = { debug: note, info: note, warn: note, error: note }
  const options = { password: async () => current, publishTimeout: 20_000, logger }
  const nodes = (await cluster.startAll(['node1', 'node2'], { tables, options })) as [TestNode, TestNode]
  const [node1, node2] = nodes
  await subscribe(node1, node2, { dog: 'both' })
  // The same once more is nothing.
  const leaf = await node1.pid('leaf')
  await node1.cluster.renewPassword()
  assert.equal(await node1.pid('leaf'), leaf)

  let on = true
  const written = nodes.map(() => 0)
  const writers = nodes.map(async (node, index) => {
    while (on) await node.host.write(`${node.name} ${++written[index]!}`, insert('dog', { id: `${written[index]}` }))
  })
  const more = async () => {
    const before = [...written]
    await eventually('both write on', () => written.every((count, index) => count > before[index]! + 10))
  }
  await more()
  current = renewed
  for (const node of nodes) {
    await node.cluster.renewPassword()
    await more()
  }
  on = false
  await Promise.all(writers)
  const all = (index: number) =>
    Array.from({ length: written[index]! }, (_, number) => `${nodes[index]!.name} ${number + 1}`)
  await eventually('the last ones arrive', () =>
    [received(node2, node1), received(node1, node2)].every((ids, index) => ids.at(-1) === all(index).at(-1)),
  )
  assert.deepEqual(received(node2, node1), all(0))
  assert.deepEqual(received(node1, node2), all(1))

  const routes = [node1.ports.cluster]
  await cluster.start('node3', { tables, routes, options: { password: clusterPassword } })
  await eventually('the old one is not good any more', () =>
    node1.seen('peer:refused').some(({ reason }) => /password/.test(reason ?? '')),
  )
  const node4 = await cluster.start('node4', { tables, routes, options: { password: renewed } })
  await eventually('the new one is', async () => (await node4.cluster.network()).nodes.length === 3)
  assert.doesNotMatch(logged.join('\n'), new RegExp(clusterPassword.slice(0, 12)))
  for (const { folder } of nodes)
    assert.ok((await readFile(join(folder, 'clustering', 'hub.json'), 'utf8')).includes(renewed))
})

test('a password that cannot be fetched leaves everything as it was', async (t) => {
  const cluster = TestCluster.for(t)
  let answer = async (): Promise<string> => clusterPassword
  const node = await cluster.start('node1', { tables, options: { password: () => answer() } })
  const leaf = await node.pid('leaf')
  for (const bad of [
    async () => '',
    async () => undefined as never,
    () => Promise.reject(new Error('the vault is closed')),
  ]) {
    answer = bad
    await assert.rejects(node.cluster.renewPassword(), { code: 'invalid_option', message: /option 'password'/ })
  }
  assert.equal(await node.pid('leaf'), leaf)
  await node.host.write('a', insert('dog', { id: 'a' }))
})
