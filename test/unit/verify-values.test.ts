// Two nodes compare the values of their rows on request: rows with equal timestamps and different values are found, and a repair takes
// them from the node that its caller names.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { StoredRow } from '../../lib/host/host.ts'
import { BucketSet, BucketSums } from '../../lib/replication/copy/buckets.ts'
import { PeerHashes } from '../../lib/replication/copy/peer-hashes.ts'
import { recordText } from '../../lib/replication/copy/record-text.ts'
import { encodeVersions } from '../../lib/replication/copy/row-versions.ts'
import {
  type ClusterNode,
  eventually,
  type MemoryHost,
  MemoryNetwork,
  startCluster,
  TestClock,
} from '../../lib/testing.ts'
import { systemTimers } from '../../lib/util/timers.ts'
import fc from '../support/properties.ts'

const dog = { database: 'dev', table: 'dog' }
const equal = { missingHere: 0, missingThere: 0, different: 0, inFlight: 0, repaired: 0 }

/** As a damaged file or a foreign program changes a row: its timestamps stay. */
function damage({ rows }: MemoryHost, id: number, record: Record<string, unknown>): void {
  const table = rows.get(JSON.stringify(['dev', 'dog']))!
  const key = JSON.stringify([id])
  table.set(key, { ...(table.get(key) as StoredRow), record })
}

async function open(test: TestContext, subscriptions?: { publish: boolean; subscribe: boolean }) {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const cluster = await startCluster(2, { network, tables: [dog], subscribe: subscriptions === undefined })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as readonly ClusterNode[] as [ClusterNode, ClusterNode]
  if (subscriptions) await one.cluster.addNode({ node_name: 'node2', subscriptions: [{ ...dog, ...subscriptions }] })
  for (let id = 0; id < 200; id++) await one.host.insert('dev', 'dog', { id, name: 'Rex', tags: ['a', { b: 1 }] })
  await cluster.converged()
  return { clock, network, cluster, one, two }
}

