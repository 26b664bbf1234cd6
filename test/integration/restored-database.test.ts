// A database restored from a copy, on real servers: what it commits then arrives, whatever its stream has lost meanwhile.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { parseDocument } from 'yaml'
import { eventually, quiet, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'
import { copyDatabase } from '../support/memory-host-copy.ts'

const dog = { database: 'dev', table: 'dog' }
const numbered = (prefix: string, count: number) => Array.from({ length: count }, (_, index) => `${prefix}-${index}`)

async function write({ host }: TestNode, ids: readonly string[]): Promise<void> {
  for (const id of ids) await host.write(id, insert('dog', { id }))
}

const received = (node: TestNode, from: TestNode) => node.host.from(from.name, 'dog').map(({ id }) => id)
const isConfirmed = ({ host }: TestNode) => eventually('everything is confirmed', () => host.outbox.length === 0)

/** Edits the limits of the streams of a closed node. */
async function limitStreams({ configFile }: TestNode, limits: object): Promise<void> {
  const document = parseDocument(await readFile(configFile, 'utf8'))
  document.setIn(['clustering', 'leafServer', 'streams'], limits)
  await writeFile(configFile, document.toString())
}

async function pair(t: { after(fn: () => unknown): void }): Promise<[TestNode, TestNode]> {
  const cluster = TestCluster.for(t)
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables: [['dev', 'dog']] })) as [
    TestNode,
    TestNode,
  ]
  await subscribe(node1, node2, { dog: 'publish' })
  await write(node1, numbered('old', 5))
  await quiet([node1, node2])
  return [node1, node2]
}

const losses: [
  name: string,
  lose: (node: TestNode) => Promise<unknown>,
  afterClose: (node: TestNode) => Promise<void>,
][] = [
  ['intact', async () => {}, async () => {}],
  ['purged', ({ cluster }) => cluster.purgeStream(dog), async () => {}],
  ['limited to its last messages', async () => {}, (node) => limitStreams(node, { maxMsgs: 2 })],
]

describe('the database is restored from a copy', { concurrency: 2 }, () => {
  for (const [name, lose, afterClose] of losses)
    for (const isAway of [false, true])
      test(`its stream is ${name}, the subscriber is ${isAway ? 'away' : 'up to date'}`, async (t) => {
        const [node1, node2] = await pair(t)
        const goBack = copyDatabase(node1.host)
        if (isAway) await node2.cluster.close()
        await write(node1, numbered('lost', 5))
        if (isAway) await isConfirmed(node1)
        else await quiet([node1, node2])
        await lose(node1)
        await node1.cluster.close()
        goBack()
        await afterClose(node1)
        await node1.reopen()
        if (isAway) await node2.reopen()
        // The last ones first: with a limit of two messages, older ones expire before they are read.
        for (const id of numbered('new', 7)) {
          await write(node1, [id])
          await eventually(`${id} arrives`, () => received(node2, node1).includes(id))
        }
        await quiet([node1, node2])
        const all = received(node2, node1)
        assert.equal(new Set(all).size, all.length, 'nothing is applied twice')
        const missing = numbered('lost', 5).filter((id) => !all.includes(id))
        const lost = node2.seen('replication:gap').reduce((sum, { lost }) => sum + lost!, 0)
        assert.equal(missing.length, lost, 'a gap names exactly what did not arrive')
        if (!isAway || name === 'intact') assert.deepEqual(missing, [])
        const [diverged, ...more] = node1.seen('replication:diverged')
        assert.deepEqual([diverged?.from, diverged?.to, more], [6, 10, []])
      })
})

describe('the process ends before its confirmations are stored', { concurrency: 2 }, () => {
  /** The messages of five transactions are stored and not confirmed, and `lose` takes some of them away. */
  async function unconfirmed(t: { after(fn: () => unknown): void }, lose: (node: TestNode) => Promise<unknown>) {
    const [node1, node2] = await pair(t)
    const { host } = node1
    // The beginning of an epoch is stored.
    host.confirmPublished = (confirmation) =>
      confirmation.upTo
        ? Promise.reject(new Error('the disk of the database is full'))
        : MemoryHost.prototype.confirmPublished.call(host, confirmation)
    await node1.reopen()
    await write(node1, numbered('unconfirmed', 5))
    const all = [...numbered('old', 5), ...numbered('unconfirmed', 5)]
    await eventually('they arrive', () => received(node2, node1).length === all.length)
    await lose(node1)
    await node1.cluster.close()
    host.confirmPublished = MemoryHost.prototype.confirmPublished
    assert.equal(node1.host.outbox.length, 5)
    return { node1, node2, all }
  }

  test('and a limit has deleted some of its messages: the others prove them, and nothing is sent again', async (t) => {
    const { node1, node2, all } = await unconfirmed(t, async () => {})
    await limitStreams(node1, { maxMsgs: 2 })
    await node1.reopen()
    await write(node1, ['new'])
    await quiet([node1, node2])
    assert.deepEqual(received(node2, node1), [...all, 'new'])
    assert.deepEqual([node1.seen('replication:diverged'), node2.seen('replication:gap')], [[], []])
  })

  test('and its stream was purged: nothing proves them, and they are sent again', async (t) => {
    const { node1, node2, all } = await unconfirmed(t, ({ cluster }) => cluster.purgeStream(dog))
    await node1.reopen()
    await write(node1, ['new'])
    await quiet([node1, node2])
    assert.deepEqual(received(node2, node1), [...all, ...numbered('unconfirmed', 5), 'new'])
    assert.deepEqual(
      node1.seen('replication:diverged').map(({ from, to }) => [from, to]),
      [[6, 10]],
    )
    assert.deepEqual(node2.seen('replication:gap'), [])
  })
})
