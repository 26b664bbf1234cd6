// The publisher: in the order of the outbox, each transaction once, and confirmed only when it is wholly stored.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Publisher, type PublisherOptions } from '../../lib/replication/publish/publisher.ts'
import { eventually } from '../support/cluster.ts'
import { fakeSystemTimers, setClock } from '../support/elapsed.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'
import { MemoryLeaf, node } from '../support/memory-leaf.ts'

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }

let count = 0
/** A write of one row into each of these tables. */
const transaction = (id: string, tables = ['dog'], row: object = {}): Transaction => ({
  id,
  timestamp: makeTimestamp(Date.now(), count++, node),
  writes: tables.map((table) => insert(table, { id, ...row })),
})

/** A host whose outbox methods a test can replace. */
class ScriptedHost extends MemoryHost {
  read = (after?: { id: string }): AsyncIterable<Transaction> => super.readOutbox(after)
  confirm = (...args: Parameters<MemoryHost['confirmPublished']>): Promise<void> => super.confirmPublished(...args)

  override async *readOutbox(after?: { id: string }): AsyncIterable<Transaction> {
    yield* this.read(after)
  }

  override confirmPublished(...args: Parameters<MemoryHost['confirmPublished']>): Promise<void> {
    return this.confirm(...args)
  }
}

type Scene = {
  leaf: MemoryLeaf
  host: ScriptedHost
  publisher: Publisher
  publish(...all: Transaction[]): Promise<void>[]
}

async function start(test: TestContext, options: Partial<PublisherOptions> = {}): Promise<Scene> {
  const leaf = await MemoryLeaf.open(test)
  const host = new ScriptedHost()
  return { leaf, host, ...openPublisher(test, leaf, host, options) }
}

