// Replication between real nodes: the subscribed tables, unchanged, in order, each transaction applied once.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { inspect, isDeepStrictEqual } from 'node:util'
import type { PrimaryKey, RecordWrite, Write } from '../../lib/host/host.ts'
import type { Transaction } from '../../lib/index.ts'
import { eventually, quiet, reading, streamInfo, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { recordsOf } from '../support/writes.ts'

const idsOf = (transactions: readonly { id: string }[]) => transactions.map(({ id }) => id)
const numbered = (prefix: string, count: number) => Array.from({ length: count }, (_, index) => `${prefix}${index}`)

/** Creates a table of database `dev` on these nodes. */
const createTable = (table: string, ...nodes: TestNode[]) =>
  Promise.all(
    nodes.map(({ host }) => host.createTable({ database: 'dev', table, primaryKey: 'id', attributes: ['id'] })),
  )

/** Commits one row for each id, each in a separate transaction. */
/** One after the other, so that each transaction has its own message. */
const writeEach = async (node: TestNode, table: string, ids: readonly string[]) => {
  for (const id of ids) await write(node, table, [id])
}

const write = (node: TestNode, table: string, ids: readonly string[]) =>
  Promise.all(ids.map((id) => node.host.write(id, insert(table, { id }))))

/** Resolves with a time that is later than all writes so far, once the clock has reached it. */
async function nextInstant(): Promise<string> {
  const now = Date.now()
  await eventually('the next millisecond', () => Date.now() > now + 1)
  return new Date(now + 1).toISOString()
}

/** Abbreviated: the test runner would print megabytes. */
const shown = (value: unknown) => inspect(value, { depth: 6, maxArrayLength: 4, maxStringLength: 20 })

/** The id of the first row, which `write` makes the transaction's. */
const rowOf = ({ writes }: Transaction) => recordsOf(writes[0])[0]!.id

/** Deterministic numbers from a seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

describe('two nodes', () => {
  const cluster = new TestCluster()
  let node1: TestNode
  let node2: TestNode
  before(async () => {
    ;[node1, node2] = (await cluster.startAll(['node1', 'node2'])) as [TestNode, TestNode]
  })
  after(() => cluster.close())

  test('a table replicates one way', async () => {
    await createTable('one', node1, node2)
    await subscribe(node1, node2, { one: 'publish' })
    await write(node1, 'one', ['one-here'])
    await write(node2, 'one', ['one-there'])
    await quiet([node1, node2])
    assert.deepEqual(node2.host.contents('dev', 'one'), [{ id: 'one-here' }, { id: 'one-there' }])
    assert.deepEqual(node1.host.contents('dev', 'one'), [{ id: 'one-here' }])
    assert.deepEqual(
      node1.cluster.subscriptions().filter(({ source }) => source.table === 'one'),
      [],
    )
  })

  test('a table replicates both ways without echoes', async () => {
    await createTable('two', node1, node2)
    await subscribe(node1, node2, { two: 'both' })
    const [here, there] = [numbered('two-here', 50), numbered('two-there', 50)]
    await Promise.all([write(node1, 'two', here), write(node2, 'two', there)])
    await quiet([node1, node2])
    assert.deepEqual(idsOf(node1.host.from('node2', 'two')), there)
    assert.deepEqual(idsOf(node2.host.from('node1', 'two')), here)
    assert.deepEqual(node1.host.contents('dev', 'two'), node2.host.contents('dev', 'two'))
  })

  test('only subscribed tables arrive, also from one transaction', async () => {
    await createTable('wanted', node1, node2)
    await createTable('unwanted', node1, node2)
    await subscribe(node1, node2, { wanted: 'publish' })
    await node1.host.write('mixed', insert('wanted', { id: 1 }), insert('unwanted', { id: 1 }))
    await node1.host.write('other', insert('unwanted', { id: 2 }))
    await node1.host.write('last', insert('wanted', { id: 2 }))
    await quiet([node1, node2])
    assert.deepEqual(
      node2.host.from('node1', 'wanted').map(({ id, writes }) => [id, writes]),
      [
        ['mixed', [insert('wanted', { id: 1 })]],
        ['last', [insert('wanted', { id: 2 })]],
      ],
    )
    assert.deepEqual(node2.host.contents('dev', 'unwanted'), [])
  })

  test('a missing table is created', async () => {
    await node1.host.createTable({ database: 'dev', table: 'fox', primaryKey: 'id', attributes: ['id', 'name'] })
    await node2.host.createTable({ database: 'zoo', table: 'owl', primaryKey: 'tag', attributes: ['tag', 'age'] })
    const both = { publish: true, subscribe: true }
    const subscriptions = [
      { database: 'dev', table: 'fox', ...both },
      { database: 'zoo', table: 'owl', ...both },
      { database: 'zoo', table: 'nowhere', ...both },
    ]
    const answer = await node1.cluster.updateNode({ node_name: 'node2', subscriptions })
    assert.deepEqual(
      [answer.updated.map(({ table }) => table), answer.skipped.map(({ table }) => table)],
      [['fox', 'owl'], ['nowhere']],
    )
    const described = async ({ host }: TestNode) =>
      (await host.describe())
        .filter(({ table }) => table === 'fox' || table === 'owl')
        .sort((a, b) => (a.table < b.table ? -1 : 1))
    assert.deepEqual(await described(node1), await described(node2))
    await node1.host.write('first-fox', insert('fox', { id: 1, name: 'Reynard' }))
    await eventually('the fox arrives', () => node2.host.contents('dev', 'fox').length === 1)
  })

  test('all kinds of transactions arrive as they were committed', async () => {
    await createTable('kinds', node1, node2)
    await createTable('more-kinds', node1, node2)
    await subscribe(node1, node2, { kinds: 'publish', 'more-kinds': 'publish' })
    const kinds = (operation: RecordWrite['operation'], ...records: RecordWrite['records']): Write => ({
      operation,
      database: 'dev',
      table: 'kinds',
      records,
    })
    const remove = (...ids: PrimaryKey[]): Write => ({ operation: 'delete', database: 'dev', table: 'kinds', ids })
    const rows = Array.from({ length: 10_000 }, (_, id) => ({ id, name: `row ${id}`, even: id % 2 === 0 }))
    const values: Record<string, unknown>[] = [
      { id: 'nested', a: { b: [{ c: [1, [2, [3, { d: null }]]] }, []], e: {} } },
      { id: 'long', text: 'x'.repeat(1024 * 1024), other: 'ü'.repeat(1024 * 1024) },
      { id: 'unicode 🐕 é\u0000\u2028 漢字', '': 'empty name', 'ключ 🔑': 'ñ', lone: '' },
      { id: 'dates', at: new Date('2024-02-29T12:34:56.789Z'), early: new Date(-1), zero: new Date(0) },
      {
        id: 'bytes',
        some: new Uint8Array([0, 1, 254, 255]),
        none: new Uint8Array(0),
        large: new Uint8Array(70_000).fill(7),
      },
      { id: 'big', small: 1n, long: 2n ** 62n, negative: -(2n ** 63n), beyond: 2n ** 200n, minus: -(2n ** 100n) },
      { id: 'numbers', max: Number.MAX_SAFE_INTEGER, min: Number.MIN_VALUE, half: 0.5, inf: Infinity, nan: NaN },
      { id: 'signs', minus: -1, int: 2 ** 31, long: -(2 ** 40), float: 1e300 },
      { id: 'nothing', value: null, yes: true, no: false },
      { id: 42, numeric: 'key' },
      { id: 2n ** 60n, bigint: 'key' },
    ]
    const transactions: [id: string, writes: Write[]][] = [
      ...values.map((record, index): [string, Write[]] => [`value${index}`, [kinds('insert', record)]]),
      ['rows', [kinds('upsert', ...rows)]],
      ['unknown keys', [remove('not', 'there', 7, 2n ** 60n, 0.5)]],
      [
        'sequence',
        [
          kinds('insert', { id: 's', a: 1 }),
          kinds('update', { id: 's', b: 2 }),
          remove('s'),
          kinds('upsert', { id: 's', c: 3 }),
        ],
      ],
    ]
    for (const [id, writes] of transactions) await node1.host.write(id, ...writes)
    const several = [kinds('insert', { id: 'both' }), insert('more-kinds', { id: 1 }), remove(1)]
    await node1.host.write('several tables', ...several)
    await quiet([node1, node2])

    const received = node2.host.from('node1', 'kinds')
    assert.deepEqual(idsOf(received), [...transactions.map(([id]) => id), 'several tables'])
    for (const [index, [id, writes]] of transactions.entries())
      assert.ok(
        isDeepStrictEqual(received[index]!.writes, writes),
        `transaction '${id}': ${shown(received[index]!.writes)} instead of ${shown(writes)}`,
      )
    assert.deepStrictEqual(received.at(-1)!.writes, [several[0], several[2]])
    assert.deepStrictEqual(node2.host.from('node1', 'more-kinds')[0]!.writes, [several[1]])
    assert.ok(isDeepStrictEqual(node2.host.contents('dev', 'kinds'), node1.host.contents('dev', 'kinds')))
    assert.ok(received.every(({ origin }) => origin.node === 'node1'))
  })

  test('bytes arrive as a separate Uint8Array', async () => {
    await createTable('bytes', node1, node2)
    await subscribe(node1, node2, { bytes: 'publish' })
    const bytes = Buffer.from([0, 1, 254, 255])
    await node1.host.write('bytes', insert('bytes', { id: 1, bytes }))
    await quiet([node1, node2])
    const arrived = node2.host.contents('dev', 'bytes')[0]!.bytes as Uint8Array
    assert.ok(arrived instanceof Uint8Array)
    assert.deepEqual([...arrived], [...bytes])
    assert.equal(arrived.buffer.byteLength, 4, 'a view into the message would keep all of it in memory')
  })

  test('a long chain of writes has the same effect', async () => {
    await createTable('chain', node1, node2)
    await subscribe(node1, node2, { chain: 'publish' })
    const writes = numbered('', 3000).map(
      (id, index): Write =>
        index % 3 === 0
          ? { operation: 'delete', database: 'dev', table: 'chain', ids: [`${Number(id) - 2}`] }
          : insert('chain', { id, index }),
    )
    await node1.host.write('chain', ...writes)
    await eventually('it arrives', () => node2.host.from('node1', 'chain').length === 1)
    assert.deepEqual(node2.host.contents('dev', 'chain'), node1.host.contents('dev', 'chain'))
  })

  test('the order of each table and origin is the order of commit', async (t) => {
    const seed = Date.now() % 2 ** 31
    t.diagnostic(`seed ${seed}`)
    const random = randomOf(seed)
    const tables = ['o1', 'o2', 'o3']
    for (const table of tables) await createTable(table, node1, node2)
    await subscribe(node1, node2, { o1: 'both', o2: 'both', o3: 'both' })
    const committed = new Map<string, string[]>()
    const writing: Promise<void>[] = []
    for (let index = 0; index < 1500; index++) {
      const node = random(2) === 0 ? node1 : node2
      const chosen = tables.filter(() => random(2) === 0)
      if (chosen.length === 0) continue
      const id = `o-${node.name}-${index}`
      for (const table of chosen)
        committed.set(`${node.name} ${table}`, [...(committed.get(`${node.name} ${table}`) ?? []), id])
      writing.push(node.host.write(id, ...chosen.map((table) => insert(table, { id: random(100), by: id }))))
      if (random(20) === 0) await Promise.race(writing.slice(-1))
    }
    await Promise.all(writing)
    await quiet([node1, node2])
    for (const table of tables) {
      assert.deepEqual(idsOf(node2.host.from('node1', table)), committed.get(`node1 ${table}`))
      assert.deepEqual(idsOf(node1.host.from('node2', table)), committed.get(`node2 ${table}`))
      assert.deepEqual(node1.host.contents('dev', table), node2.host.contents('dev', table))
    }
  })

  test('a batch that the database rejects is retried, and nothing is skipped', async () => {
    await createTable('stubborn', node1, node2)
    await subscribe(node1, node2, { stubborn: 'publish' })
    let refusals = 3
    node2.host.beforeApply = ({ source }) => {
      if (source.table === 'stubborn' && refusals-- > 0) throw new Error('the disk is full')
    }
    const ids = numbered('stubborn', 20)
    await write(node1, 'stubborn', ids)
    await eventually('all arrive', () => node2.host.from('node1', 'stubborn').length >= ids.length)
    node2.host.beforeApply = undefined
    assert.deepEqual(idsOf(node2.host.from('node1', 'stubborn')), ids)
    const stalled = node2.seen('replication:stalled').filter(({ source }) => source.table === 'stubborn')
    // A batch of several transactions is refused once before its first transaction is.
    assert.ok(stalled.length === 2 || stalled.length === 3, `${stalled.length} reports`)
    assert.deepEqual(
      stalled.map(({ source, error, attempts, id }) => ({ source, error, attempts, id })),
      stalled.map((_, index) => ({
        source: { node: 'node1', database: 'dev', table: 'stubborn' },
        error: 'the disk is full',
        attempts: index + 1,
        id: ids[0],
      })),
    )
    const states = node2
      .seen('subscription:state')
      .filter(({ source }) => source.table === 'stubborn')
      .map(({ state }) => state)
    assert.ok(states.includes('stalled'))
    await reading(node2, node1, 'stubborn')
  })

  test('an invalid message is quarantined and replication continues', async () => {
    await createTable('garbage', node1, node2)
    await subscribe(node1, node2, { garbage: 'publish' })
    await write(node1, 'garbage', ['before'])
    const client = await cluster.client(node1)
    await client.jetstream().publish('txn.dev.garbage.node1-leaf', Buffer.from('not a transaction'))
    const { source, sequence, error } = await eventually('it is quarantined', () =>
      node2.seen('replication:quarantined').find(({ source }) => source.table === 'garbage'),
    )
    assert.deepEqual([source.node, sequence], ['node1', 2])
    assert.match(error, /not a valid transaction|not valid MessagePack/)
    await write(node1, 'garbage', ['after1', 'after2', 'after3'])
    await quiet([node1, node2])
    assert.deepEqual(idsOf(node2.host.from('node1', 'garbage')), ['before', 'after1', 'after2', 'after3'])
  })

  test('a transaction that exceeds a message is rejected, stays in the outbox, and does not hold up later ones', async () => {
    await createTable('large', node1, node2)
    await subscribe(node1, node2, { large: 'publish' })
    const tooLarge = node1.host.write('too large', insert('large', { id: 1, bytes: Buffer.alloc(65 * 1024 * 1024) }))
    const small = node1.host.write('small', insert('large', { id: 2 }))
    await assert.rejects(tooLarge, { code: 'transaction_too_large', statusCode: 413 })
    await small
    await node1.host.write('as large as can be', insert('large', { id: 3, bytes: Buffer.alloc(31 * 1024 * 1024) }))
    await eventually('later transactions arrive', () => node2.host.from('node1', 'large').length === 2)
    assert.deepEqual(idsOf(node2.host.from('node1', 'large')), ['small', 'as large as can be'])
    await eventually('the outbox contains only the rejected transaction', () => node1.host.outbox.length === 1)
    assert.deepEqual(idsOf(node1.host.outbox), ['too large'])
    node1.host.outbox = []
  })

  describe('start_time', () => {
    test('replays from that time, once', async () => {
      await createTable('since', node1, node2)
      await write(node1, 'since', ['a1', 'a2'])
      await write(node2, 'since', ['z1'])
      const start_time = await nextInstant()
      await write(node1, 'since', ['b1', 'b2'])
      await write(node2, 'since', ['y1'])
      await subscribe(node1, node2, { since: 'both' }, { start_time })
      await write(node1, 'since', ['c1'])
      await quiet([node1, node2])
      assert.deepEqual(idsOf(node2.host.from('node1', 'since')), ['b1', 'b2', 'c1'])
      assert.deepEqual(idsOf(node1.host.from('node2', 'since')), ['y1'])

      await subscribe(node1, node2, { since: 'both' }, { start_time })
      await write(node1, 'since', ['d1'])
      await quiet([node1, node2])
      assert.deepEqual(idsOf(node2.host.from('node1', 'since')), ['b1', 'b2', 'c1', 'd1'])
      assert.deepEqual(idsOf(node1.host.from('node2', 'since')), ['y1'])
    })

    test('replays from another time, including applied transactions', async () => {
      await createTable('again', node1, node2)
      const early = await nextInstant()
      await write(node1, 'again', ['a1', 'a2'])
      const late = await nextInstant()
      await write(node1, 'again', ['b1'])
      await subscribe(node1, node2, { again: 'publish' }, { start_time: late })
      await quiet([node1, node2])
      assert.deepEqual(idsOf(node2.host.from('node1', 'again')), ['b1'])
      await subscribe(node1, node2, { again: 'publish' }, { start_time: early })
      await write(node1, 'again', ['c1'])
      await quiet([node1, node2])
      assert.deepEqual(idsOf(node2.host.from('node1', 'again')), ['b1', 'a1', 'a2', 'b1', 'c1'])
    })

    test('is optional: without it only later transactions arrive', async () => {
      await createTable('now', node1, node2)
      await write(node1, 'now', ['a1', 'a2'])
      await subscribe(node1, node2, { now: 'publish' })
      await write(node1, 'now', ['b1'])
      await quiet([node1, node2])
      assert.deepEqual(idsOf(node2.host.from('node1', 'now')), ['b1'])
    })

    test('in the future counts as now', async () => {
      await createTable('future', node1, node2)
      await write(node1, 'future', ['a1'])
      await nextInstant()
      const start_time = new Date(Date.now() + 3_600_000).toISOString()
      await subscribe(node1, node2, { future: 'publish' }, { start_time })
      await write(node1, 'future', ['b1'])
      await quiet([node1, node2])
      assert.deepEqual(idsOf(node2.host.from('node1', 'future')), ['b1'])
    })
  })

  test('a subscription that is removed and added again starts at the end of the stream', async () => {
    await createTable('renewed', node1, node2)
    await subscribe(node1, node2, { renewed: 'publish' })
    await write(node1, 'renewed', ['a1'])
    await quiet([node1, node2])
    for (const round of [1, 2, 3]) {
      const unsubscribed = [{ database: 'dev', table: 'renewed', publish: false, subscribe: false }]
      await node1.cluster.updateNode({ node_name: 'node2', subscriptions: unsubscribed })
      await eventually(
        'the subscription has ended',
        () => !node2.cluster.subscriptions().some(({ source }) => source.table === 'renewed'),
      )
      await write(node1, 'renewed', [`missed${round}`])
      await subscribe(node1, node2, { renewed: 'publish' })
      await write(node1, 'renewed', [`b${round}`])
      await quiet([node1, node2])
    }
    assert.deepEqual(idsOf(node2.host.from('node1', 'renewed')), ['a1', 'b1', 'b2', 'b3'])
  })

  describe('purge_stream', () => {
    test('keeps the last messages, or those from a sequence on, or none; later writes still replicate', async () => {
      await createTable('purged', node1, node2)
      await subscribe(node1, node2, { purged: 'publish' })
      const client = await cluster.client(node1)
      const bounds = async () => {
        const { state } = (await streamInfo(client, 'dev', 'purged'))!
        return [state.messages, state.first_seq, state.last_seq]
      }
      const purge = async (options?: object) =>
        assert.deepEqual(
          await node1.cluster.purgeStream({ database: 'dev', table: 'purged', ...(options ? { options } : {}) }),
          { message: "Successfully purged table 'dev.purged'" },
        )
      await writeEach(node1, 'purged', numbered('p', 10))
      await quiet([node1, node2])
      await purge({ keep: 5 })
      assert.deepEqual(await bounds(), [5, 6, 10])
      await purge({ seq: 9 })
      assert.deepEqual(await bounds(), [2, 9, 10])
      await purge({ seq: 3 })
      assert.deepEqual(await bounds(), [2, 9, 10])
      await purge()
      assert.equal((await bounds())[0], 0)
      await write(node1, 'purged', ['after'])
      assert.deepEqual(await bounds(), [1, 11, 11])
      await purge({ seq: 1000 })
      await write(node1, 'purged', ['after seq'])
      assert.deepEqual(await bounds(), [1, 12, 12])
      await purge({ keep: 0 })
      await write(node1, 'purged', ['after keep'])
      assert.deepEqual(await bounds(), [1, 13, 13])
      await quiet([node1, node2])
      assert.deepEqual(idsOf(node2.host.from('node1', 'purged')), [
        ...numbered('p', 10),
        'after',
        'after seq',
        'after keep',
      ])
      const gaps = node2.seen('replication:gap').filter(({ source }) => source.table === 'purged')
      assert.deepEqual(gaps, [])
    })

    test('works while transactions are in flight', async () => {
      await createTable('busy', node1, node2)
      await subscribe(node1, node2, { busy: 'publish' })
      const ids = numbered('busy', 2000)
      const writing: Promise<void>[] = []
      for (const [index, id] of ids.entries()) {
        writing.push(node1.host.write(id, insert('busy', { id })))
        if (index % 400 === 399)
          await node1.cluster.purgeStream({ database: 'dev', table: 'busy', options: { keep: 1500 } })
      }
      await Promise.all(writing)
      await quiet([node1, node2])
      const received = new Set(idsOf(node2.host.from('node1', 'busy')))
      const lost = ids.filter((id) => !received.has(id)).length
      const reported = node2
        .seen('replication:gap')
        .filter(({ source }) => source.table === 'busy')
        .reduce((sum, { lost }) => sum + lost!, 0)
      assert.equal(reported, lost)
    })

    test('handles a table without a stream, an unknown table and an unknown database', async () => {
      await createTable('streamless', node1)
      assert.deepEqual(await node1.cluster.purgeStream({ database: 'dev', table: 'streamless' }), {
        message: "Successfully purged table 'dev.streamless'",
      })
      await assert.rejects(node1.cluster.purgeStream({ database: 'dev', table: 'no-such' }), {
        code: 'table_not_found',
        statusCode: 400,
        message: "Table 'no-such' does not exist",
      })
      await assert.rejects(node1.cluster.purgeStream({ database: 'nowhere', table: 'no-such' }), {
        code: 'database_not_found',
        statusCode: 400,
        message: "Database 'nowhere' does not exist. Table 'no-such' does not exist",
      })
      await assert.rejects(node1.cluster.purgeStream({ database: 'dev', table: 'a b' }), {
        code: 'name_not_replicable',
        statusCode: 400,
      })
    })
  })
})

test('a purge while the subscriber is closed is reported as a gap with its bounds', async (t) => {
  const cluster = TestCluster.for(t)
  const [node1, node2] = (await cluster.startAll(['node1', 'node2'], {
    tables: [
      ['dev', 'dog'],
      ['dev', 'cat'],
    ],
  })) as [TestNode, TestNode]
  await subscribe(node1, node2, { dog: 'publish', cat: 'publish' })
  await writeEach(node1, 'dog', numbered('a', 3))
  await write(node1, 'cat', numbered('c', 2))
  await quiet([node1, node2])
  await node2.cluster.close()
  await writeEach(node1, 'dog', numbered('b', 10))
  await write(node1, 'cat', numbered('d', 4))
  await node1.cluster.purgeStream({ database: 'dev', table: 'dog', options: { seq: 11 } })
  await node1.cluster.purgeStream({ database: 'dev', table: 'cat' })
  await node2.reopen()
  await write(node1, 'dog', ['last-dog'])
  await write(node1, 'cat', ['last-cat'])
  await quiet([node1, node2])
  const gaps = node2.seen('replication:gap').map(({ source, from, to, reason }) => [source.table, from, to, reason])
  assert.deepEqual(gaps.sort(), [
    ['cat', 3, 6, 'purged'],
    ['dog', 4, 10, 'purged'],
  ])
  assert.deepEqual(idsOf(node2.host.from('node1', 'dog')), ['a0', 'a1', 'a2', 'b7', 'b8', 'b9', 'last-dog'])
  assert.deepEqual(idsOf(node2.host.from('node1', 'cat')), ['c0', 'c1', 'last-cat'])
  const dog = node2.cluster.subscriptions().find(({ source }) => source.table === 'dog')!
  assert.equal(dog.gaps, 1)

  await node2.reopen()
  await write(node1, 'dog', ['very last'])
  await quiet([node1, node2])
  assert.equal(node2.seen('replication:gap').length, 2, 'a gap is reported once')
})

// The file store of nats-server accepts a record beyond 32 MiB (`rlBadThresh`, not configurable) and can never read it again.
test('a transaction that a file store could not read again is rejected', async (t) => {
  const cluster = TestCluster.for(t)
  const nodes = await cluster.startAll(['node1', 'node2'], { tables: [['dev', 'dog']] })
  const [node1, node2] = nodes as [TestNode, TestNode]
  await subscribe(node1, node2, { dog: 'publish' })
  const large = node1.host.write('40 MB', insert('dog', { id: 1, bytes: Buffer.alloc(40_000_000) }))
  await assert.rejects(large, { code: 'transaction_too_large' })
  await node1.host.write('behind it', insert('dog', { id: 2 }))
  await eventually('the later transaction arrives', () => node2.host.applied.length === 1, 5_000)
})

describe('several paths', () => {
  const tables: [string, string][] = [['dev', 'dog']]

  /** Three nodes, each connected to the next, with 100 writes each. */
  async function ring(t: { after(fn: () => void): void }, republishMessages: boolean, direction: 'publish' | 'both') {
    const cluster = TestCluster.for(t as never)
    const nodes = await cluster.startAll(['node1', 'node2', 'node3'], { tables, clustering: { republishMessages } })
    for (const [index, node] of nodes.entries()) await subscribe(node, nodes[(index + 1) % 3]!, { dog: direction })
    await Promise.all(nodes.map((node) => write(node, 'dog', numbered(`${node.name}-`, 100))))
    await quiet(nodes)
    return nodes
  }
  // A relayed transaction has another id; the row has the original one.
  const applied = ({ host }: TestNode) => host.received.map(({ transaction }) => rowOf(transaction)).sort()
  const from = (...names: string[]) => names.flatMap((name) => numbered(`${name}-`, 100)).sort()

  test('a ring with relaying: every node applies everything once', async (t) => {
    const [node1, node2, node3] = (await ring(t, true, 'publish')) as [TestNode, TestNode, TestNode]
    assert.deepEqual(applied(node1), from('node2', 'node3'))
    assert.deepEqual(applied(node2), from('node1', 'node3'))
    assert.deepEqual(applied(node3), from('node1', 'node2'))
    assert.deepEqual(node1.host.contents('dev', 'dog'), node3.host.contents('dev', 'dog'))
    const relayed = node1.host.from('node3', 'dog').find(({ origin }) => origin.node === 'node2') as Transaction
    assert.deepEqual(relayed.origin!.relayedBy, ['node3'])
  })

  test('a ring without relaying: transactions reach only the next node', async (t) => {
    const [node1, node2, node3] = (await ring(t, false, 'publish')) as [TestNode, TestNode, TestNode]
    assert.deepEqual(applied(node1), from('node3'))
    assert.deepEqual(applied(node2), from('node1'))
    assert.deepEqual(applied(node3), from('node2'))
  })

  test('a full mesh with relaying: every node applies everything once', async (t) => {
    const [node1, node2, node3] = (await ring(t, true, 'both')) as [TestNode, TestNode, TestNode]
    assert.deepEqual(applied(node1), from('node2', 'node3'))
    assert.deepEqual(applied(node2), from('node1', 'node3'))
    assert.deepEqual(applied(node3), from('node1', 'node2'))
    for (const node of [node2, node3])
      assert.deepEqual(node.host.contents('dev', 'dog'), node1.host.contents('dev', 'dog'))
  })

  test('a full mesh without relaying', async (t) => {
    const [node1, node2, node3] = (await ring(t, false, 'both')) as [TestNode, TestNode, TestNode]
    assert.deepEqual(applied(node1), from('node2', 'node3'))
    assert.deepEqual(applied(node2), from('node1', 'node3'))
    assert.deepEqual(applied(node3), from('node1', 'node2'))
  })
})

test('a database without an outbox', async (t) => {
  const cluster = TestCluster.for(t)
  const tables: [string, string][] = [['dev', 'dog']]
  const clustering = { republishMessages: true }
  const nodes = await cluster.startAll(['node1', 'node2', 'node3'], { tables, outbox: false, clustering })
  const [node1, node2, node3] = nodes as [TestNode, TestNode, TestNode]
  await subscribe(node1, node2, { dog: 'both' })
  await subscribe(node2, node3, { dog: 'both' })
  const [here, there] = [numbered('here', 500), numbered('there', 500)]
  await Promise.all([write(node1, 'dog', here), write(node3, 'dog', there)])
  await eventually('all arrive', () => nodes.every(({ host }) => host.contents('dev', 'dog').length === 1000))
  await quiet(nodes)
  assert.deepEqual(node3.host.from('node2', 'dog').map(rowOf), here)
  assert.deepEqual(node1.host.from('node2', 'dog').map(rowOf), there)
  await node1.reopen()
  await write(node1, 'dog', ['after'])
  await eventually('replication continues', () => node3.host.contents('dev', 'dog').some(({ id }) => id === 'after'))
  assert.deepEqual(node3.host.from('node2', 'dog').map(rowOf), [...here, 'after'])
})
