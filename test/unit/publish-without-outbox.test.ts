// A host without an outbox: transactions in memory are bounded, each is sent once, and a timeout says whether it may still be sent.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { ClusterError } from '../../lib/errors.ts'
import type { Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Publisher, type PublisherOptions } from '../../lib/replication/publish/publisher.ts'
import { eventually } from '../support/cluster.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'

const dog = { database: 'dev', table: 'dog' }

let count = 0
const transaction = (id: string, row: object = {}): Transaction => ({
  id,
  timestamp: makeTimestamp(Date.now(), count++, node),
  writes: [insert('dog', { id, ...row })],
})

async function start(test: TestContext, options: Partial<PublisherOptions> = {}) {
  const leaf = await MemoryLeaf.open(test)
  const publisher = new Publisher({
    mesh: leaf.mesh,
    host: new MemoryHost([['dev', 'dog']], { outbox: false }),
    node,
    logger: silentLogger,
    window: 100,
    maxInFlight: 3,
    maxInFlightBytes: 1e9,
    timeout: 200,
    requestTimeout: 10_000,
    ...options,
  })
  // The publisher's timer does not keep the process alive.
  const awake = setInterval(() => {}, 1_000)
  test.after(async () => {
    clearInterval(awake)
    await leaf.network.close()
    await publisher.close()
  })
  return { leaf, publisher }
}

const codeOf = (error: unknown) =>
  error instanceof ClusterError ? `${error.code}, mayStillBeSent: ${error.mayStillBeSent}` : String(error)
const outcomes = (all: Promise<void>[]) =>
  Promise.all(
    all.map((each) =>
      each.then(
        () => 'stored',
        (error) => codeOf(error),
      ),
    ),
  )
const turns = async () => {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
}

describe('publish without an outbox', { concurrency: true, timeout: 30_000 }, () => {
  it('refuses at once what is beyond the limits, and sends what it accepted when the leaf is back', async (test) => {
    const { leaf, publisher } = await start(test, { timeout: 2_000 })
    leaf.network.crash(node)
    const accepted = ['a', 'b', 'c'].map((id) => publisher.publish(transaction(id)))
    const refused = ['d', 'e'].map((id) => publisher.publish(transaction(id)))
    assert.deepEqual(await outcomes(refused), Array(2).fill('publish_timeout, mayStillBeSent: false'))
    assert.deepEqual(await outcomes(accepted), Array(3).fill('publish_timeout, mayStillBeSent: true'))
    assert.equal(publisher.metrics().inFlight, 3)
    leaf.network.restart(node)
    publisher.resume()
    await eventually('the accepted ones are stored', async () => publisher.metrics().inFlight === 0)
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c'])
    await publisher.publish(transaction('d'))
    assert.deepEqual(await leaf.ids(dog), ['a', 'b', 'c', 'd'])
  })

  it('is bounded in bytes', async (test) => {
    const { leaf, publisher } = await start(test, { maxInFlight: 1_000, maxInFlightBytes: 2_500, timeout: 10_000 })
    leaf.held = true
    const text = 'x'.repeat(1_000)
    const all = Array.from({ length: 100 }, (_, index) => publisher.publish(transaction(`${index}`, { text })))
    for (const each of all) each.catch(() => {})
    await turns()
    const { inFlight, inFlightBytes } = publisher.metrics()
    assert.equal(inFlight, 3)
    assert.ok(inFlightBytes < 4_000)
    await leaf.release()
    assert.deepEqual((await outcomes(all.slice(0, 4))).slice(0, 4), [
      'stored',
      'stored',
      'stored',
      'publish_timeout, mayStillBeSent: false',
    ])
  })

  it('of a transaction that timed out sends it once, before and after it was stored', async (test) => {
    const { leaf, publisher } = await start(test, { timeout: 2_000 })
    leaf.held = true
    const again = transaction('again')
    assert.deepEqual(await outcomes([publisher.publish(again)]), ['publish_timeout, mayStillBeSent: true'])
    const second = publisher.publish(again)
    await leaf.release()
    await second
    await publisher.publish(again)
    await eventually('it is confirmed', () => publisher.metrics().inFlight === 0)
    await publisher.publish(again)
    assert.deepEqual(await leaf.ids(dog), ['again'])
  })

  it('keeps the order of the calls, and those of relayed transactions', async (test) => {
    const { leaf, publisher } = await start(test, { maxInFlight: 100, timeout: 10_000 })
    const all = [publisher.publish(transaction('a'))]
    publisher.relay([transaction('relayed'), transaction('relayed too')])
    all.push(publisher.publish(transaction('b')))
    await Promise.all(all)
    assert.deepEqual(await leaf.ids(dog), ['a', 'relayed', 'relayed too', 'b'])
  })

  it('rejects a transaction that can never be sent each time, and keeps nothing of it', async (test) => {
    const { publisher } = await start(test, { timeout: 10_000 })
    const bad = transaction('line\nbreak')
    await assert.rejects(publisher.publish(bad), { code: 'invalid_request' })
    await eventually('nothing is in flight', () => publisher.metrics().inFlight === 0)
    await assert.rejects(publisher.publish(bad), { code: 'invalid_request' })
    await publisher.publish(transaction('good'))
  })
})

