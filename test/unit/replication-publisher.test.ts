// From the outbox to the streams: in the order of the outbox, once, and out of the outbox only what is wholly stored.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Transaction } from '../../lib/host/host.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Publisher, type PublisherOptions } from '../../lib/replication/publish/publisher.ts'
import { makeTimestamp } from '../../lib/util/hybrid-clock.ts'
import { eventually } from '../support/cluster.ts'
import { setClock } from '../support/elapsed.ts'
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

/** Its outbox is in the test's hands. */
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
  return { leaf, host, ...over(test, leaf, host, options) }
}

/** A publisher of its own over this leaf and this host. */
function over(test: TestContext, leaf: MemoryLeaf, host: MemoryHost, options: Partial<PublisherOptions> = {}) {
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
    ...options,
  })
  // Its own timer keeps no process alive.
  const awake = setInterval(() => {}, 1_000)
  test.after(async () => {
    clearInterval(awake)
    await leaf.network.close()
    await publisher.close()
  })
  /** Commits them, and publishes. */
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

/** Has it neither resolved nor rejected? */
const isPending = async (promise: Promise<unknown>): Promise<boolean> =>
  (await Promise.race([
    promise.then(
      () => 'settled',
      () => 'settled',
    ),
    turns().then(() => 'pending'),
  ])) === 'pending'

const outboxOf = ({ outbox }: MemoryHost) => outbox.map(({ id }) => id)

it('what is published waits on when the clock is set forward meanwhile', async (test) => {
  test.mock.timers.enable({ apis: ['setInterval'] })
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
  it('decides the order, whatever was published first', async (test) => {
    const { leaf, host, publisher } = await start(test)
    const [first, second] = [transaction('first'), transaction('second')]
    host.outbox.push(first, second)
    await Promise.all([publisher.publish(second), publisher.publish(first)])
    assert.deepEqual(await leaf.ids(dog), ['first', 'second'])
  })

  it('gives up only a prefix of what is wholly stored', async (test) => {
    const { leaf, host, publish } = await start(test)
    await Promise.all(publish(transaction('before')))
    await eventually('it is confirmed', () => host.outbox.length === 0)
    const before = host.publishedPositions.size
    leaf.held = true
    const [both, later] = publish(transaction('both', ['dog', 'cat']), transaction('later', ['cat']))
    const ofCat = await eventually('the messages of both tables are sent', () => {
      const sent = leaf.appends.filter(({ table }) => table.table === 'cat')
      return sent.length === 2 && sent
    })
    for (const each of ofCat) await each.pass()
    await later
    assert.ok(await isPending(both!), 'a part of it is not stored')
    assert.deepEqual(outboxOf(host), ['both', 'later'])
    assert.deepEqual((await host.publishedPosition('dev', 'cat'))?.sequence, 0)
    assert.equal(host.publishedPositions.size, before + 1)
    await leaf.release()
    await both
    await eventually('both leave', () => host.outbox.length === 0)
    assert.equal((await host.publishedPosition('dev', 'cat'))?.sequence, 2)
    assert.equal((await host.publishedPosition('dev', 'dog'))?.sequence, 2)
  })

  it('is told of the epoch before anything is sent, and remembers it after a start', async (test) => {
    const { leaf, host, publisher } = await start(test)
    const position = await publisher.ensure(dog)
    assert.deepEqual(await host.publishedPosition('dev', 'dog'), { ...dog, ...position, id: '' })
    await publisher.close()
    assert.deepEqual(await over(test, leaf, host).publisher.ensure(dog), position)
    // What the host does not know is not ours.
    host.publishedPositions.set(JSON.stringify(['dev', 'dog']), { ...dog, epoch: 'another', sequence: 0, id: '' })
    assert.notEqual((await over(test, leaf, host).publisher.ensure(dog)).epoch, position.epoch)
  })

  it('that cannot be read, or not be written, is tried again', async (test) => {
    const { leaf, host, publish } = await start(test)
    const { read, confirm } = host
    let failures = 0
    host.read = () => {
      host.read = read
      failures++
      throw new Error('not now')
    }
    host.confirm = async (...args) => {
      if (!args[1]) return confirm(...args)
      host.confirm = confirm
      failures++
      throw new Error('not now')
    }
    const [one] = publish(transaction('one'))
    await one
    await eventually('it leaves', () => host.outbox.length === 0)
    assert.equal(failures, 2)
    assert.deepEqual(await leaf.ids(dog), ['one'])
  })

  it('that refuses is not asked without a pause', async (test) => {
    const { host, publish } = await start(test)
    let refusals = 0
    host.confirm = async (_, through) => {
      if (through && refusals++ < 10_000) throw new Error('not now')
    }
    const started = Date.now()
    await Promise.all(publish(transaction('one')))
    await delay(300)
    assert.ok(refusals <= 1 + (Date.now() - started) / 1_000, `${refusals} refusals`)
  })

  it('whose reader ignores where to begin, and shows what has left meanwhile: nothing is sent twice', async (test) => {
    const { leaf, host, publish } = await start(test)
    const gates: (() => void)[] = []
    host.read = async function* () {
      const snapshot = [...host.outbox]
      await new Promise<void>((resolve) => gates.push(resolve))
      yield* snapshot
    }
    leaf.held = true
    publish(transaction('one'))
    await eventually('it is read', () => gates.length === 1)
    gates[0]!()
    const one = await leaf.sent(0)
    const [two] = publish(transaction('two'))
    await eventually('it is read again', () => gates.length === 2)
    // In this snapshot it still is.
    await one.pass()
    await eventually('it leaves', () => host.outbox.length === 1)
    gates[1]!()
    await leaf.sent(1)
    // And in this one the second is, while it is in flight.
    const [three] = publish(transaction('three'))
    await eventually('it is read again', () => gates.length === 3)
    gates[2]!()
    await leaf.sent(2)
    await leaf.release()
    await Promise.all([two, three])
    assert.deepEqual(await leaf.ids(dog), ['one', 'two', 'three'])
  })

  it('is read once more when there is more while it is being read', async (test) => {
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
    await eventually('the end is near', () => gate)
    const [two] = publish(transaction('two'))
    gate!()
    // The pass that has just ended did not see it: that says nothing of it.
    await turns()
    assert.ok(await isPending(two!))
    await leaf.release()
    await two
    assert.deepEqual(await leaf.ids(dog), ['one', 'two'])
  })

  it('is emptied of what was stored in whatever turn', async (test) => {
    // While the host's answer is on its way, and in each of the moments after it.
    for (let moments = 0; moments < 12; moments++) {
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
          for (let moment = 0; moment < moments; moment++) await undefined
          second.answer(undefined, 2)
        })()
      }
      await first.store()
      first.answer(undefined, 1)
      await Promise.all(all)
      await eventually(`it leaves, ${moments} moments later`, () => host.outbox.length === 0)
    }
  })
})

