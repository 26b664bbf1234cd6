// Calls into the host: their time limit, their reports, their signal, and which calls never overlap.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ClusterError } from '../../lib/errors.ts'
import type { Batch, Host, HostCallOptions, RemoteTable } from '../../lib/host/host.ts'
import type { SlowHostCall } from '../../lib/host/host-calls.ts'
import { watchHost } from '../../lib/host/watched-host.ts'
import { MemoryHost, TestClock } from '../../lib/testing.ts'

const dog: RemoteTable = { node: 'node2', database: 'dev', table: 'dog' }
const cat: RemoteTable = { ...dog, table: 'cat' }
const batch = (source = dog, sequence = 1): Batch => ({
  source,
  transactions: [],
  checkpoint: { epoch: 'e', sequence },
})

/** One call that the host has not ended. */
type Held = { args: unknown[]; options: HostCallOptions; resolve(value?: unknown): void; reject(error: Error): void }

function start({ timeout = 30_000 } = {}) {
  const clock = new TestClock({ stopped: true })
  const host = new MemoryHost({ tables: [dog, cat] })
  const slow: SlowHostCall[] = []
  const lines: { message: string; details: object }[] = []
  const log = (details: object, message: string) => void lines.push({ message, details })
  const watched = watchHost(host, {
    timeout,
    timers: clock,
    logger: { info: log, warn: log },
    onSlow: (call) => void slow.push(call),
  })
  /** Calls of this method wait until the test ends them. */
  const hold = (method: keyof Host): Held[] => {
    const held: Held[] = []
    const call = (...args: unknown[]) =>
      new Promise((resolve, reject) => {
        held.push({ args, options: args.at(-1) as HostCallOptions, resolve, reject })
      })
    Object.assign(host, { [method]: call })
    return held
  }
  return { clock, host, watched, slow, lines, hold }
}

/** Ends with the code of the error, or with the value. */
const outcome = (call: Promise<unknown>) =>
  call.then(
    (value) => ({ value }),
    (error: ClusterError) => ({ code: error.code, message: error.message }),
  )
const codeOf = async (result: ReturnType<typeof outcome>) => {
  const ended = await result
  return 'code' in ended ? ended.code : undefined
}
const settled = async (call: Promise<unknown>) =>
  Promise.race([call.then(() => true), new Promise<false>((resolve) => setImmediate(() => resolve(false)))])

const asyncMethods: [keyof Host, (host: Host) => Promise<unknown>][] = [
  ['lastTimestamp', (host) => host.lastTimestamp()],
  ['describe', (host) => host.describe()],
  ['createTable', (host) => host.createTable({ ...dog, primaryKey: 'id', attributes: [] })],
  ['apply', (host) => host.apply(batch())],
  ['loadCheckpoint', (host) => host.loadCheckpoint(dog)],
  ['deleteCheckpoint', (host) => host.deleteCheckpoint(dog)],
  ['confirmPublished', (host) => host.confirmPublished!({ positions: [] })],
  ['publishedPosition', (host) => host.publishedPosition!('dev', 'dog')],
]

