// User names and passwords of every kind, and rotation of the password at run time.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { clusterPassword, eventually, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [['dev', 'dog']]
const received = (node: TestNode, from: TestNode) => node.host.from(from.name, 'dog').map(({ id }) => id)

test('password rotation on one node after the other loses no transaction', async (t) => {
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
  // The same password has no effect.
  const leaf = await node1.pid('leaf')
  await node1.cluster.rotatePassword()
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
    await node.cluster.rotatePassword()
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
    node1.seen('connection:rejected').some(({ reason }) => /password/.test(reason ?? '')),
  )
  const node4 = await cluster.start('node4', { tables, routes, options: { password: renewed } })
  await eventually('the new one is', async () => (await node4.cluster.network()).nodes.length === 3)
  assert.doesNotMatch(logged.join('\n'), new RegExp(clusterPassword.slice(0, 12)))
  for (const { directory } of nodes)
    assert.ok((await readFile(join(directory, 'clustering', 'hub.json'), 'utf8')).includes(renewed))
})

test('a failure to read the password changes nothing', async (t) => {
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
    await assert.rejects(node.cluster.rotatePassword(), { code: 'invalid_option', message: /Option 'password'/ })
  }
  assert.equal(await node.pid('leaf'), leaf)
  await node.host.write('a', insert('dog', { id: 'a' }))
})

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => String.fromCodePoint(from + index)).join('')

/** Texts with special characters of nats-server's configuration, of URLs, or of the protocol. */
const credentials: Record<string, string> = {
  'control characters': range(0, 31),
  'printable ASCII characters': range(32, 126),
  'letters of other scripts': '\u007f\u0080ü日本語😀\u2028\ufeff\ufffd',
  'the name of a variable': '$PATH',
  'a number with a suffix': '1k',
  'an escape': '\\x41\\u0041\\n\\',
  'the longest in ASCII': 'x'.repeat(512),
  'the longest in escapes': '<\u0001'.repeat(73),
}

for (const [kind, text] of Object.entries(credentials))
  test(`nodes with ${kind} as user name and password replicate with each other`, async (t) => {
    const cluster = TestCluster.for(t)
    const password = kind.startsWith('the longest') ? text + text : text
    const nodes = await cluster.startAll(['node1', 'node2'], {
      tables,
      clustering: { user: text },
      options: { password },
    })
    const [node1, node2] = nodes as [TestNode, TestNode]
    await eventually('each sees the other', async () =>
      (await Promise.all(nodes.map((node) => node.cluster.network()))).every((network) => network.nodes.length === 2),
    )
    await subscribe(node1, node2, { dog: 'both' })
    for (const node of nodes) await node.host.write(`of ${node.name}`, insert('dog', { id: node.name }))
    await eventually('both rows arrive', () =>
      [received(node2, node1), received(node1, node2)].every((ids) => ids.length === 1),
    )
    assert.deepEqual([node1.seen('connection:rejected'), node2.seen('connection:rejected')], [[], []])
  })

/** Passwords that nats-server does not accept, and the reported reason. */
const unusable: [password: string, message: RegExp][] = [
  ['$2a$11$', /has the form of a bcrypt hash/],
  ['$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234', /has the form of a bcrypt hash/],
  ['secret\ud83d', /must be valid Unicode/],
  ['secret'.repeat(171), /must have at most 1024 bytes as JSON, it has 1026$/],
]

test('an invalid password is rejected at open and at rotation, and is not printed', async (t) => {
  const cluster = TestCluster.for(t)
  let current = clusterPassword
  const node = await cluster.start('node1', { tables, options: { password: async () => current } })
  const leaf = await node.pid('leaf')
  for (const [password, message] of unusable) {
    const refusal = (error: { code: string; message: string }) => {
      assert.equal(error.code, 'invalid_option')
      assert.match(error.message, message)
      assert.ok(!error.message.includes(password) && !error.message.includes('secret'), error.message)
      return true
    }
    await assert.rejects(cluster.start('node2', { options: { password } }), refusal)
    current = password
    await assert.rejects(node.cluster.rotatePassword(), refusal)
  }
  assert.equal(await node.pid('leaf'), leaf)
  current = credentials['control characters']!
  await node.cluster.rotatePassword()
  assert.notEqual(await node.pid('leaf'), leaf)
  await node.host.write('a', insert('dog', { id: 'a' }))
})

test('an invalid user name is rejected', async (t) => {
  const cluster = TestCluster.for(t)
  for (const [user, message] of [
    ['x'.repeat(513), /'clustering.user' must have at most 512 bytes as JSON, it has 513$/],
    ['x\ud83d', /'clustering.user' must be valid Unicode/],
  ] as const)
    await assert.rejects(cluster.start('node1', { clustering: { user } }), { code: 'config_rejected', message })
})
