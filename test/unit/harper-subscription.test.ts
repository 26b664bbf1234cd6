// A subscription to a stream of HarperDB: what its transactions write is applied, and what cannot be applied is reported and kept.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { RemoteTable, Write } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { LocalTables } from '../../lib/replication/subscribe/local-tables.ts'
import { toRelayed } from '../../lib/replication/subscribe/relayed-transaction.ts'
import type { SubscriberContext } from '../../lib/replication/subscribe/subscriber-options.ts'
import { systemTimers } from '../../lib/util/timers.ts'
import { Begun, sourceTables } from '../support/begun.ts'
import { eventually } from '../support/cluster.ts'
import { type HarperWrite, harperAttributes, harperPack, harperTransaction } from '../support/harper-messages.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { source } from '../support/remote-stream.ts'
import { subscribe } from '../support/scripted-subscription.ts'

const start = 1_700_000_000_000
const originAt = (sequence: number) => ({ node: 'node1', timestamp: start + sequence })
const put = (table: string, id: unknown, more: object = {}): HarperWrite => ({
  operation: 'upsert',
  table,
  id,
  record: { id, ...more },
})

/** A running subscription to the table `dog`; `cat` is subscribed too. */
async function begin(
  test: TestContext,
  options: Partial<SubscriberContext> = {},
  tables: Partial<Pick<LocalTables, 'onAttributesDefined'>> = {},
) {
  const counters = replicationCounters()
  const isSubscribed: SubscriberContext['isSubscribed'] = ({ table }) => table === 'dog' || table === 'cat'
  const subscription = await subscribe(test, { counters, isSubscribed, ...options })
  const { stream, subscriber, checkpointAt, tables: local } = subscription
  Object.assign(local, tables)
  stream.epochs = []
  await checkpointAt(0, { epoch: '', index: 0 })
  subscriber.start()
  const reader = await stream.reader(0)
  let sequence = 0
  const give = (body: object) => {
    sequence++
    stream.last = sequence
    const headers = { 'Nats-Msg-Id': `h${sequence}`, origin: 'node1' }
    const entry = { data: harperPack(body), headers, sequence, time: Date.now() }
    stream.stored.set(sequence, entry)
    ;(stream.readers.at(-1) ?? reader).give(entry)
  }
  return {
    ...subscription,
    counters,
    /** Sends a transaction. */
    send: (...writes: HarperWrite[]) => give(harperTransaction('dev', originAt(sequence + 1), ...writes)),
    define: (table: string, ...names: string[]) => give(harperAttributes('dev', table, originAt(sequence + 1), names)),
  }
}

