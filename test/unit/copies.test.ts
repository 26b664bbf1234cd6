// Copies of rows: new subscriptions and losses bring all rows of the source, beside live replication, whatever happens meanwhile.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { RemoteTable, Write } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { eventually } from '../support/cluster.ts'
import { CopyPair } from '../support/copy-pair.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'
import { randomNumbers } from '../support/random.ts'

const dog = { database: 'dev', table: 'dog' }
const put = (id: string, value: unknown = 0) => insert('dog', { id, value })
const update = (record: Record<string, unknown>): Write => ({ operation: 'update', ...dog, records: [record] })
const remove = (...ids: string[]): Write => ({ operation: 'delete', ...dog, ids })
const range = (count: number) => Array.from({ length: count }, (_, index) => `k${index}`)
/** Commits in this order, at the local clock. */
const commitHere = ({ clock, host }: CopyPair, ...writes: Write[]) => {
  const timestamp = clock.timestamp()
  host.commitAs({ id: `here:${timestamp}`, timestamp, writes })
}
const assertEqual = (pair: CopyPair) => assert.deepEqual(pair.rowsOf(pair.host), pair.rowsOf(pair.source.host))
/** A gate for requests of pages after the first `count`. */
function holdPages(pair: CopyPair, count: number) {
  let release = () => {}
  const opened = new Promise<void>((resolve) => {
    release = resolve
  })
  let pages = 0
  pair.rows.beforePage = () => (++pages > count ? opened : undefined)
  return () => release()
}