/** A publisher with this leaf and this host. */
function openPublisher(test: TestContext, leaf: MemoryLeaf, host: MemoryHost, options: Partial<PublisherOptions> = {}) {
  const publisher = new Publisher({
    mesh: leaf.mesh,
    host,
    node,
    logger: silentLogger,
    window: 100,
    frames: { transactions: 1 },
    maxInFlight: 1_000,
    maxInFlightBytes: 1e9,
    timeout: 10_000,
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
  /** Adds the transactions to the outbox and publishes them. */
  const publish = (...all: Transaction[]) => {
    host.outbox.push(...all)
    return all.map((each) => {
      const published = publisher.publish(each)
      published.catch(() => {})
      return published
    })
  }
  return { publisher, publish }
}

const turns = async (many = 10) => {
  for (let turn = 0; turn < many; turn++) await new Promise((resolve) => setImmediate(resolve))
}

const isPending = async (promise: Promise<unknown>): Promise<boolean> =>
  (await Promise.race([
    promise.then(
      () => 'settled',
      () => 'settled',
    ),
    turns().then(() => 'pending'),
  ])) === 'pending'

const outboxOf = ({ outbox }: MemoryHost) => outbox.map(({ id }) => id)

it('a call of publish does not time out when the system clock is set forward', async (test) => {
  fakeSystemTimers(test, 'setInterval')
  const { leaf, publish } = await start(test)
  leaf.held = true
  const [one] = publish(transaction('one'))
  setClock(test, 3_600_000)
  test.mock.timers.tick(1_000)
  assert.ok(await isPending(one!))
  await leaf.release()
  await one
})

describe('the outbox', { concurrency: true, timeout: 30_000 }, () => {
  it('decides the order, not the calls of publish', async (test) => {
    const { leaf, host, publisher } = await start(test)
    const [first, second] = [transaction('first'), transaction('second')]
    host.outbox.push(first, second)
    await Promise.all([publisher.publish(second), publisher.publish(first)])
    assert.deepEqual(await leaf.ids(dog), ['first', 'second'])
  })

  it('is confirmed only up to the first transaction that is not wholly stored', async (test) => {
    const { leaf, host, publish } = await start(test)
    await Promise.all(publish(transaction('before')))
    await eventually('the outbox is empty', () => host.outbox.length === 0)
    const before = host.publishedPositions.size
    leaf.held = true
    const [both, later] = publish(transaction('both', ['dog', 'cat']), transaction('later', ['cat']))
    const ofCat = await eventually('the messages of both tables are sent', () => {
      const sent = leaf.appends.filter(({ table }) => table.table === 'cat')
      return sent.length === 2 && sent
    })
    for (const each of ofCat) await each.pass()
    await later
    assert.ok(await isPending(both!), 'one part is not stored')
    assert.deepEqual(outboxOf(host), ['both', 'later'])
    assert.deepEqual((await host.publishedPosition('dev', 'cat'))?.sequence, 0)
    assert.equal(host.publishedPositions.size, before + 1)
    await leaf.release()
    await both
    await eventually('the outbox is empty', () => host.outbox.length === 0)
    assert.equal((await host.publishedPosition('dev', 'cat'))?.sequence, 2)
    assert.equal((await host.publishedPosition('dev', 'dog'))?.sequence, 2)
  })

  it('stores the epoch before any message is appended, and has it after a restart', async (test) => {
    const { leaf, host, publisher } = await start(test)
    const position = await publisher.ensure(dog)
    assert.deepEqual(await host.publishedPosition('dev', 'dog'), { ...dog, ...position, id: '' })
    await publisher.close()
    assert.deepEqual(await openPublisher(test, leaf, host).publisher.ensure(dog), position)
    // With another epoch in the host, the writer begins a new one.
    host.publishedPositions.set(JSON.stringify(['dev', 'dog']), {
      ...dog,
      epoch: 'another',
      sequence: 0,
      index: 0,
      id: '',
    })
    assert.notEqual((await openPublisher(test, leaf, host).publisher.ensure(dog)).epoch, position.epoch)
  })

  it('is read and confirmed again after a failure', async (test) => {
    const { leaf, host, publish } = await start(test)
    const { read, confirm } = host
    let failures = 0
    host.read = () => {
      host.read = read
      failures++
      throw new Error('not now')
    }
    host.confirm = async (...args) => {
      if (!args[0].upTo) return confirm(...args)
      host.confirm = confirm
      failures++
      throw new Error('not now')
    }
    const [one] = publish(transaction('one'))
    await one
    await eventually('it is confirmed', () => host.outbox.length === 0)
    assert.equal(failures, 2)
    assert.deepEqual(await leaf.ids(dog), ['one'])
  })

  it('is confirmed again only after a delay when the host rejects it', async (test) => {
    const { host, publish } = await start(test)
    let refusals = 0
    host.confirm = async ({ upTo }) => {
      if (upTo && refusals++ < 10_000) throw new Error('not now')
    }
    const started = Date.now()
    await Promise.all(publish(transaction('one')))
    await delay(300)
    assert.ok(refusals <= 1 + (Date.now() - started) / 1_000, `${refusals} refusals`)
  })

  it('may ignore the cursor and show confirmed transactions: none is published twice', async (test) => {
    const { leaf, host, publish } = await start(test)
    const gates: (() => void)[] = []
    host.read = async function* () {
      const snapshot = [...host.outbox]
      await new Promise<void>((resolve) => gates.push(resolve))
      yield* snapshot
    }
    leaf.held = true
    publish(transaction('one'))
    await eventually('the first pass', () => gates.length === 1)
    gates[0]!()
    const one = await leaf.sent(0)
    const [two] = publish(transaction('two'))
    await eventually('the next pass', () => gates.length === 2)
    // This snapshot still contains the first transaction.
    await one.pass()
    await eventually('it is confirmed', () => host.outbox.length === 1)
    gates[1]!()
    await leaf.sent(1)
    // This one contains the second, which is in flight.
    const [three] = publish(transaction('three'))
    await eventually('the next pass', () => gates.length === 3)
    gates[2]!()
    await leaf.sent(2)
    await leaf.release()
    await Promise.all([two, three])
    assert.deepEqual(await leaf.ids(dog), ['one', 'two', 'three'])
  })

  it('is read again when a transaction is added during a pass', async (test) => {
    const { leaf, host, publish } = await start(test)
    let gate: (() => void) | undefined
    const { read } = host
    host.read = async function* () {
      yield* [...host.outbox]
      await new Promise<void>((resolve) => {
        gate = resolve
      })
      host.read = read
    }
    leaf.held = true
    publish(transaction('one'))
    await eventually('the pass reaches its end', () => gate)
    const [two] = publish(transaction('two'))
    gate!()
    // The pass that has just ended began before the call, so its result does not count.
    await turns()
    assert.ok(await isPending(two!))
    await leaf.release()
    await two
    assert.deepEqual(await leaf.ids(dog), ['one', 'two'])
  })

  it('is confirmed in whatever microtask an acknowledgement arrives', async (test) => {
    // During the confirmation, and in each microtask after it.
    for (let microtasks = 0; microtasks < 12; microtasks++) {
      const { leaf, host, publish } = await start(test)
      leaf.held = true
      const all = publish(transaction('one'), transaction('two'))
      const [first, second] = [await leaf.sent(0), await leaf.sent(1)]
      await second.store().catch(() => {})
      const { confirm } = host
      host.confirm = async (...args) => {
        await confirm(...args)
        host.confirm = confirm
        void (async () => {
          for (let passed = 0; passed < microtasks; passed++) await undefined
          second.answer(undefined, 2)
        })()
      }
      await first.store()
      first.answer(undefined, 1)
      await Promise.all(all)
      await eventually(`the outbox is empty, ${microtasks} microtasks later`, () => host.outbox.length === 0)
    }
  })
})

describe('publish', { concurrency: true, timeout: 30_000 }, () => {
  it('resolves for a transaction that is stored, before and after its confirmation', async (test) => {
    const { host, publisher, publish } = await start(test)
    let finishConfirm = () => {}
    const { confirm } = host
    host.confirm = async (...args) => {
      if (args[0].upTo)
        await new Promise<void>((resolve) => {
          finishConfirm = resolve
        })
      return confirm(...args)
    }
    const one = transaction('one')
    await Promise.all(publish(one))
    await publisher.publish(one)
    finishConfirm()
    await eventually('it is confirmed', () => host.outbox.length === 0)
    await publisher.publish(one)
  })

  it('called twice for one transaction publishes it once', async (test) => {
    const { leaf, host, publisher } = await start(test)
    const one = transaction('one')
    host.outbox.push(one)
    await Promise.all([publisher.publish(one), publisher.publish(one)])
    assert.deepEqual(await leaf.ids(dog), ['one'])
  })

  it('rejects after its timeout, and the transaction is still published', async (test) => {
    const { leaf, host, publish } = await start(test, { timeout: 200 })
    leaf.held = true
    const started = performance.now()
    const [one] = publish(transaction('one'))
    await assert.rejects(one!, { code: 'publish_timeout' })
    // A timer may be 1 ms early.
    assert.ok(performance.now() - started >= 199)
    await leaf.release()
    await eventually('it is confirmed', () => host.outbox.length === 0)
    assert.deepEqual(await leaf.ids(dog), ['one'])
  })

  it('rejects at once when too many calls wait', async (test) => {
    const { leaf, publisher, publish } = await start(test, { maxInFlight: 2 })
    leaf.held = true
    const all = publish(...Array.from({ length: 20 }, (_, index) => transaction(`${index}`)))
    assert.equal(publisher.metrics().waiting, 20)
    const [rejected] = publish(transaction('one more'))
    assert.ok(!(await isPending(rejected!)))
    await assert.rejects(rejected!, { code: 'publish_timeout' })
    await leaf.release()
    await Promise.all(all)
  })
})

describe('memory for transactions in flight', { concurrency: true, timeout: 30_000 }, () => {
  it('is bounded in transactions', async (test) => {
    const { leaf, publisher, publish } = await start(test, { maxInFlight: 3 })
    leaf.held = true
    const all = publish(...Array.from({ length: 10 }, (_, index) => transaction(`${index}`)))
    await leaf.sent(2)
    await turns()
    assert.deepEqual([publisher.metrics().inFlight, leaf.appends.length], [3, 3])
    await leaf.release()
    await Promise.all(all)
  })

  it('is bounded in bytes, except for a single larger transaction', async (test) => {
    const { leaf, publisher, publish } = await start(test, { maxInFlightBytes: 2_500 })
    leaf.held = true
    const row = { text: 'x'.repeat(1_000) }
    const all = publish(...Array.from({ length: 10 }, (_, index) => transaction(`${index}`, ['dog'], row)))
    await leaf.sent(2)
    await turns()
    assert.equal(publisher.metrics().inFlight, 3)
    await leaf.release()
    await Promise.all(all)
    await Promise.all(publish(transaction('large', ['dog'], { text: 'x'.repeat(10_000) })))
  })
})

describe('a transaction that can never be published', { concurrency: true, timeout: 30_000 }, () => {
  it('has more values than a peer decodes, or an invalid id', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    const { publish } = openPublisher(test, leaf, new ScriptedHost())
    const values = Array.from({ length: 4_200_000 }, () => 1)
    const [many, empty, long, longest] = publish(
      transaction('many', ['dog'], { values }),
      transaction(''),
      transaction('x'.repeat(1_025)),
      transaction('x'.repeat(1_024)),
    )
    await assert.rejects(many!, {
      code: 'transaction_too_large',
      message: /has more values .* more than the limit of 4193280/,
    })
    for (const bad of [empty, long]) await assert.rejects(bad!, { code: 'invalid_request', message: /its id/ })
    await longest
  })

  it('stays in the outbox, is rejected, and does not hold up later transactions', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    Object.assign(leaf.overrides, { maxPayload: 200_000 })
    const host = new ScriptedHost()
    const { publisher, publish } = openPublisher(test, leaf, host)
    const large = transaction('large', ['dog'], { text: 'x'.repeat(200_000) })
    const broken = transaction('line\nbreak')
    const [before, first, second, after] = publish(transaction('before'), large, broken, transaction('after'))
    await assert.rejects(first!, { code: 'transaction_too_large' })
    await assert.rejects(second!, { code: 'invalid_request' })
    await Promise.all([before, after])
    await eventually('only the rejected ones are in the outbox', () => host.outbox.length === 2)
    await assert.rejects(publisher.publish(large), { code: 'transaction_too_large' })
    // A host may show its whole outbox in each pass.
    const { read } = host
    host.read = () => read()
    await Promise.all(publish(transaction('later')))
    await eventually('it is confirmed', () => host.outbox.length === 2)
    assert.deepEqual(outboxOf(host), ['large', 'line\nbreak'])
    assert.equal(publisher.metrics().rejected, 2)
    assert.deepEqual(await leaf.ids(dog), ['before', 'after', 'later'])
    await publisher.close()
    const { publish: publishAgain } = openPublisher(test, leaf, host)
    await Promise.all(publishAgain(transaction('restarted')))
    await eventually('it is confirmed', () => host.outbox.length === 2)
    assert.deepEqual(await leaf.ids(dog), ['before', 'after', 'later', 'restarted'])
  })
})