describe('a subscription to HarperDB', { concurrency: true, timeout: 30_000 }, () => {
  it('applies inserts, patches and deletes, one or several in a transaction', async (test) => {
    const { send, host, applied } = await begin(test)
    send(put('dog', 1, { name: 'Rex', age: 3 }), put('dog', 2), put('dog', 3))
    send({ operation: 'patch', table: 'dog', id: 1, record: { age: 4 } })
    send({ operation: 'delete', table: 'dog', id: 2 }, { operation: 'patch', table: 'dog', id: 3, record: { age: 1 } })
    await applied('h1', 'h2', 'h3')
    assert.deepEqual(host.contents('dev', 'dog'), [
      { id: 1, name: 'Rex', age: 4 },
      { id: 3, age: 1 },
    ])
  })

  it('applies writes to other subscribed tables, and reports those to tables that are not subscribed', async (test) => {
    const logged: object[] = []
    const logger = { ...silentLogger, warn: (fields: object) => void logged.push(fields) }
    const { send, host, applied, counters } = await begin(test, { logger })
    await host.createTable({ database: 'dev', table: 'cat', primaryKey: 'id', attributes: ['id'] })
    send(put('dog', 1), put('cat', 1), put('bird', 1), put('bird', 2))
    send(put('dog', 2), put('bird', 3))
    await applied('h1', 'h2')
    assert.deepEqual([host.contents('dev', 'cat'), host.contents('dev', 'dog').length], [[{ id: 1 }], 2])
    assert.equal(counters.notSubscribed, 3)
    assert.deepEqual(logged, [{ peer: 'node1', database: 'dev', table: 'bird', stream: 'dog', writes: 2 }])
  })

  it('waits for a subscribed table that does not exist here', async (test) => {
    const { send, stream, host, subscriber, reported, applied } = await begin(test)
    send(put('dog', 1))
    send(put('dog', 2), put('cat', 2))
    await eventually('it stalls', () => subscriber.status().state === 'stalled')
    assert.match(subscriber.status().error!, /'dev.cat' does not exist/)
    await applied('h1')
    await host.createTable({ database: 'dev', table: 'cat', primaryKey: 'id', attributes: ['id'] })
    let readers = 1
    await eventually('it is applied', () => {
      for (const reader of stream.readers.slice(readers)) reader.give(stream.stored.get(2)!)
      readers = stream.readers.length
      return host.applied.includes('h2')
    })
    assert.deepEqual(host.contents('dev', 'cat'), [{ id: 2 }])
    assert.equal(reported.filter((each) => each.startsWith('stalled')).length, 1, `${reported}`)
    assert.equal(subscriber.status().error, undefined)
  })

  it('applies the writes of a transaction and keeps what it cannot apply', async (test) => {
    const { send, host, applied, quarantine, subscriber, reported } = await begin(test)
    send(put('dog', 1), { ...put('dog', 2), operation: 'invalidate' })
    send({ ...put('dog', 3), operation: 'publish' })
    send(put('dog', 4))
    await applied('h3')
    assert.deepEqual(
      host.contents('dev', 'dog').map(({ id }) => id),
      [1, 4],
    )
    assert.deepEqual(reported, ['quarantined 1', 'quarantined 2'])
    const [first] = quarantine.list(source)
    assert.deepEqual([first!.cause, first!.id], ['content', 'h1'])
    assert.match(first!.reason, /'invalidate'/)
    assert.deepEqual(await subscriber.replay(), { applied: [], voided: [], kept: [1, 2] })
    assert.deepEqual(await subscriber.discard(), [1, 2])
    assert.deepEqual([quarantine.size, subscriber.status().error], [0, undefined])
  })

  it('gets the attributes that HarperDB defined', async (test) => {
    const defined: [string, string[]][] = []
    const tables = {
      onAttributesDefined: async ({ table }: RemoteTable, names: readonly string[]) =>
        void defined.push([table, [...names]]),
    }
    const { define, send, applied } = await begin(test, {}, tables)
    define('dog', 'age', 'name')
    define('bird', 'age')
    send(put('dog', 1))
    await applied('h3')
    assert.deepEqual(defined, [['dog', ['age', 'name']]])
  })
})

describe('attributes that HarperDB defined', () => {
  it('are added to the local table, if it lacks them', async () => {
    const host = new MemoryHost([['dev', 'dog']])
    const added: string[][] = []
    const attributesFound = async (_: unknown, names: readonly string[]) => void added.push([...names])
    const sources = { ...sourceTables, attributesFound }
    const tables = new LocalTables({ host, timers: systemTimers, begun: new Begun(), sources })
    await tables.check(source)
    await tables.onAttributesDefined(source, ['id', 'age'])
    await tables.onAttributesDefined(source, ['age', 'name'])
    await tables.onAttributesDefined({ ...source, table: 'bird' }, ['age'])
    assert.deepEqual(added, [['age'], ['name']])
  })
})

describe('a relayed transaction of HarperDB', () => {
  it('has a part for each table; only that of the stream has a running number', () => {
    const write = (table: string): Write => ({ operation: 'delete', database: 'dev', table, ids: [1] })
    const transaction = {
      id: 'h1',
      timestamp: makeTimestamp(start, 0, 'node1'),
      writes: [write('dog'), write('cat'), write('dog')],
      origin: { node: 'node1', epoch: '', index: 7, relayedBy: [] },
      sequence: 7,
      index: 7,
    }
    const [dog, cat, ...more] = toRelayed('node2', source, transaction)
    assert.deepEqual(
      [dog!.writes, dog!.origin],
      [[write('dog'), write('dog')], { node: 'node1', epoch: '', index: 7, relayedBy: ['node2'] }],
    )
    assert.deepEqual([cat!.writes, cat!.origin], [[write('cat')], { node: 'node1', relayedBy: ['node2'] }])
    assert.notEqual(cat!.id, dog!.id)
    assert.deepEqual(more, [])
    assert.deepEqual(toRelayed('node2', source, { ...transaction, writes: [] }), [])
  })
})