describe('a call of the host', () => {
  for (const [method, call] of asyncMethods)
    it(`${method} that does not answer is reported, rejects at the time limit, and its signal aborts`, async () => {
      const { clock, watched, slow, hold } = start()
      const held = hold(method)
      const result = outcome(call(watched))
      await clock.advance(29_999)
      assert.equal(await settled(result), false)
      assert.deepEqual(
        slow.map((each) => [each.method, each.ms, each.answered]),
        [5_000, 10_000, 15_000, 20_000, 25_000].map((ms) => [method, ms, false]),
      )
      assert.equal(held[0]!.options.signal!.aborted, false)
      await clock.advance(1)
      assert.equal(await codeOf(result), 'host_timeout')
      assert.equal(held[0]!.options.signal!.aborted, true)
      await clock.advance(60_000)
      assert.equal(slow.at(-1)!.ms, 90_000, 'it is still reported')
      held[0]!.resolve()
      await clock.advance(0)
      assert.deepEqual([slow.at(-1)!.answered, slow.at(-1)!.ms], [true, 90_000])
      await clock.advance(600_000)
      assert.equal(slow.at(-1)!.ms, 90_000, 'and no more when it has ended')
    })

  for (const [method, call] of asyncMethods)
    it(`${method} that throws rejects`, async () => {
      const { host, watched } = start()
      Object.assign(host, {
        [method]: () => {
          throw new Error('broken')
        },
      })
      await assert.rejects(call(watched), /^Error: broken$/)
    })

  it('passes arguments and results on, and reports nothing', async () => {
    const { clock, host, watched, slow } = start()
    await watched.apply(batch(dog, 7))
    await clock.advance(60_000)
    assert.deepEqual(await watched.loadCheckpoint(dog), { epoch: 'e', sequence: 7 })
    assert.equal((await watched.describe()).length, 2)
    await watched.deleteCheckpoint(dog)
    assert.equal(host.checkpoints.size, 0)
    assert.deepEqual(slow, [])
  })

  it('rejects aborted when the caller aborts, and its signal aborts', async () => {
    const { watched, hold } = start()
    const held = hold('describe')
    const caller = new AbortController()
    const result = outcome(watched.describe({ signal: caller.signal }))
    await new Promise((resolve) => setImmediate(resolve))
    caller.abort()
    assert.equal(await codeOf(result), 'aborted')
    assert.equal(held[0]!.options.signal!.aborted, true)
    assert.equal(await codeOf(outcome(watched.describe({ signal: caller.signal }))), 'aborted')
    assert.equal(held.length, 1)
  })

  it('info that throws returns the last answer, and is logged once', () => {
    const { host, watched, lines } = start()
    assert.equal(watched.info().version, '1.0.0')
    host.info = () => {
      throw new Error('not now')
    }
    assert.equal(watched.info().version, '1.0.0')
    assert.equal(watched.info().version, '1.0.0')
    assert.deepEqual(
      lines.map(({ details }) => details),
      [{ method: 'info', reason: 'not now' }],
    )
  })

  it('is possible only while few earlier ones have not ended', async () => {
    const { clock, watched, hold } = start()
    const held = hold('describe')
    const calls = Array.from({ length: 16 }, () => outcome(watched.describe()))
    await clock.advance(30_000)
    for (const call of calls) assert.equal(await codeOf(call), 'host_timeout')
    assert.equal(await codeOf(outcome(watched.describe())), 'host_timeout')
    assert.equal(held.length, 16)
    held[3]!.resolve([])
    await clock.advance(0)
    void outcome(watched.describe())
    await clock.advance(0)
    assert.equal(held.length, 17)
  })
})

describe('calls for the checkpoints of one table', () => {
  it('run one at a time, in order; those of another table at the same time', async () => {
    const { host, watched, hold } = start()
    const applies = hold('apply')
    const order: string[] = []
    host.loadCheckpoint = async () => void order.push('load')
    host.deleteCheckpoint = async () => void order.push('delete')
    const done = [
      watched.apply(batch()),
      watched.apply(batch(dog, 2)),
      watched.loadCheckpoint(dog),
      watched.deleteCheckpoint({ ...dog, node: 'node3' }),
    ]
    const other = watched.apply(batch(cat))
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(
      applies.map(({ args }) => (args[0] as Batch).source.table),
      ['dog', 'cat'],
    )
    applies[1]!.resolve()
    await other
    applies[0]!.resolve()
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual([applies.length, order], [3, []])
    applies[2]!.resolve()
    await Promise.all(done)
    assert.deepEqual(order, ['load', 'delete'])
  })

  it('reject while one is beyond its time limit, until the host ends it', async () => {
    const { clock, watched, hold } = start()
    const applies = hold('apply')
    const deletes = hold('deleteCheckpoint')
    const first = outcome(watched.apply(batch()))
    await clock.advance(10_000)
    const waiting = outcome(watched.deleteCheckpoint(dog))
    await clock.advance(20_000)
    assert.deepEqual(await first, {
      code: 'host_timeout',
      message: 'The database has not answered apply of dev.dog for 30 s',
    })
    await clock.advance(10_000)
    assert.deepEqual(await waiting, {
      code: 'host_timeout',
      message: 'The database has not answered apply of dev.dog for 40 s',
    })
    assert.equal(await codeOf(outcome(watched.apply(batch()))), 'host_timeout')
    assert.equal(await settled(outcome(watched.apply(batch(cat)))), false, 'another table is not affected')
    assert.deepEqual([applies.length, deletes.length], [2, 0])
    applies[0]!.reject(new Error('late'))
    await clock.advance(0)
    void outcome(watched.apply(batch()))
    await clock.advance(0)
    assert.equal(applies.length, 3)
  })
})

