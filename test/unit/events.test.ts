// Listeners observe: whatever one of them does, the others hear and whoever emits goes on.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { createEventSource } from '../../lib/events/event-source.ts'
import { SafeEmitter } from '../../lib/events/events.ts'

const payload = { node: 'node2' }

test('a listener that throws or rejects stops nobody and is told', async () => {
  const emitter = new SafeEmitter()
  const heard: string[] = []
  const failures: unknown[] = []
  emitter.on('listener:failed', ({ event, error }) => failures.push([event, (error as Error).message]))
  emitter.on('peer:up', () => {
    throw new Error('thrown')
  })
  emitter.on('peer:up', async () => {
    throw new Error('rejected')
  })
  emitter.on('peer:up', ({ node }) => heard.push(node))
  emitter.emit('peer:up', { ...payload })
  await Promise.resolve()
  assert.deepEqual(heard, ['node2'])
  assert.deepEqual(failures, [
    ['peer:up', 'thrown'],
    ['peer:up', 'rejected'],
  ])
})

test('off finds what on, once and addListener added; once is heard once', () => {
  const emitter = new SafeEmitter()
  let calls = 0
  const listener = () => {
    calls++
  }
  for (const add of ['on', 'once', 'addListener'] as const) {
    emitter[add]('peer:up', listener)
    emitter.off('peer:up', listener)
    emitter.emit('peer:up', { ...payload })
  }
  assert.equal(calls, 0)
  emitter.once('peer:up', listener)
  emitter.emit('peer:up', { ...payload })
  emitter.emit('peer:up', { ...payload })
  assert.equal(calls, 1)
})

test('a failing listener of listener:failed ends there', () => {
  const emitter = new SafeEmitter()
  emitter.on('listener:failed', () => {
    throw new Error('again')
  })
  emitter.on('peer:up', () => {
    throw new Error('once')
  })
  assert.doesNotThrow(() => emitter.emit('peer:up', { ...payload }))
})

test('payloads are frozen, and a plugin cannot emit', () => {
  const emitter = new SafeEmitter()
  const events = createEventSource(emitter)
  let frozen = false
  events.on('peer:up', (each) => {
    frozen = Object.isFrozen(each)
  })
  emitter.emit('peer:up', { ...payload })
  assert.ok(frozen)
  assert.equal('emit' in events, false)
})

class EndingEmitter extends SafeEmitter {
  override end(): void {
    super.end()
  }
}

test('on listens until its signal aborts', () => {
  const emitter = new SafeEmitter()
  const heard: string[] = []
  const ending = new AbortController()
  const events = createEventSource(emitter)
  events.on('peer:up', ({ node }) => heard.push(node), { signal: ending.signal })
  emitter.emit('peer:up', { node: 'before' })
  ending.abort()
  events.on('peer:up', ({ node }) => heard.push(node), { signal: ending.signal })
  emitter.emit('peer:up', { node: 'after' })
  assert.deepEqual(heard, ['before'])
  assert.equal(emitter.listenerCount('peer:up'), 0)
})

test('once listens to one, or to none once its signal has aborted', () => {
  const emitter = new SafeEmitter()
  const heard: string[] = []
  const ending = new AbortController()
  const events = createEventSource(emitter)
  events.once('peer:up', ({ node }) => heard.push(node), { signal: ending.signal })
  emitter.emit('peer:up', { node: 'first' })
  emitter.emit('peer:up', { node: 'second' })
  events.once('peer:up', ({ node }) => heard.push(node), { signal: ending.signal })
  ending.abort()
  emitter.emit('peer:up', { node: 'third' })
  assert.deepEqual(heard, ['first'])
  assert.equal(emitter.listenerCount('peer:up'), 0)
})

test('a listener of a plugin has no way to the manager, and its registration is its own', () => {
  const emitter = new SafeEmitter()
  const events = createEventSource(emitter)
  const heard: string[] = []
  const kept = () => heard.push('kept')
  emitter.on('peer:up', kept)
  let self: unknown = 'not called'
  events.once('peer:up', function (this: unknown) {
    self = this
  })
  const shared = () => heard.push('shared')
  const [one, two] = [new AbortController(), new AbortController()]
  events.on('peer:up', shared, { signal: one.signal })
  events.on('peer:up', shared, { signal: two.signal })
  events.off('peer:up', undefined as never)
  events.off('peer:up', kept)
  one.abort()
  emitter.emit('peer:up', { node: 'node2' })
  assert.equal(self, undefined)
  assert.deepEqual(heard.sort(), ['kept', 'shared'])
  events.off('peer:up', shared)
  emitter.emit('peer:up', { node: 'node2' })
  assert.deepEqual(heard.sort(), ['kept', 'kept', 'shared'])
})