describe('a new subscription', { concurrency: true, timeout: 60_000 }, () => {
  it('to an empty table brings 5,000 rows, under writes on both sides', async (test) => {
    const pair = await CopyPair.open(test)
    const { source } = pair
    const keys = range(5_000)
    for (const key of keys) source.commitOnly(put(key, key))
    for (const key of keys.slice(0, 50)) source.commitOnly(remove(key))
    let pages = 0
    const written = new Map<string, unknown>()
    pair.rows.beforePage = () => {
      const page = pages++
      if (page >= 45) return
      source.commit(update({ id: keys[page * 80 + 60]!, late: page }))
      source.commit(put(`new${page}`, page), remove(keys[4_999 - page]!))
      commitHere(pair, update({ id: `k${100 + page * 50}`, here: page }))
      written.set(`k${100 + page * 50}`, page)
    }
    await pair.subscribe()
    assert.ok(pair.status().state !== 'live')
    await pair.copies(1)
    await pair.live()
    assert.equal(pair.copied[0]!.reason, 'initial')
    assert.equal((await pair.checkpoint())!.copy, undefined)
    assert.ok(pair.states.includes('copying'))
    // Local writes are not at the source: compare the rest of their rows.
    for (const { host } of [pair, source])
      for (const key of written.keys())
        assert.equal(host.get('dev', 'dog', key)?.value, source.host.get('dev', 'dog', key)?.value)
    for (const [key, page] of written) {
      assert.equal(pair.host.get('dev', 'dog', key)?.here, page)
      for (const { host } of [pair, source])
        host.rows.get(JSON.stringify(['dev', 'dog']))!.delete(JSON.stringify([key]))
    }
    assertEqual(pair)
    assert.equal(pair.replicator.metrics().copied, pair.copied[0]!.rows)
    assert.deepEqual(pair.progress.at(-1), [pair.copied[0]!.rows, pair.copied[0]!.rows])
  })

  it('copies nothing when the source serves no rows', async (test) => {
    const pair = await CopyPair.open(test)
    pair.rows.isServing = false
    pair.source.commitOnly(put('a'))
    await pair.subscribe()
    await pair.live()
    assert.deepEqual([pair.rows.requested, pair.host.contents('dev', 'dog')], [[], []])
    pair.source.commit(put('b'))
    pair.source.commit(put('c'))
    await pair.live()
    pair.source.commit(put('d'))
    pair.source.expire(4)
    await pair.restart()
    await pair.live()
    assert.deepEqual(pair.copied, [])
  })

  it('drops the copy when the source turns out not to serve rows', async (test) => {
    const pair = await CopyPair.open(test)
    pair.rows.isServing = undefined
    await pair.subscribe()
    await eventually('it waits', () => pair.status().error === 'node1 has not described its tables')
    assert.equal(pair.status().state, 'copying')
    pair.rows.isServing = false
    await pair.live()
    assert.deepEqual([pair.copied, (await pair.checkpoint())!.copy, pair.rows.requested], [[], undefined, []])
  })

  it('to a table with rows copies nothing, unless the table is subscribed from another node too', async (test) => {
    const pair = await CopyPair.open(test, { names: ['node1', 'node2'] })
    const [one, two] = pair.sources as [CopyPair['source'], CopyPair['source']]
    one.commitOnly(put('a'))
    two.commitOnly(put('b'))
    commitHere(pair, put('c'))
    await pair.subscribe(one)
    await pair.live(one)
    assert.deepEqual(pair.copied, [])
    await pair.replicator.setStart(two.source)
    await pair.reconcile()
    await pair.copies(1)
    await pair.live()
    assert.deepEqual(pair.copied, [{ node: 'node2', reason: 'initial', rows: 1 }])
    assert.deepEqual(
      pair.host.contents('dev', 'dog').map(({ id }) => id),
      ['b', 'c'],
    )
  })

  it('of several in one change, each decides before anything is applied', async (test) => {
    const names = ['node1', 'node2', 'node3']
    const pair = await CopyPair.open(test, { names })
    for (const { name, commitOnly } of pair.sources.map((each) => ({
      name: each.name,
      commitOnly: (key: string) => each.commitOnly(put(key)),
    })))
      commitOnly(name)
    // As a file edit does: no start is stored before.
    await pair.reconcile()
    await pair.copies(3)
    assert.deepEqual(pair.copied.map(({ node }) => node).sort(), names)
    assert.deepEqual(
      pair.host.contents('dev', 'dog').map(({ id }) => id),
      names,
    )
  })

  it('of a host without readRows copies only into a table that was created here', async (test) => {
    const host = new MemoryHost([['dev', 'dog']], { readRows: false })
    const pair = await CopyPair.open(test, { host })
    pair.source.commitOnly(put('a'))
    await pair.subscribe()
    await pair.live()
    assert.deepEqual(pair.copied, [])
    await pair.unsubscribe()
    pair.replicator.onTableCreated(dog)
    await pair.subscribe()
    await pair.copies(1)
    assert.deepEqual(pair.host.contents('dev', 'dog'), [{ id: 'a', value: 0 }])
  })

  it('with a start time copies nothing', async (test) => {
    const pair = await CopyPair.open(test)
    pair.source.commitOnly(put('a'))
    await pair.replicator.setStart(pair.source.source, { id: '1', startTime: '2026-01-01T00:00:00.000Z' })
    await pair.reconcile()
    await pair.live()
    assert.deepEqual([pair.copied, pair.rows.requested], [[], []])
  })

  it('ends equal with rows that both databases had before clustering, when a copy is requested', async (test) => {
    const pair = await CopyPair.open(test)
    const { source } = pair
    const base = (node: string) => makeTimestamp(0, 0, node)
    for (const key of range(300)) {
      source.host.commitAs({ id: `s${key}`, timestamp: base('node1'), writes: [put(key, 'node1')] })
      pair.host.commitAs({ id: `h${key}`, timestamp: base('here'), writes: [put(key, 'here')] })
    }
    await pair.subscribe()
    await pair.live()
    assert.equal(pair.host.get('dev', 'dog', 'k7')!.value, 'here')
    await pair.replicator.requestCopy(source.source)
    await pair.copies(1)
    await pair.live()
    assertEqual(pair)
    assert.deepEqual(pair.copied, [{ node: 'node1', reason: 'requested', rows: 300 }])
  })

  it('copies at most two sources at the same time', async (test) => {
    const names = ['node1', 'node2', 'node3']
    const pair = await CopyPair.open(test, { names })
    for (const each of pair.sources) each.commitOnly(put(each.name))
    const release = holdPages(pair, 0)
    await pair.subscribe()
    await eventually('one waits', () =>
      pair.replicator.status().some(({ error }) => error === 'waiting for other copies'),
    )
    assert.equal(pair.rows.requested.length, 2)
    release()
    await pair.copies(3)
    await pair.live()
  })
})

