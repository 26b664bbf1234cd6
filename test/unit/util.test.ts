// The mechanisms that several modules share: SerialQueue, KeyedMutex, Backoff.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Backoff } from '../../lib/util/backoff.ts'
import { KeyedMutex } from '../../lib/util/keyed-mutex.ts'
import { SerialQueue } from '../../lib/util/serial-queue.ts'

/** A task that runs until `end` is called, and records its start and end. */
function controlled(events: string[], name: string) {
  let end = (_error?: Error) => {}
  const ended = new Promise<string>((resolve, reject) => {
    end = (error) => (error ? reject(error) : resolve(name))
  })
  const task = async () => {
    events.push(`${name} starts`)
    try {
      return await ended
    } finally {
      events.push(`${name} ends`)
    }
  }
  return { task, end: (error?: Error) => end(error) }
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

describe('SerialQueue', () => {
  it('runs tasks in order, one at a time, also after a task that rejects', async () => {
    const events: string[] = []
    const [first, second] = [controlled(events, 'first'), controlled(events, 'second')]
    const queue = new SerialQueue()
    const results = [queue.run(first.task), queue.run(second.task)]
    await nextTurn()
    assert.deepEqual(events, ['first starts'])
    const rejected = assert.rejects(results[0]!, /failed/)
    first.end(new Error('failed'))
    second.end()
    await rejected
    assert.equal(await results[1], 'second')
    assert.deepEqual(events, ['first starts', 'first ends', 'second starts', 'second ends'])
  })

  it('is idle when every task added so far has settled', async () => {
    const queue = new SerialQueue()
    const events: string[] = []
    const { task, end } = controlled(events, 'only')
    void queue.run(task)
    const idle = queue.idle().then(() => events.push('idle'))
    await nextTurn()
    end()
    await idle
    assert.deepEqual(events, ['only starts', 'only ends', 'idle'])
  })

  it('turns a task that throws into a rejection', async () => {
    const queue = new SerialQueue()
    await assert.rejects(
      queue.run(() => {
        throw new Error('thrown')
      }),
      /thrown/,
    )
    assert.equal(await queue.run(() => 5), 5)
  })
})

describe('KeyedMutex', () => {
  it('runs tasks of one key in order and tasks of different keys at the same time', async () => {
    const events: string[] = []
    const mutex = new KeyedMutex()
    const tasks = ['a1', 'a2', 'b1'].map((name) => controlled(events, name))
    const results = tasks.map(({ task }, index) => mutex.run(index < 2 ? 'a' : 'b', task))
    await nextTurn()
    assert.deepEqual(events, ['a1 starts', 'b1 starts'])
    for (const { end } of tasks) end()
    assert.deepEqual(await Promise.all(results), ['a1', 'a2', 'b1'])
    assert.ok(events.indexOf('a1 ends') < events.indexOf('a2 starts'))
  })

  it('runs an exclusive task alone, in the order of the calls', async () => {
    const events: string[] = []
    const mutex = new KeyedMutex()
    const [a, all, b] = ['a', 'all', 'b'].map((name) => controlled(events, name)) as [
      ReturnType<typeof controlled>,
      ReturnType<typeof controlled>,
      ReturnType<typeof controlled>,
    ]
    const results = [mutex.run('a', a.task), mutex.runExclusive(all.task), mutex.run('b', b.task)]
    await nextTurn()
    assert.deepEqual(events, ['a starts'])
    a.end()
    await nextTurn()
    assert.deepEqual(events, ['a starts', 'a ends', 'all starts'])
    all.end()
    await nextTurn()
    assert.equal(events.at(-1), 'b starts')
    b.end()
    await Promise.all(results)
  })

  it('never starts a task that is aborted while it waits, and keeps the order of the others', async () => {
    const events: string[] = []
    const mutex = new KeyedMutex()
    const [first, second, third] = ['first', 'second', 'third'].map((name) => controlled(events, name))
    const abort = new AbortController()
    const running = mutex.run('a', first!.task)
    const aborted = mutex.run('a', second!.task, abort.signal)
    const last = mutex.run('a', third!.task)
    await nextTurn()
    const rejected = assert.rejects(aborted, /gave up/)
    abort.abort(new Error('gave up'))
    await rejected
    await nextTurn()
    assert.deepEqual(events, ['first starts'])
    first!.end()
    third!.end()
    await Promise.all([running, last])
    assert.deepEqual(events, ['first starts', 'first ends', 'third starts', 'third ends'])
    const already = AbortSignal.abort(new Error('gave up before'))
    await assert.rejects(
      mutex.run('a', () => events.push('never'), already),
      /gave up before/,
    )
    assert.equal(events.length, 4)
  })
})

describe('Backoff', () => {
  it('doubles up to the maximum, and starts again after a reset', () => {
    const backoff = new Backoff({ first: 100, max: 500, jitter: 0 })
    assert.deepEqual(
      [1, 2, 3, 4, 5].map(() => backoff.next()),
      [100, 200, 400, 500, 500],
    )
    backoff.reset()
    assert.equal(backoff.next(), 100)
  })

  it('shortens each wait by at most the jitter', () => {
    for (const random of [0, 0.5, 1]) {
      const backoff = new Backoff({ first: 1_000, max: 1_000, jitter: 0.4, random: () => random })
      assert.equal(backoff.next(), 1_000 * (1 - 0.4 * random))
    }
    const backoff = new Backoff({ first: 1_000, max: 1_000 })
    for (let round = 0; round < 100; round++) {
      const wait = backoff.next()
      assert.ok(wait >= 800 && wait <= 1_000, `${wait}`)
    }
  })
})