describe('publish', { concurrency: true, timeout: 30_000 }, () => {
  it('of what was sent and has left, or is about to, resolves', async (test) => {
    const { host, publisher, publish } = await start(test)
    let leave = () => {}
    const { confirm } = host
    host.confirm = async (...args) => {
      if (args[1])
        await new Promise<void>((resolve) => {
          leave = resolve
        })
      return confirm(...args)
    }
    const one = transaction('one')
    await Promise.all(publish(one))
    await publisher.publish(one)
    leave()
    await eventually('it leaves', () => host.outbox.length === 0)
    await publisher.publish(one)
  })

  it('twice of one transaction is one', async (test) => {
    const { leaf, host, publisher } = await start(test)
    const one = transaction('one')
    host.outbox.push(one)
    await Promise.all([publisher.publish(one), publisher.publish(one)])
    assert.deepEqual(await leaf.ids(dog), ['one'])
  })

  it('waits as long as it may, and then says so; the outbox has it, and it is sent', async (test) => {
    const { leaf, host, publish } = await start(test, { timeout: 200 })
    leaf.held = true
    const started = Date.now()
    const [one] = publish(transaction('one'))
    await assert.rejects(one!, { code: 'publish_timeout' })
    assert.ok(Date.now() - started >= 200)
    await leaf.release()
    await eventually('it leaves', () => host.outbox.length === 0)
    assert.deepEqual(await leaf.ids(dog), ['one'])
  })

  it('of more than may wait at once is refused at once', async (test) => {
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

  it('that came to nothing is forgotten where no outbox keeps it', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    const host = new MemoryHost([], { outbox: false })
    const { publisher } = over(test, leaf, host, { timeout: 200, maxInFlight: 1 })
    leaf.held = true
    // The second waits for room, and the third behind it.
    const all = ['sent', 'next', 'unread'].map((id) => publisher.publish(transaction(id)))
    for (const each of all) await assert.rejects(each, { code: 'publish_timeout' })
    await leaf.release()
    await publisher.publish(transaction('later'))
    assert.deepEqual(await leaf.ids(dog), ['sent', 'later'])
    // As its error said: once more, and it is stored once.
    await publisher.publish(transaction('next'))
    assert.deepEqual(await leaf.ids(dog), ['sent', 'later', 'next'])
  })
})

describe('what is in memory', { concurrency: true, timeout: 30_000 }, () => {
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

  it('is bounded in bytes, one beyond them alone', async (test) => {
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

describe('what cannot be sent', { concurrency: true, timeout: 30_000 }, () => {
  it('is what nobody could read: more values than anybody decodes, an id that is no line', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    const { publish } = over(test, leaf, new ScriptedHost())
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

  it('stays in the outbox, is told once, and what follows passes it by', async (test) => {
    const leaf = await MemoryLeaf.open(test)
    Object.assign(leaf.overrides, { maxPayload: 200_000 })
    const host = new ScriptedHost()
    const { publisher, publish } = over(test, leaf, host)
    const large = transaction('large', ['dog'], { text: 'x'.repeat(200_000) })
    const broken = transaction('line\nbreak')
    const [before, first, second, after] = publish(transaction('before'), large, broken, transaction('after'))
    await assert.rejects(first!, { code: 'transaction_too_large' })
    await assert.rejects(second!, { code: 'invalid_request' })
    await Promise.all([before, after])
    await eventually('the others leave', () => host.outbox.length === 2)
    await assert.rejects(publisher.publish(large), { code: 'transaction_too_large' })
    // A host may show all of its outbox each time.
    const { read } = host
    host.read = () => read()
    await Promise.all(publish(transaction('later')))
    await eventually('it leaves', () => host.outbox.length === 2)
    assert.deepEqual(outboxOf(host), ['large', 'line\nbreak'])
    assert.equal(publisher.metrics().rejected, 2)
    assert.deepEqual(await leaf.ids(dog), ['before', 'after', 'later'])
    await publisher.close()
    const { publish: publishAgain } = over(test, leaf, host)
    await Promise.all(publishAgain(transaction('anew')))
    await eventually('it leaves', () => host.outbox.length === 2)
    assert.deepEqual(await leaf.ids(dog), ['before', 'after', 'later', 'anew'])
  })
})

describe('when the mesh is back', { concurrency: true, timeout: 30_000 }, () => {
  it('what the leaf missed is sent, though nothing is published any more', async (test) => {
    const { leaf, host, publisher, publish } = await start(test)
    await Promise.all(publish(transaction('before', ['dog', 'cat'])))
    leaf.network.crash(node)
    publish(transaction('meanwhile', ['dog', 'cat']))
    await delay(20)
    leaf.network.restart(node)
    publisher.resume()
    await eventually('it leaves', () => host.outbox.length === 0)
    assert.deepEqual(
      [await leaf.ids(dog), await leaf.ids(cat)],
      [
        ['before', 'meanwhile'],
        ['before', 'meanwhile'],
      ],
    )
  })
})

// By itself: so many keep the process busy.
describe('a long outbox', { timeout: 60_000 }, () => {
  const all = Array.from({ length: 10_003 }, (_, index) => transaction(`${index}`))

  /** Reads all of it, in passes that show what they give. Resolves with where each began and how much it read. */
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
    // Nothing leaves the outbox meanwhile.
    leaf.held = true
    publisher.wake()
    await eventually('all are sent', () => leaf.appends.length === all.length)
    assert.deepEqual(
      leaf.appends.map(({ id }) => id),
      all.map(({ id }) => id),
    )
    return passes
  }

  it('is read in passes of a bounded length, each behind the one before', async (test) => {
    const passes = await readAll(test, (after) => all.slice(all.findIndex(({ id }) => id === after?.id) + 1))
    assert.deepEqual(passes, [
      { after: undefined, read: 10_000 },
      { after: '9999', read: 3 },
    ])
  })

  it('is read to its end also when each pass begins at its beginning', async (test) => {
    const passes = await readAll(test, () => all)
    assert.deepEqual(passes, [
      { after: undefined, read: 10_000 },
      { after: '9999', read: 10_003 },
    ])
  })
})
