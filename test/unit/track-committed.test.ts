// Whether the streams have everything that the database had committed, whatever the publisher has read of the outbox so far.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import type { Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Publisher } from '../../lib/replication/publish/publisher.ts'
import { eventually } from '../support/cluster.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'

let count = 0
const transaction = (id: string): Transaction => ({
  id,
  timestamp: makeTimestamp(1_700_000_000_000, count++, node),
  writes: [insert('dog', { id })],
})

async function open(test: TestContext, host: MemoryHost) {
  const leaf = await MemoryLeaf.open(test)
  const publisher = new Publisher({
    mesh: leaf.mesh,
    host,
    node,
    logger: silentLogger,
    window: 100,
    maxInFlight: 1_000,
    maxInFlightBytes: 1e9,
    timeout: 10_000,
    requestTimeout: 10_000,
  })
  test.after(() => publisher.close())
  return { leaf, publisher }
}

it('what another process left in the outbox is not published before it is read and stored', async (test) => {
  const host = new MemoryHost()
  host.outbox.push(transaction('left'))
  let read = () => {}
  const held = new Promise<void>((resolve) => {
    read = resolve
  })
  const { readOutbox } = MemoryHost.prototype
  host.readOutbox = async function* (after) {
    await held
    yield* readOutbox.call(host, after)
  }
  const { leaf, publisher } = await open(test, host)
  leaf.held = true
  const isPublished = publisher.trackCommitted()
  assert.equal(isPublished(), false, 'the outbox is not read')
  read()
  const append = await leaf.sent(0)
  assert.equal(isPublished(), false, 'the leaf has not stored it')
  await append.pass()
  await eventually('it is stored', isPublished)
})

it('a commit that nobody has published is found, and later ones are not waited for', async (test) => {
  const host = new MemoryHost()
  const { leaf, publisher } = await open(test, host)
  publisher.resume()
  await eventually('nothing is to be published', publisher.trackCommitted())
  leaf.held = true
  host.outbox.push(transaction('committed'))
  const isPublished = publisher.trackCommitted()
  const append = await leaf.sent(0)
  assert.equal(isPublished(), false)
  host.outbox.push(transaction('later'))
  publisher.wake()
  await append.pass()
  await eventually('it is stored', isPublished)
  const isLaterPublished = publisher.trackCommitted()
  await leaf.sent(1)
  assert.equal(isLaterPublished(), false)
})

it('without an outbox only what is in flight counts', async (test) => {
  const { leaf, publisher } = await open(test, new MemoryHost([], { outbox: false }))
  assert.equal(publisher.trackCommitted()(), true)
  leaf.held = true
  const published = publisher.publish(transaction('one'))
  const isPublished = publisher.trackCommitted()
  assert.equal(isPublished(), false)
  await (await leaf.sent(0)).pass()
  await published
  assert.equal(isPublished(), true)
})