describe('a copy that is interrupted', { concurrency: true, timeout: 60_000 }, () => {
  it('resumes behind its last row in the next process', async (test) => {
    const pair = await CopyPair.open(test)
    for (const key of range(1_000)) pair.source.commitOnly(put(key))
    const release = holdPages(pair, 5)
    await pair.subscribe()
    await eventually('half of it is copied', async () => (await pair.checkpoint())?.copy?.rows === 500)
    pair.source.commit(update({ id: 'k3', late: true }))
    await eventually('live replication goes on', () => pair.host.get('dev', 'dog', 'k3')?.late === true)
    assert.equal(pair.status().copy?.rows, 500)
    pair.rows.requested.length = 0
    const restarted = pair.restart()
    release()
    await restarted
    await pair.copies(1)
    await pair.live()
    assert.equal(pair.rows.requested[0], 'k499')
    assert.deepEqual(pair.copied, [{ node: 'node1', reason: 'initial', rows: 1_000 }])
    assertEqual(pair)
  })

  it('begins again at the first row when transactions are lost meanwhile', async (test) => {
    const pair = await CopyPair.open(test)
    const { source } = pair
    for (const key of range(1_000)) source.commitOnly(put(key))
    const release = holdPages(pair, 5)
    await pair.subscribe()
    await eventually('half of it is copied', async () => (await pair.checkpoint())?.copy?.rows === 500)
    // Lost: an update and a delete of rows that are copied already.
    source.stream.last += 2
    source.commitOnly(update({ id: 'k1', late: true }))
    source.commitOnly(remove('k2'))
    source.expire(source.stream.last + 1)
    pair.replicator.restart()
    await eventually('the gap is found', () => pair.gaps.length > 0)
    release()
    await pair.copies(1)
    await pair.live()
    assert.deepEqual(pair.gaps, [['node1', 'expired', true]])
    assertEqual(pair)
    assert.equal(pair.copied.at(-1)!.rows, 1_000)
  })

  it('waits while the source is away, and shows the reason', async (test) => {
    const pair = await CopyPair.open(test)
    for (const key of range(300)) pair.source.commitOnly(put(key))
    pair.rows.beforePage = () => {
      if (pair.rows.requested.length > 2 && pair.rows.requested.length < 5) throw new Error('node1 is away')
    }
    await pair.subscribe()
    await eventually('the reason', () => pair.status().error === 'node1 is away')
    assert.equal(pair.status().state, 'copying')
    await pair.copies(1)
    await pair.live()
    assertEqual(pair)
  })

  it('goes on at the row that the database refused, and live replication goes on meanwhile', async (test) => {
    const pair = await CopyPair.open(test)
    const { source } = pair
    for (const key of range(300)) source.commitOnly(put(key))
    let isRefusing = true
    pair.host.beforeApply = ({ isCopy, transactions }) => {
      const names = (key: string) => transactions.some(({ writes }) => JSON.stringify(writes).includes(`"${key}"`))
      if (isCopy && isRefusing && names('k120')) throw new Error('no such colour')
    }
    await pair.subscribe()
    await eventually('the reason', () => pair.status().error === "the database refuses the row 'k120': no such colour")
    assert.equal((await pair.checkpoint())!.copy!.rows, 120)
    source.commit(put('live'))
    await eventually('live replication goes on', () => pair.host.get('dev', 'dog', 'live'))
    assert.equal(pair.status().state, 'copying')
    isRefusing = false
    await pair.copies(1)
    await pair.live()
    assertEqual(pair)
  })

  it('is not repeated, and nothing is lost, when the database commits steps that it rejects', async (test) => {
    class UncertainHost extends MemoryHost {
      count = 0
      override async apply(batch: Parameters<MemoryHost['apply']>[0]) {
        const outcome = await super.apply(batch)
        if (++this.count % 3 === 0) throw new Error('connection lost')
        return outcome
      }
    }
    const host = new UncertainHost([['dev', 'dog']])
    const pair = await CopyPair.open(test, { host })
    for (const key of range(400)) pair.source.commitOnly(put(key))
    await pair.subscribe().catch(() => pair.subscribe())
    const writing = setInterval(() => pair.source.commit(put('w', Date.now())), 20)
    await pair.copies(1).finally(() => clearInterval(writing))
    await pair.live()
    assertEqual(pair)
    assert.equal(pair.copied.length, 1)
  })

  it('ends with its subscription although a request for a page is not answered', async (test) => {
    const pair = await CopyPair.open(test)
    pair.source.commitOnly(put('a'))
    const release = holdPages(pair, 0)
    await pair.subscribe()
    await eventually('a page is requested', () => pair.rows.requested.length > 0)
    await pair.unsubscribe()
    assert.equal(await pair.checkpoint(), undefined)
    release()
  })

  it('may be followed by another one at once', async (test) => {
    const pair = await CopyPair.open(test)
    pair.source.commitOnly(put('a'))
    const { push } = pair.copied
    pair.copied.push = (...all) => {
      if (pair.copied.length === 0) void pair.replicator.requestCopy(pair.source.source)
      return push.apply(pair.copied, all)
    }
    await pair.subscribe()
    await pair.copies(2)
    await pair.live()
    assert.deepEqual(
      pair.copied.map(({ reason }) => reason),
      ['initial', 'requested'],
    )
  })

  it('leaves no checkpoint when its node is removed', async (test) => {
    const pair = await CopyPair.open(test)
    for (const key of range(1_000)) pair.source.commitOnly(put(key))
    const release = holdPages(pair, 3)
    await pair.subscribe()
    await eventually('some of it is copied', async () => (await pair.checkpoint())?.copy?.rows === 300)
    let apply = () => {}
    pair.host.beforeApply = () =>
      new Promise((resolve) => {
        apply = resolve
      })
    const applying: unknown[] = []
    const original = pair.host.apply.bind(pair.host)
    pair.host.apply = (batch) => {
      const applied = original(batch)
      applying.push(applied)
      return applied
    }
    release()
    await eventually('a page is being applied', () => pair.rows.requested.length > 4 && applying.length > 0)
    const ended = pair.unsubscribe()
    pair.host.beforeApply = undefined
    apply()
    await Promise.all([ended, ...applying])
    assert.deepEqual([await pair.checkpoint(), [...pair.host.checkpoints]], [undefined, []])
  })
})