describe('a comparison with values', { timeout: 60_000 }, () => {
  it('finds rows whose values alone differ, and takes those of the named node', async (test) => {
    const { cluster, one, two } = await open(test)
    await two.host.update('dev', 'dog', { id: 8, name: 'Ida' })
    await cluster.converged()
    const there = { node: 'node2', ...dog }
    assert.deepEqual(await one.cluster.verify(there, { values: true }), { ...equal, rows: 200 })
    damage(one.host, 7, { id: 7, name: 'Rax', tags: ['a', { b: 1 }] })
    damage(one.host, 8, { id: 8, name: 'Ida', tags: ['a', { b: 2 }] })
    damage(one.host, 9, { id: 9, name: 'Rex' })
    assert.deepEqual(await one.cluster.verify(there), { ...equal, rows: 200 }, 'their timestamps are equal')
    assert.deepEqual(await one.cluster.verify(there, { values: true }), { ...equal, rows: 200, different: 3 })
    assert.deepEqual(await one.cluster.verify(there, { repair: true }), { ...equal, rows: 200 })
    const request = { operation: 'verify_table', node_name: 'node2', ...dog, values: true, repair: true } as const
    const { different, repaired } = await one.cluster.execute(request, { superUser: true })
    assert.deepEqual([different, repaired], [3, 3])
    assert.deepEqual(one.host.records('dev', 'dog'), two.host.records('dev', 'dog'))
    assert.equal(one.host.get('dev', 'dog', 7)?.name, 'Rex')
    assert.deepEqual(await two.cluster.verify({ node: 'node1', ...dog }, { values: true }), { ...equal, rows: 200 })
  })

  it('leaves such a row as it is on both nodes when the caller does not subscribe, and repairs others', async (test) => {
    const { one, two } = await open(test, { publish: true, subscribe: false })
    damage(one.host, 7, { id: 7, name: 'Rax' })
    two.host.rows.get(JSON.stringify(['dev', 'dog']))!.delete(JSON.stringify([8]))
    const result = await one.cluster.verify({ node: 'node2', ...dog }, { values: true, repair: true })
    assert.deepEqual(result, { ...equal, rows: 200, different: 1, missingThere: 1, repaired: 1 })
    assert.equal(two.host.get('dev', 'dog', 7)?.name, 'Rex', 'the named node keeps its values')
    assert.equal(one.host.get('dev', 'dog', 7)?.name, 'Rax')
    assert.equal(two.host.get('dev', 'dog', 8)?.name, 'Rex')
  })

  it('has no false alarm while both nodes are written to', async (test) => {
    const { cluster, one, two } = await open(test)
    let isOver = false
    const writing = [one, two].map(async ({ name, host }) => {
      for (let round = 0; !isOver; round++) {
        await host.update('dev', 'dog', { id: round % 50, [name]: round, tags: [round] })
        if (round % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
      }
    })
    for (let run = 0; run < 10; run++) {
      const { inFlight: _, ...found } = await one.cluster.verify({ node: 'node2', ...dog }, { values: true })
      assert.deepEqual({ ...found, inFlight: 0 }, { ...equal, rows: 200 })
    }
    isOver = true
    await Promise.all(writing)
    await cluster.converged()
  })

  it('is refused when the other node does not confirm that it compares values', async () => {
    const answers = { sums: Buffer.alloc(0), versions: encodeVersions([]), rows: 0 }
    const peers = new PeerHashes({ timers: systemTimers, request: async () => answers })
    const source = { node: 'node2', ...dog }
    const { signal } = new AbortController()
    const refused = { code: 'peer_rejected', message: /cannot compare them/ }
    for (const values of [false, true]) {
      const rules = { cut: '', values }
      const calls = [
        () => peers.addSums(source, new BucketSums(1), { rules, signal, progress: () => {} }),
        () => peers.find(source, { buckets: 1, selected: new BucketSet(1), rules }, () => {}, { signal }),
        () => peers.versions(source, [1], { rules, signal }),
      ]
      for (const call of calls)
        if (values) await assert.rejects(call, refused)
        else await call()
    }
  })
})

describe('a comparison whose request does not arrive', { timeout: 60_000 }, () => {
  it('repeats it once, and goes on', async (test) => {
    const { clock, network, one } = await open(test)
    network.cut('node1', 'node2')
    const running = one.cluster.verify({ node: 'node2', ...dog })
    running.catch(() => {})
    await clock.advance(100)
    network.heal()
    await clock.advance(10_000)
    assert.deepEqual(await running, { ...equal, rows: 200 })
  })

  it('ends when it does not arrive the second time either, and when the caller aborts it meanwhile', async (test) => {
    const { clock, network, one } = await open(test)
    network.cut('node1', 'node2')
    let isEnded = false
    const running = one.cluster.verify({ node: 'node2', ...dog })
    running
      .catch(() => {})
      .finally(() => {
        isEnded = true
      })
    await eventually('it is given up', async () => {
      await clock.advance(5_000)
      return isEnded
    })
    await assert.rejects(running, { code: /^node_(not_listening|timeout)$/ })
    const abort = new AbortController()
    const aborted = one.cluster.verify({ node: 'node2', ...dog }, { signal: abort.signal })
    aborted.catch(() => {})
    await clock.advance(100)
    abort.abort()
    await assert.rejects(aborted, { code: 'aborted' })
  })
})

describe('the text of a record', () => {
  const text = (record: Record<string, unknown>) => recordText(record, 'id')

  it('is the same for the same values, however a host stores them', () => {
    const alike: Record<string, unknown>[][] = [
      [
        { a: 1, b: 2 },
        { b: 2, a: 1 },
        { b: 2n, a: 1n, id: 9 },
        { a: 1, b: 2, c: null, d: undefined },
      ],
      [{ a: -0 }, { a: 0 }, { a: 0n }],
      [{ a: { b: { c: 1, d: 2 } } }, { a: { b: { d: 2, c: 1 } } }],
      [{ a: Uint8Array.of(1, 2) }, { a: Buffer.from([1, 2]) }],
      [{ a: new Date(5) }, { a: new Date(5) }],
    ]
    for (const records of alike) assert.equal(new Set(records.map(text)).size, 1, JSON.stringify(records.map(text)))
  })

  it('differs for different values', () => {
    const values = [
      1,
      '1',
      true,
      'true',
      false,
      [],
      {},
      [1],
      [[1]],
      ['1'],
      { a: 1 },
      { a: [1] },
      [null],
      [undefined, 1],
      new Date(1),
      Uint8Array.of(1),
      Uint8Array.of(1, 1),
      new Set([1]),
      new Map([[1, 1]]),
      1.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      '',
      'a',
      's1 a',
      10n ** 30n,
    ]
    const texts = values.map((value) => text({ a: value }))
    assert.equal(new Set(texts).size, values.length, texts.join('\n'))
    assert.notEqual(text({ a: 'x', b: 'y' }), text({ a: 'xb1 s1 y' }))
  })

  it('is equal exactly for records that are equal as JSON', () => {
    const value = fc.record({ a: fc.jsonValue(), b: fc.jsonValue() })
    // Attributes without a value count as absent, and -0 as 0.
    const plain = (json: unknown): unknown =>
      Array.isArray(json)
        ? json.map(plain)
        : typeof json === 'object' && json !== null
          ? Object.fromEntries(
              Object.entries(json)
                .filter(([, each]) => each !== null)
                .sort(([one], [two]) => (one < two ? -1 : 1))
                .map(([name, each]) => [name, plain(each)]),
            )
          : json
    fc.assert(
      fc.property(value, value, (one, two) => {
        assert.equal(text(one) === text(two), JSON.stringify(plain(one)) === JSON.stringify(plain(two)))
        assert.equal(text(one), text(structuredClone(one)))
      }),
    )
  })

  it('ends at a depth that no message has', () => {
    let deep: unknown = 1
    for (let depth = 0; depth < 10_000; depth++) deep = [deep]
    assert.ok(text({ a: deep }).length < 1_000)
  })
})