describe('confirmations', () => {
  it('reject while an earlier one is beyond its time limit, and so do reads of positions', async () => {
    const { clock, watched, hold } = start()
    const confirmations = hold('confirmPublished')
    const first = outcome(watched.confirmPublished!({ positions: [] }))
    await clock.advance(30_000)
    assert.equal(await codeOf(first), 'host_timeout')
    for (const call of [watched.confirmPublished!({ positions: [] }), watched.publishedPosition!('dev', 'dog')])
      assert.equal(await codeOf(outcome(call)), 'host_timeout')
    assert.equal(confirmations.length, 1)
    confirmations[0]!.resolve()
    await clock.advance(0)
    assert.deepEqual(await outcome(watched.publishedPosition!('dev', 'dog')), { value: undefined })
  })
})

describe('an iteration of the outbox', () => {
  const read = async (host: Host) => {
    const ids: string[] = []
    for await (const { id } of host.readOutbox!()) ids.push(id)
    return ids
  }

  it('passes transactions on, and is closed when the reader stops early', async () => {
    const { host, watched } = start()
    for (const id of ['one', 'two']) host.commitAs({ id, timestamp: '1', writes: [] })
    assert.deepEqual(await read(watched), ['one', 'two'])
    let closed = false
    host.readOutbox = async function* () {
      try {
        yield host.outbox[0]!
        yield host.outbox[1]!
      } finally {
        closed = true
      }
    }
    for await (const _ of watched.readOutbox!()) break
    assert.equal(closed, true)
  })

  it('rejects when a step does not answer, is closed when that step ends, and is not opened twice', async () => {
    const { clock, host, watched, slow } = start()
    let opened = 0
    let closed = 0
    let answer = () => {}
    let signal: AbortSignal | undefined
    host.readOutbox = async function* (_?: object, options?: HostCallOptions) {
      opened++
      signal = options?.signal
      try {
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        yield { id: 'one', timestamp: '1', writes: [] }
      } finally {
        closed++
      }
    }
    const first = outcome(read(watched))
    await clock.advance(30_000)
    assert.equal(await codeOf(first), 'host_timeout')
    assert.equal(signal?.aborted, true)
    assert.deepEqual(slow.at(-1), { method: 'readOutbox', ms: 30_000, answered: false })
    assert.equal(await codeOf(outcome(read(watched))), 'host_timeout')
    assert.deepEqual([opened, closed], [1, 0])
    answer()
    await clock.advance(0)
    assert.deepEqual([opened, closed], [1, 1])
    const second = read(watched)
    await clock.advance(0)
    answer()
    assert.deepEqual(await second, ['one'])
  })

  it('that does not close does not hold up the reader', async () => {
    const { clock, host, watched } = start()
    host.readOutbox = () => ({
      [Symbol.asyncIterator]: () => ({
        next: async () => ({ done: false, value: { id: 'one', timestamp: '1', writes: [] } }),
        return: () => new Promise(() => {}),
      }),
    })
    const stopped = outcome(
      (async () => {
        for await (const _ of watched.readOutbox!()) break
      })(),
    )
    await clock.advance(30_000)
    assert.equal(await codeOf(stopped), 'host_timeout')
  })
})

describe('when the manager closes', () => {
  it('calls have 5 s of the system, whatever the clock of the mesh is, and later ones reject closed', async () => {
    const { watched, hold } = start()
    const held = hold('apply')
    const call = outcome(watched.apply(batch()))
    const began = performance.now()
    const end = watched.beginClose()
    assert.equal(await codeOf(call), 'closed')
    assert.ok(performance.now() - began >= 4_900)
    assert.equal(held[0]!.options.signal!.aborted, true)
    assert.equal(await codeOf(outcome(watched.describe())), 'closed')
    end()
  })
})

describe('the signal of a call of the host', () => {
  it('is aborted when the host reads it only after the time limit, also from a copy of the options', async () => {
    const { clock, watched, hold } = start()
    const held = hold('describe')
    const result = outcome(watched.describe())
    await clock.advance(30_000)
    assert.equal(await codeOf(result), 'host_timeout')
    const { signal } = { ...held[0]!.options }
    assert.equal(signal!.aborted, true)
    assert.equal((signal!.reason as ClusterError).code, 'host_timeout')
    assert.equal(held[0]!.options.signal, signal)
    held[0]!.resolve([])
  })

  it('does not let a call begin that was given up in the turn in which it was made', async () => {
    const { watched, hold } = start()
    const held = hold('apply')
    const caller = new AbortController()
    const result = outcome(watched.apply(batch(), { signal: caller.signal }))
    caller.abort()
    assert.equal(await codeOf(result), 'aborted')
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(held.length, 0)
  })
})