describe('a loss', { concurrency: true, timeout: 60_000 }, () => {
  async function afterRows(
    test: Parameters<typeof CopyPair.open>[0],
    options: Parameters<typeof CopyPair.open>[1] = {},
  ) {
    const pair = await CopyPair.open(test, options)
    for (const key of range(200)) pair.source.commitOnly(put(key))
    await pair.subscribe()
    await pair.copies(1)
    await pair.live()
    pair.copied.length = 0
    return { pair, source: pair.source }
  }
  const lose = (source: CopyPair['source'], ...writes: Write[]) => {
    source.stream.last += writes.length
    for (const write of writes) source.commitOnly(write)
    source.expire(source.stream.last + 1)
  }

  it('in a gap is repaired, deletes included', async (test) => {
    const { pair, source } = await afterRows(test)
    lose(source, put('lost'), update({ id: 'k5', late: 1 }), remove('k6'))
    pair.replicator.restart()
    await pair.copies(1)
    await pair.live()
    assert.deepEqual(
      [pair.gaps, pair.copied],
      [[['node1', 'expired', true]], [{ node: 'node1', reason: 'gap', rows: 201 }]],
    )
    assertEqual(pair)
  })

  it('is only reported without the option repair', async (test) => {
    const { pair, source } = await afterRows(test, { repair: false })
    lose(source, put('lost'))
    pair.replicator.restart()
    await eventually('the gap', () => pair.gaps.length > 0)
    await pair.live()
    assert.deepEqual([pair.gaps, pair.copied], [[['node1', 'expired', false]], []])
  })

  it('of the checkpoint is repaired', async (test) => {
    const { pair, source } = await afterRows(test)
    await pair.replicator.close()
    pair.host.checkpoints.clear()
    source.commitOnly(remove('k9'))
    pair.open()
    await pair.reconcile()
    await pair.copies(1)
    await pair.live()
    assert.deepEqual(pair.copied, [{ node: 'node1', reason: 'checkpoint_lost', rows: 200 }])
    assertEqual(pair)
  })

  it('of a table that is dropped and created again is repaired', async (test) => {
    const { pair } = await afterRows(test)
    pair.host.dropTable('dev', 'dog')
    pair.replicator.onTableDropped(dog)
    await pair.host.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
    await pair.copies(1)
    await pair.live()
    assert.deepEqual(pair.copied, [{ node: 'node1', reason: 'table_created', rows: 200 }])
    assertEqual(pair)
  })

  it('of a table that is dropped during its copy begins again', async (test) => {
    const pair = await CopyPair.open(test)
    for (const key of range(1_000)) pair.source.commitOnly(put(key))
    const release = holdPages(pair, 3)
    await pair.subscribe()
    await eventually('some of it is copied', async () => (await pair.checkpoint())?.copy?.rows === 300)
    pair.host.dropTable('dev', 'dog')
    pair.replicator.onTableDropped(dog)
    release()
    await eventually('it is stalled', () => pair.status().state === 'stalled')
    await pair.host.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
    await pair.copies(1)
    await pair.live()
    assertEqual(pair)
  })

  it('of a restored database is repaired from each source, its own writes included', async (test) => {
    const { pair, source } = await afterRows(test)
    const timestamp = pair.clock.timestamp()
    source.host.commitAs({ id: 'own', timestamp, writes: [put('own')] })
    pair.replicator.onDatabaseRestored(dog)
    await pair.copies(1)
    await pair.live()
    assert.deepEqual(pair.copied, [{ node: 'node1', reason: 'database_restored', rows: 201 }])
    assertEqual(pair)
    await pair.restart()
    await pair.live()
    assert.equal(pair.copied.length, 1)
  })
})