describe('publish with an outbox', { concurrency: true, timeout: 30_000 }, () => {
  async function startWithOutbox(test: TestContext, options: Partial<PublisherOptions> = {}) {
    const host = new MemoryHost([['dev', 'dog']])
    return { host, ...(await start(test, { host, maxInFlight: 1_000, timeout: 10_000, ...options })) }
  }

  it('rejects a transaction that is not in the outbox', async (test) => {
    const { leaf, host, publisher } = await startWithOutbox(test)
    await assert.rejects(publisher.publish(transaction('forgotten')), { code: 'not_in_outbox', retryable: false })
    const late = transaction('late')
    await assert.rejects(publisher.publish(late), { code: 'not_in_outbox' })
    host.outbox.push(late)
    await publisher.publish(late)
    assert.deepEqual(await leaf.ids(dog), ['late'])
  })

  it('resolves for a transaction that another call has led to be published', async (test) => {
    const { host, publisher } = await startWithOutbox(test)
    const all = ['a', 'b', 'c'].map((id) => transaction(id))
    host.outbox.push(...all)
    await publisher.publish(all[2]!)
    await eventually('all are confirmed', () => host.outbox.length === 0)
    assert.deepEqual(await outcomes(all.map((each) => publisher.publish(each))), Array(3).fill('stored'))
  })

  it('publishes what is in the outbox, even if its id is that of a confirmed transaction', async (test) => {
    const { leaf, host, publisher } = await startWithOutbox(test)
    const cat = { database: 'dev', table: 'cat' }
    for (const [id, table] of [
      ['again', 'dog'],
      ['other', 'dog'],
      ['again', 'cat'],
    ] as const) {
      const each = { ...transaction(id), writes: [insert(table, { id })] }
      host.outbox.push(each)
      await publisher.publish(each)
      await eventually('it is confirmed', () => host.outbox.length === 0)
    }
    assert.deepEqual([await leaf.ids(dog), await leaf.ids(cat)], [['again', 'other'], ['again']])
  })

  it('remembers a bounded number of confirmed transactions, and then says that it does not know', async (test) => {
    const { host, publisher } = await startWithOutbox(test, { maxInFlight: 2 })
    const all = Array.from({ length: 40 }, (_, index) => transaction(`${index}`))
    host.outbox.push(...all)
    await publisher.publish(all.at(-1)!)
    await eventually('all are confirmed', () => host.outbox.length === 0)
    const publishAgain = (some: Transaction[]) => outcomes(some.map((each) => publisher.publish(each)))
    assert.deepEqual(await publishAgain(all.slice(-10)), Array(10).fill('stored'))
    assert.deepEqual(await publishAgain(all.slice(0, 20)), Array(20).fill('not_in_outbox, mayStillBeSent: undefined'))
  })

  it('says in a timeout that the outbox keeps the transaction', async (test) => {
    const { leaf, host, publisher } = await startWithOutbox(test, { timeout: 200 })
    leaf.held = true
    const one = transaction('one')
    host.outbox.push(one)
    await assert.rejects(publisher.publish(one), { code: 'publish_timeout', mayStillBeSent: true })
  })
})
