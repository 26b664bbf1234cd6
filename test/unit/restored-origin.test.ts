// The stream and the database of a node are restored together from an older copy: what it writes then has the epoch and the running
// numbers of transactions that other nodes have applied. Nodes to which it comes through a relaying node apply it nevertheless.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Transaction } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { commit, insertInto } from '../support/committed.ts'
import { copyDatabase } from '../support/memory-host-copy.ts'
import { has, outcome } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }

/** Rows cannot be copied: transactions alone bring them. */
function hostWithoutCopies(): MemoryHost {
  const host = new MemoryHost({ tables: [dog] })
  Object.assign(host, { readRows: undefined })
  return host
}

type Cluster = Awaited<ReturnType<typeof open>>

/** `subscriptions`: pairs of names, the first one subscribes to the second one. By default all nodes relay, and copy nothing. */
async function open(
  test: TestContext,
  names: readonly string[],
  subscriptions: readonly (readonly [string, string])[],
  { host = hostWithoutCopies, relays = true } = {},
) {
  const network = new MemoryNetwork()
  const cluster = await startCluster(names, {
    network,
    subscribe: false,
    host,
    clustering: () => ({ republishMessages: relays }),
  })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const node = (name: string): ClusterNode => cluster.nodes.find((each) => each.name === name)!
  for (const [subscriber, source] of subscriptions) {
    const publish = subscriptions.some(([other, of]) => other === source && of === subscriber)
    const request = { node_name: source, subscriptions: [{ ...dog, publish, subscribe: true }] }
    await node(subscriber).cluster.updateNode(request)
  }
  return { network, cluster, node, origin: node('origin') }
}

const insert = async ({ host }: ClusterNode, ...ids: string[]) => {
  for (const id of ids) await host.insert('dev', 'dog', { id })
}

const allHave = ({ cluster }: Cluster, ...ids: string[]) =>
  eventually(`all nodes have ${ids}`, () => cluster.nodes.every((each) => ids.every((id) => has(each, id))))

/** Stops the origin; the returned function goes back to the state of `snapshot`. */
async function snapshot({ network, origin }: Cluster): Promise<() => Promise<void>> {
  await eventually('everything is confirmed', () => origin.host.outbox.length === 0)
  const [restoreStreams, restoreDatabase] = [network.snapshotDisk('origin'), copyDatabase(origin.host)]
  return async () => {
    await origin.stop()
    restoreStreams()
    restoreDatabase()
    await origin.start()
  }
}