test('what is no event, no function or no signal is refused, and one signal may end much', async () => {
  const events = createEventSource(new SafeEmitter())
  const warnings: Error[] = []
  const warned = (warning: Error) => void warnings.push(warning)
  process.on('warning', warned)
  for (const wrong of [
    () => events.on('peer:gone' as never, () => {}),
    () => events.on('peer:up', {} as never),
    () => events.once('peer:up', undefined as never),
    () => events.on('peer:up', () => {}, { signal: 'text' as never }),
    () => events.iterate('peer:gone' as never),
  ])
    assert.throws(wrong, TypeError)
  await assert.rejects(events.next('peer:gone' as never), TypeError)
  const { signal } = new AbortController()
  for (let count = 0; count < 20; count++) events.on('peer:up', () => {}, { signal })
  assert.ok(getEventListeners(signal, 'abort').length <= 1)
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', warned)
  assert.deepEqual(warnings, [])
})

test('a listener that gives a promise of another kind, which rejects, is told as well', async () => {
  const emitter = new SafeEmitter()
  const failed = createEventSource(emitter).next('listener:failed')
  // biome-ignore lint/suspicious/noThenProperty: that is what is tested
  const thenable = { then: (_: unknown, reject: (error: Error) => void) => reject(new Error('not now')) }
  emitter.on('peer:up', () => thenable as never)
  emitter.emit('peer:up', { node: 'node2' })
  assert.equal((await failed).event, 'peer:up')
})

test('next is the first that is wanted, the end of its signal, or the end of the manager', async () => {
  const emitter = new EndingEmitter()
  const events = createEventSource(emitter)
  const desired = events.next('peer:up', { where: ({ node }) => node === 'node3' })
  for (const node of ['node2', 'node3', 'node3']) emitter.emit('peer:up', { node })
  assert.deepEqual(await desired, { node: 'node3' })
  const ending = new AbortController()
  const aborted = events.next('peer:up', { signal: ending.signal })
  ending.abort(new Error('enough'))
  await assert.rejects(aborted, { message: 'enough' })
  await assert.rejects(events.next('peer:up', { signal: ending.signal }), { message: 'enough' })
  const throwing = events.next('peer:up', {
    where: () => {
      throw new Error('no such place')
    },
  })
  emitter.emit('peer:up', { ...payload })
  await assert.rejects(throwing, { message: 'no such place' })
  const last = events.next('peer:up')
  emitter.end()
  await assert.rejects(last, { code: 'closed' })
  await assert.rejects(events.next('peer:up'), { code: 'closed' })
  assert.equal(emitter.listenerCount('peer:up'), 0)
})

test('an iteration loses nothing while one is dealt with, and ends with break, the signal, or the manager', async () => {
  const emitter = new EndingEmitter()
  const events = createEventSource(emitter)
  const emit = (...nodes: string[]) => {
    for (const node of nodes) emitter.emit('peer:up', { node })
  }
  const heard: string[] = []
  const iteration = events.iterate('peer:up')
  emit('1', '2')
  for await (const { node } of iteration) {
    heard.push(node)
    if (node === '1') emit('3', '4')
    if (node === '3') break
  }
  assert.deepEqual(heard, ['1', '2', '3'])
  assert.deepEqual(await iteration.next(), { value: undefined, done: true })

  const ending = new AbortController()
  const aborted = events.iterate('peer:up', { signal: ending.signal })
  emit('5')
  ending.abort(new Error('enough'))
  emit('6')
  assert.deepEqual(await aborted.next(), { value: { node: '5' }, done: false })
  await assert.rejects(aborted.next(), { message: 'enough' })
  assert.equal((await aborted.next()).done, true)

  const flooded = events.iterate('peer:up')
  const full = events.iterate('peer:up')
  for (let count = 0; count < 20_000; count++) emit(`${count}`)
  let taken = 0
  await assert.rejects(async () => {
    for await (const _ of full) taken++
  }, RangeError)
  assert.equal(taken, 10_000)
  await flooded.return?.()
  assert.equal((await flooded.next()).done, true)

  const last = events.iterate('peer:up')
  emit('7')
  const [seven, over, more] = [last.next(), last.next(), last.next()]
  emitter.end()
  assert.deepEqual(await seven, { value: { node: '7' }, done: false })
  assert.deepEqual([(await over).done, (await more).done], [true, true])
  assert.equal(emitter.listenerCount('peer:up'), 0)
})
