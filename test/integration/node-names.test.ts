// Two processes with one name, and a node that gets another name, on real servers.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import {
  allMet,
  eventually,
  quiet,
  subscribe,
  subscriptionsOf,
  TestCluster,
  type TestNode,
} from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [['dev', 'dog']]
const write = (node: TestNode, id: string) => node.host.write(id, insert('dog', { id }))

async function rename(node: TestNode, name: string): Promise<void> {
  const text = await readFile(node.configFile, 'utf8')
  await writeFile(node.configFile, text.replace(/nodeName: .*/, `nodeName: ${name}`))
}

describe('the name of a node', { concurrency: true }, () => {
  test('a process that starts before the old one of its name ends takes part when that one is gone', async (t) => {
    const cluster = TestCluster.for(t)
    const old = await cluster.start('node1', { tables })
    const third = await cluster.start('node2', { tables, routes: [old.ports.cluster] })
    await allMet([old, third])
    const later = await cluster.start('node1', { tables, routes: [third.ports.cluster] })
    await eventually('the later one stands down', () => later.cluster.state === 'superseded')
    const waiting = write(later, 'waiting').catch(() => {})
    await subscribe(third, old, { dog: 'both' })
    await write(old, 'old')
    await eventually('the old one goes on', () => third.host.applied.includes('old'))
    await old.cluster.close()
    await eventually('the later one takes part', () => later.cluster.state === 'open', 120_000)
    await waiting
    await eventually('it can be asked', () =>
      later.cluster
        .updateNode({ node_name: 'node2', subscriptions: subscriptionsOf({ dog: 'both' }) })
        .catch(() => undefined),
    )
    await Promise.all([write(later, 'later'), write(third, 'third')])
    await eventually(
      'both directions work',
      () => third.host.applied.includes('later') && later.host.applied.includes('third'),
    )
    assert.equal(old.seen('node:superseded').length, 0)
    assert.deepEqual(
      later.seen('node:superseded').map(({ superseded }) => superseded),
      [true, false],
    )
  })

  test('a node that is renamed loses nothing: neither what was unread, nor what it commits first', async (t) => {
    const cluster = TestCluster.for(t)
    const node1 = await cluster.start('node1', { tables })
    const node2 = await cluster.start('node2', { tables, routes: [node1.ports.cluster] })
    await allMet([node1, node2])
    await subscribe(node1, node2, { dog: 'both' })
    await Promise.all([write(node1, 'a'), write(node2, 'b')])
    await quiet([node1, node2])
    await node1.cluster.close()
    await write(node2, 'unread')
    await node2.cluster.close()
    await rename(node2, 'berlin')
    await node1.reopen()
    await node2.reopen()
    await write(node2, 'first')
    await eventually('all of it arrives', () => node1.host.applied.includes('first'), 30_000)
    assert.deepEqual(node1.host.applied, ['b', 'unread', 'first'])
    await write(node1, 'c')
    await eventually('the other direction goes on', () => node2.host.applied.includes('c'), 30_000)
    assert.deepEqual([node1.seen('replication:gap'), node2.seen('replication:gap')], [[], []])
    await node1.cluster.removeNode({ node_name: 'node2' })
    await write(node2, 'last')
    await eventually('it goes on without the old name', () => node1.host.applied.includes('last'))
    assert.deepEqual(node1.host.applied, ['b', 'unread', 'first', 'last'])
  })
})
