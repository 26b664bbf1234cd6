// Readers that share a budget never hold more bytes than it, beside one message; none waits for ever, and a single one is not slowed.

import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import type { Reader } from '../../lib/index.ts'
import { PullWindow } from '../../lib/mesh/pull-window.ts'
import { ReadBudget } from '../../lib/mesh/read-budget.ts'
import { MemoryNetwork } from '../../lib/testing.ts'

const KB = 1_024
const MB = 1_024 * KB
/** Of the memory mesh. */
const MAX_MESSAGE = 32 * MB

/** A stream of messages of these sizes, and a server that answers the requests of one window. */
class Source {
  readonly window: PullWindow
  readonly sizes: number[]
  readonly requests: { batch: number; maxBytes: number }[] = []
  /** Requests that the server has not answered yet, and bytes that arrived and are not processed. */
  readonly #open: { batch: number; missing: number; bytes: number }[] = []
  #unread = 0
  #taken = 0
  received = 0

  constructor(sizes: number[], budget: ReadBudget | undefined, maxMessages = 1_000) {
    this.sizes = sizes
    this.window = new PullWindow({ maxMessages, maxMessageBytes: 8 * MB, budget, ready: () => this.pull() })
    this.pull()
  }

  get held(): number {
    return this.#unread + this.#taken
  }

  pull(): void {
    const request = this.window.next()
    if (!request) return
    this.requests.push(request)
    this.#open.push({ batch: request.batch, missing: request.batch, bytes: request.maxBytes })
  }

  /** The server sends what the oldest request allows. False when nothing happened. */
  answer(): boolean {
    const request = this.#open[0]
    const size = this.sizes[0]
    if (!request || size === undefined) return false
    if (size > request.bytes) {
      this.#open.shift()
      this.window.ended(request.missing, true)
      this.pull()
      return true
    }
    request.bytes -= size
    this.sizes.shift()
    this.#unread += size
    this.received++
    assert.ok(this.window.received(size, this.sizes.length))
    if (--request.missing === 0) this.#open.shift()
    return true
  }

  /** The database has applied what it had, and takes what is unread. */
  take(): void {
    this.window.processed()
    this.#taken = 0
    this.pull()
    this.#taken = this.#unread
    this.#unread = 0
    this.window.taken()
    this.pull()
  }
}

/** Runs all sources until nothing is left; returns the most bytes that they held at a time. */
function drain(sources: Source[], budget: ReadBudget, maxBytes: number): number {
  let most = 0
  for (let round = 0; sources.some(({ sizes }) => sizes.length > 0); round++) {
    assert.ok(round < 100_000, 'it makes progress')
    // Every server answers as much as it may before any database is done: the worst case.
    for (const source of sources) while (source.answer());
    most = Math.max(
      most,
      sources.reduce((sum, { held }) => sum + held, 0),
    )
    assert.ok(budget.reserved <= maxBytes, `${budget.reserved} bytes are reserved`)
    for (const source of sources) source.take()
  }
  return most
}

const filled = (count: number, size: number): number[] => Array(count).fill(size)