describe('a restored origin', { timeout: 60_000 }, () => {
  it('behind a relaying node: what it writes next arrives', async (test) => {
    const opened = await open(
      test,
      ['origin', 'relay', 'last'],
      [
        ['relay', 'origin'],
        ['last', 'relay'],
      ],
    )
    const { origin } = opened
    await insert(origin, 'old 1', 'old 2')
    await allHave(opened, 'old 1', 'old 2')
    const restore = await snapshot(opened)
    await insert(origin, 'lost 1', 'lost 2', 'lost 3')
    await allHave(opened, 'lost 1', 'lost 2', 'lost 3')
    await restore()
    await insert(origin, 'new 1', 'new 2', 'new 3', 'new 4')
    await allHave(opened, 'new 1', 'new 2', 'new 3', 'new 4')
  })

  it('whose next transactions come through a relaying node that never read the lost ones', async (test) => {
    const opened = await open(
      test,
      ['origin', 'relay', 'other', 'last'],
      [
        ['relay', 'origin'],
        ['other', 'origin'],
        ['last', 'relay'],
        ['last', 'other'],
      ],
    )
    const { origin, network, node } = opened
    await insert(origin, 'old 1', 'old 2')
    await allHave(opened, 'old 1', 'old 2')
    const restore = await snapshot(opened)
    network.cut('other', 'origin')
    await insert(origin, 'lost 1', 'lost 2', 'lost 3')
    await eventually('the last node has them', () => has(node('last'), 'lost 3'))
    network.cut('relay', 'origin')
    await restore()
    network.heal('other', 'origin')
    await insert(origin, 'new 1', 'new 2', 'new 3')
    await eventually('the last node has the new ones', () =>
      ['new 1', 'new 2', 'new 3'].every((id) => has(node('last'), id)),
    )
    network.heal()
    await allHave(opened, 'new 1', 'new 2', 'new 3')
  })

  it('at a node that has the lost transactions through another node, and the new ones directly', async (test) => {
    const opened = await open(
      test,
      ['origin', 'relay', 'last'],
      [
        ['relay', 'origin'],
        ['last', 'origin'],
        ['last', 'relay'],
      ],
    )
    const { origin, network, node } = opened
    await insert(origin, 'old 1')
    await allHave(opened, 'old 1')
    const restore = await snapshot(opened)
    network.cut('last', 'origin')
    await insert(origin, 'lost 1', 'lost 2')
    await eventually('the last node has them', () => has(node('last'), 'lost 2'))
    network.cut('relay', 'origin')
    await restore()
    network.heal('last', 'origin')
    await insert(origin, 'new 1', 'new 2')
    await eventually('the last node has the new ones', () => has(node('last'), 'new 1') && has(node('last'), 'new 2'))
  })

  it('in a ring of relaying nodes', async (test) => {
    const names = ['origin', 'a', 'b', 'c']
    const opened = await open(
      test,
      names,
      names.flatMap((name, at) => {
        const next = names[(at + 1) % names.length]!
        return [[name, next] as const, [next, name] as const]
      }),
    )
    const { origin, cluster } = opened
    await insert(origin, 'old 1')
    await allHave(opened, 'old 1')
    const restore = await snapshot(opened)
    await insert(origin, 'lost 1', 'lost 2')
    await allHave(opened, 'lost 1', 'lost 2')
    await restore()
    await insert(origin, 'new 1', 'new 2')
    await eventually('all have the new ones', () =>
      cluster.nodes.every((each) => has(each, 'new 1') && has(each, 'new 2')),
    )
    await cluster.converged()
    assert.equal(origin.host.outbox.length, 0)
  })

  for (const subscriptions of [
    [
      ['relay', 'origin'],
      ['last', 'relay'],
    ],
    [['last', 'origin']],
  ] as const)
    it(`a token for what it writes next is not taken for one of a lost transaction, with ${subscriptions.length} links between`, async (test) => {
      const opened = await open(test, ['origin', 'relay', 'last'], subscriptions)
      const { origin, network, node } = opened
      const last = node('last')
      await insert(origin, 'old 1')
      await eventually('the row is there', () => has(last, 'old 1'))
      const restore = await snapshot(opened)
      const token = (transaction: Transaction) => origin.cluster.token(transaction)
      const lost = await token(commit(origin, insertInto('dog', { id: 'lost 1' })))
      await last.cluster.caughtUp(lost)
      for (const [subscriber, source] of subscriptions) if (source === 'origin') network.cut(subscriber, source)
      await restore()
      const next = await token(commit(origin, insertInto('dog', { id: 'new 1' })))
      assert.equal(await outcome(last.cluster.caughtUp(next, { timeout: 400 })), 'replication_timeout')
      network.heal()
      await last.cluster.caughtUp(next)
      assert.ok(has(last, 'new 1'))
    })

  it('gets back what it has lost and a peer has, and its other subscribers get it too', async (test) => {
    const names = ['origin', 'peer', 'other']
    const opened = await open(
      test,
      names,
      names.flatMap((name) => names.filter((each) => each !== name).map((each) => [name, each] as const)),
      { host: () => new MemoryHost({ tables: [dog] }), relays: false },
    )
    const { origin, network, cluster } = opened
    await insert(origin, 'old 1')
    await allHave(opened, 'old 1')
    const restore = await snapshot(opened)
    network.cut('other', 'origin')
    await insert(origin, 'lost 1', 'lost 2')
    await eventually('the peer has them', () => has(opened.node('peer'), 'lost 2'))
    await restore()
    network.heal()
    await insert(origin, 'new 1', 'new 2', 'new 3')
    await allHave(opened, 'lost 1', 'lost 2', 'new 1', 'new 2', 'new 3')
    await eventually('nothing is left to be copied or announced', () =>
      cluster.nodes.every(({ host }) =>
        [...host.checkpoints.values()].every(({ copy, unannounced }) => !copy && !unannounced),
      ),
    )
    await cluster.converged()
  })
})