describe('copied rows', { concurrency: true, timeout: 60_000 }, () => {
  it('with timestamps of the future are left out, and copied when the clock reaches them', async (test) => {
    let now = Date.now()
    const pair = await CopyPair.open(test, { now: () => now })
    const future = makeTimestamp(now + 3_600_000, 0, 'node1')
    pair.source.commitOnly(put('a'))
    pair.source.host.commitAs({ id: 'f', timestamp: future, writes: [put('f')] })
    pair.source.commitOnly(put('b'))
    await pair.subscribe()
    await eventually('it waits', () => pair.status().error?.startsWith('rows with timestamps of the future'))
    assert.deepEqual(
      pair.host.contents('dev', 'dog').map(({ id }) => id),
      ['a', 'b'],
    )
    assert.ok(pair.clock.timestamp() < future)
    assert.equal((await pair.checkpoint())!.copy!.retryAt, now + 3_300_000)
    await pair.restart()
    await eventually('it waits', () => pair.status().error?.startsWith('rows with timestamps of the future'))
    now += 3_400_000
    pair.replicator.restart()
    await pair.copies(1)
    await pair.live()
    assertEqual(pair)
    assert.ok(pair.clock.timestamp() > future)
  })

  it('do not bring back what is older than a dropped tombstone, but for the first copy', async (test) => {
    const pair = await CopyPair.open(test)
    const { source } = pair
    for (const key of ['a', 'b']) source.commitOnly(put(key))
    source.commitOnly(remove('a'))
    source.host.dropTombstones('dev', 'dog', source.clock.timestamp())
    await pair.subscribe()
    await pair.copies(1)
    const horizon = await source.host.horizon(dog)
    assert.ok(horizon)
    assert.equal(await pair.host.horizon(dog), horizon, 'the horizon of the source comes with the copy')
    assert.deepEqual(pair.host.contents('dev', 'dog'), [{ id: 'b', value: 0 }], 'b is older than the horizon')
    // A stale source has the row that was deleted.
    source.host.horizons.clear()
    source.host.commitAs({ id: 'stale', timestamp: makeTimestamp(5, 0, 'node1'), writes: [put('a')] })
    source.stream.last++
    source.expire(source.stream.last + 1)
    pair.replicator.restart()
    await pair.copies(2)
    assert.deepEqual([pair.host.get('dev', 'dog', 'a'), pair.refused], [undefined, [1]])
    assert.equal(pair.replicator.metrics().refusedOld, 1)
    await pair.replicator.requestCopy(source.source)
    await pair.copies(3)
    assert.deepEqual(pair.host.get('dev', 'dog', 'a'), { id: 'a', value: 0 }, 'the operator asked for it')
  })

  it('are one batch for each row, are not relayed, and do not count as applied', async (test) => {
    const relayed: unknown[] = []
    const pair = await CopyPair.open(test, {
      relayEnabled: true,
      relay: (all) => void relayed.push(...all),
      maxBatch: 3,
    })
    const { source } = pair
    source.commitOnly(put('a'))
    for (const name of ['x', 'y', 'z', 'w']) source.commitOnly(update({ id: 'a', [name]: 1 }))
    for (const key of ['b', 'c', 'd', 'e']) source.commitOnly(put(key))
    const batches: number[] = []
    const ids: string[] = []
    pair.host.beforeApply = ({ isCopy, transactions, relay }) => {
      assert.equal(relay, undefined)
      if (!isCopy) return
      batches.push(transactions.length)
      ids.push(...transactions.map(({ id }) => id))
    }
    await pair.subscribe()
    await pair.copies(1)
    assert.deepEqual([batches, relayed], [[5, 3, 1, 0], []])
    assert.match(ids[0]!, /^copy:dog:sa:[0-9a-f]{12}-[0-9a-f]{6}-node1$/)
    assert.equal(pair.replicator.metrics().applied, 0)
    const { applied, sequence } = (await pair.checkpoint())!
    assert.deepEqual([applied, sequence], [undefined, 0])
    assertEqual(pair)
  })

  it('never destroy a newer local write (200 histories)', async (test) => {
    const pair = await CopyPair.open(test)
    const { source, host, clock } = pair
    pair.rows.pageRows = 3
    await pair.subscribe()
    await pair.live()
    await pair.copies(1)
    const random = randomNumbers(18)
    const pick = <T>(items: readonly T[]) => items[Math.floor(random() * items.length)]!
    for (let history = 0; history < 200; history++) {
      const keys = [0, 1, 2, 3, 4].map((each) => `h${history}.${each}`)
      const write = (): Write => {
        const id = pick(keys)
        const record = { id, [pick(['a', 'b', 'c'])]: Math.floor(random() * 1_000) }
        return pick([() => remove(id), () => insert('dog', record), () => update(record)])()
      }
      /** The merge of all writes, whatever the order. */
      const expected = new MemoryHost([['dev', 'dog']])
      const commit = (to: MemoryHost, timestamp: string, writes: Write[]) => {
        const transaction = { id: `${to === host}${timestamp}`, timestamp, writes }
        to.commitAs(transaction)
        expected.commitAs(transaction)
      }
      for (let count = 0; count < 15; count++) {
        // The clocks of both nodes are interleaved at random.
        const at = makeTimestamp(
          1_000 + history * 100 + Math.floor(random() * 50),
          count,
          random() < 0.5 ? 'node1' : 'here',
        )
        commit(at.endsWith('here') ? host : source.host, at, [write()])
      }
      const request = (source: RemoteTable) => pair.replicator.requestCopy(source)
      let isFirst = true
      pair.rows.beforePage = () => {
        if (!isFirst) return
        isFirst = false
        commit(host, clock.timestamp(), [write()])
      }
      const before = pair.copied.length
      await request(source.source)
      await pair.copies(before + 1)
      for (const key of keys) {
        const id = JSON.stringify([key])
        const [stored, merged] = [pair.rowsOf(host).get(id), pair.rowsOf(expected).get(id)]
        assert.deepEqual(stored, merged, `history ${history}, ${key}`)
      }
      for (const each of [host, source.host]) each.rows.clear()
    }
  })
})