describe('readers that share a budget', () => {
  it('hold no more than it, and finish', () => {
    const maxBytes = 16 * MB
    const budget = new ReadBudget(maxBytes)
    const sources = Array.from({ length: 200 }, () => new Source(filled(300, 10 * KB), budget))
    const most = drain(sources, budget, maxBytes)
    assert.ok(most <= maxBytes && most > maxBytes / 4, `${most} bytes`)
    assert.ok(sources.every(({ received }) => received === 300))
  })

  it('divide it fairly', () => {
    const budget = new ReadBudget(16 * MB)
    const sources = Array.from({ length: 20 }, () => new Source(filled(1_000, 10 * KB), budget))
    for (let round = 0; round < 10; round++) {
      for (const source of sources) while (source.answer());
      for (const source of sources) source.take()
    }
    const received = sources.map((each) => each.received)
    assert.ok(Math.max(...received) <= 3 * Math.min(...received), received.join(' '))
  })

  it('let messages through that are larger than a share, than a request, and than the budget', () => {
    const budget = new ReadBudget(1 * MB)
    const sizes = () => [100, 20 * KB, 200 * KB, 1.5 * MB, 7 * MB, 100, 5 * MB, 300 * KB]
    const sources = Array.from({ length: 30 }, () => new Source(sizes(), budget))
    // One message of any size beside the budget; and at the start the shares of readers that came later.
    const most = drain(sources, budget, 1 * MB + 8 * MB + 30 * budget.share)
    assert.ok(most <= 9 * MB, `${most} bytes`)
  })

  it('get their shares while others hold all of the rest for ever', () => {
    const budget = new ReadBudget(16 * MB)
    const stalled = Array.from({ length: 10 }, () => new Source(filled(5_000, 10 * KB), budget))
    for (let round = 0; round < 5; round++) {
      for (const source of stalled) while (source.answer());
      if (round < 4) for (const source of stalled) source.take()
    }
    const live = new Source(filled(500, 1 * KB), budget)
    drain([live], budget, 17 * MB)
    // A message that needs more than a share gets through too.
    const large = new Source(filled(3, 2 * MB), budget)
    drain([large], budget, 16 * MB + 8 * MB + 128 * KB)
  })

  it('give everything back when they are closed', () => {
    const budget = new ReadBudget(4 * MB)
    const sources = Array.from({ length: 20 }, (_, index) => new Source(filled(50, (index + 1) * 50 * KB), budget))
    for (let round = 0; round < 3; round++) {
      for (const source of sources) while (source.answer());
      if (round === 1) for (const source of sources) source.take()
    }
    for (const { window } of sources) window.close()
    for (const { window } of sources) window.close()
    assert.equal(budget.reserved, 0)
    assert.equal(new ReadBudget(4 * MB).share, budget.share)
  })

  it('read a backlog alone as fast as without a budget', () => {
    const sizes = () => filled(20_000, 3 * KB)
    const requestsWith = (budget: ReadBudget | undefined) => {
      const source = new Source(sizes(), budget)
      // Idle readers of other tables.
      for (let others = 0; others < 1_000 && budget; others++) new Source([], budget)
      while (source.sizes.length > 0) {
        while (source.answer());
        source.take()
      }
      return source.requests.length
    }
    const [without, within] = [requestsWith(undefined), requestsWith(new ReadBudget(256 * MB))]
    assert.ok(within <= without * 1.1 + 2, `${within} requests instead of ${without}`)
  })

  it('request small amounts when they are idle', () => {
    const budget = new ReadBudget(256 * MB)
    const idle = Array.from({ length: 10_000 }, () => new Source([], budget))
    assert.ok(idle.every(({ requests }) => requests.length === 1 && requests[0]!.maxBytes > 10 * KB))
    assert.ok(budget.reserved <= 2 * 256 * MB)
    // The requests expire, one after the other; the next ones are within the budget.
    for (const each of idle) {
      each.window.ended(1_000, false)
      each.pull()
    }
    assert.ok(budget.reserved <= 128 * MB, `${budget.reserved}`)
  })
})

test('many tables of the memory mesh catch up within a budget', async (t) => {
  const network = new MemoryNetwork()
  t.after(() => network.close())
  const [one, two] = [network.mesh(), network.mesh()]
  const listener = { state() {}, rejected() {}, linked() {} }
  await one.open('node1', { hub: [], leaf: [] }, listener)
  await two.open('node2', { hub: [], leaf: [] }, listener)
  const data = new Uint8Array(20 * KB)
  const names = Array.from({ length: 50 }, (_, index) => ({ database: 'dev', table: `t${index}` }))
  for (const table of names) {
    await one.ensureStream(table, '')
    for (let sequence = 0; sequence < 20; sequence++)
      await new Promise<void>((resolve, reject) =>
        one.append(table, { data, headers: {} }, { sequence }, (error) => (error ? reject(error) : resolve())),
      )
  }
  const budget = new ReadBudget(2 * MB)
  let most = 0
  let held = 0
  const readAll = async (reader: Reader) => {
    for (let count = 0, taken = 0; count < 20; ) {
      const next = reader.next()
      held -= taken
      const entries = await next
      taken = entries.length * data.byteLength
      held += taken
      most = Math.max(most, held)
      count += entries.length
      await new Promise((resolve) => setImmediate(resolve))
    }
    reader.close()
  }
  const readers = await Promise.all(
    names.map((table) => two.read({ node: 'node1', ...table }, 1, { timeout: 1_000, maxMessages: 1_000, budget })),
  )
  await Promise.all(readers.map(readAll))
  assert.ok(most <= 2 * MB + MAX_MESSAGE, `${most} bytes`)
  assert.equal(budget.reserved, 0)
})