describe('after the mesh has reconnected', { concurrency: true, timeout: 30_000 }, () => {
  it('publishes the outbox without another call of publish', async (test) => {
    const { leaf, host, publisher, publish } = await start(test)
    await Promise.all(publish(transaction('before', ['dog', 'cat'])))
    leaf.network.crash(node)
    publish(transaction('meanwhile', ['dog', 'cat']))
    await delay(20)
    leaf.network.restart(node)
    publisher.resume()
    await eventually('it is confirmed', () => host.outbox.length === 0)
    assert.deepEqual(
      [await leaf.ids(dog), await leaf.ids(cat)],
      [
        ['before', 'meanwhile'],
        ['before', 'meanwhile'],
      ],
    )
  })
})

// Not concurrent with other tests, because it keeps the process busy.
describe('a long outbox', { timeout: 60_000 }, () => {
  const all = Array.from({ length: 10_003 }, (_, index) => transaction(`${index}`))

  /** Reads the whole outbox. Resolves with the cursor of each pass and the number of transactions that it read. */
  async function readAll(test: TestContext, give: (after: { id: string } | undefined) => Transaction[]) {
    const { leaf, host, publisher } = await start(test, { maxInFlight: 20_000, window: 20_000 })
    const passes: { after: string | undefined; read: number }[] = []
    host.read = async function* (after) {
      const pass = { after: after?.id, read: 0 }
      passes.push(pass)
      await new Promise((resolve) => setImmediate(resolve))
      for (const each of give(after)) {
        pass.read++
        yield each
      }
    }
    // No transaction is confirmed meanwhile.
    leaf.held = true
    publisher.wake()
    await eventually('all are appended', () => leaf.appends.length === all.length)
    assert.deepEqual(
      leaf.appends.map(({ id }) => id),
      all.map(({ id }) => id),
    )
    return passes
  }

  it('is read in passes of a bounded length, each behind the previous one', async (test) => {
    const passes = await readAll(test, (after) => all.slice(all.findIndex(({ id }) => id === after?.id) + 1))
    assert.deepEqual(passes, [
      { after: undefined, read: 10_000 },
      { after: '9999', read: 3 },
    ])
  })

  it('is read to its end even if each pass starts at its beginning', async (test) => {
    const passes = await readAll(test, () => all)
    assert.deepEqual(passes, [
      { after: undefined, read: 10_000 },
      { after: '9999', read: 10_003 },
    ])
  })
})
