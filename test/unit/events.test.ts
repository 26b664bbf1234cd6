// The emitter and the event source for plugins: a listener affects neither other listeners nor the code that emits.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { createEventSource } from '../../lib/events/event-source.ts'
import { SafeEmitter } from '../../lib/events/events.ts'

const payload = { node: 'node2' }

test('a listener that throws or rejects stops no other listener and is reported', async () => {
  const emitter = new SafeEmitter()
  const received: string[] = []
  const failures: unknown[] = []
  emitter.on('listener:failed', ({ event, error }) => failures.push([event, (error as Error).message]))
  emitter.on('peer:up', () => {
    throw new Error('thrown')
  })
  emitter.on('peer:up', async () => {
    throw new Error('rejected')
  })
  emitter.on('peer:up', ({ node }) => received.push(node))
  emitter.emit('peer:up', { ...payload })
  await Promise.resolve()
  assert.deepEqual(received, ['node2'])
  assert.deepEqual(failures, [
    ['peer:up', 'thrown'],
    ['peer:up', 'rejected'],
  ])
})

test('off removes what on, once and addListener added; once listens once', () => {
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

test('a failing listener of listener:failed is not reported again', () => {
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
  const received: string[] = []
  const ending = new AbortController()
  const events = createEventSource(emitter)
  events.on('peer:up', ({ node }) => received.push(node), { signal: ending.signal })
  emitter.emit('peer:up', { node: 'before' })
  ending.abort()
  events.on('peer:up', ({ node }) => received.push(node), { signal: ending.signal })
  emitter.emit('peer:up', { node: 'after' })
  assert.deepEqual(received, ['before'])
  assert.equal(emitter.listenerCount('peer:up'), 0)
})

test('a listener of a plugin gets no reference to the manager, and off removes only its own registration', () => {
  const emitter = new SafeEmitter()
  const events = createEventSource(emitter)
  const received: string[] = []
  const kept = () => received.push('kept')
  emitter.on('peer:up', kept)
  let self: unknown = 'not called'
  events.on('peer:up', function (this: unknown) {
    self = this
  })
  const shared = () => received.push('shared')
  const [one, two] = [new AbortController(), new AbortController()]
  events.on('peer:up', shared, { signal: one.signal })
  events.on('peer:up', shared, { signal: two.signal })
  events.off('peer:up', undefined as never)
  events.off('peer:up', kept)
  one.abort()
  emitter.emit('peer:up', { node: 'node2' })
  assert.equal(self, undefined)
  assert.deepEqual(received.sort(), ['kept', 'shared'])
  events.off('peer:up', shared)
  emitter.emit('peer:up', { node: 'node2' })
  assert.deepEqual(received.sort(), ['kept', 'kept', 'shared'])
})

test('an unknown event, an invalid listener or an invalid signal is rejected; one signal may remove many listeners', async () => {
  const events = createEventSource(new SafeEmitter())
  const warnings: Error[] = []
  const warned = (warning: Error) => void warnings.push(warning)
  process.on('warning', warned)
  for (const wrong of [
    () => events.on('peer:gone' as never, () => {}),
    () => events.on('peer:up', {} as never),
    () => events.on('peer:up', () => {}, { signal: 'text' as never }),
    () => events.iterate('peer:gone' as never),
  ])
    assert.throws(wrong, TypeError)
  await assert.rejects(events.once('peer:gone' as never), TypeError)
  const { signal } = new AbortController()
  for (let count = 0; count < 20; count++) events.on('peer:up', () => {}, { signal })
  assert.ok(getEventListeners(signal, 'abort').length <= 1)
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', warned)
  assert.deepEqual(warnings, [])
})

test('a listener that returns a thenable which rejects is reported', async () => {
  const emitter = new SafeEmitter()
  const failed = createEventSource(emitter).once('listener:failed')
  // biome-ignore lint/suspicious/noThenProperty: the test needs a thenable
  const thenable = { then: (_: unknown, reject: (error: Error) => void) => reject(new Error('not now')) }
  emitter.on('peer:up', () => thenable as never)
  emitter.emit('peer:up', { node: 'node2' })
  assert.equal((await failed).event, 'peer:up')
})

test('once resolves with the next matching event, and rejects when its signal aborts or the manager is closed', async () => {
  const emitter = new EndingEmitter()
  const events = createEventSource(emitter)
  const desired = events.once('peer:up', { where: ({ node }) => node === 'node3' })
  for (const node of ['node2', 'node3', 'node3']) emitter.emit('peer:up', { node })
  assert.deepEqual(await desired, { node: 'node3' })
  const ending = new AbortController()
  const aborted = events.once('peer:up', { signal: ending.signal })
  ending.abort(new Error('enough'))
  await assert.rejects(aborted, { message: 'enough' })
  await assert.rejects(events.once('peer:up', { signal: ending.signal }), { message: 'enough' })
  const throwing = events.once('peer:up', {
    where: () => {
      throw new Error('no such place')
    },
  })
  emitter.emit('peer:up', { ...payload })
  await assert.rejects(throwing, { message: 'no such place' })
  const last = events.once('peer:up')
  emitter.end()
  await assert.rejects(last, { code: 'closed' })
  await assert.rejects(events.once('peer:up'), { code: 'closed' })
  assert.equal(emitter.listenerCount('peer:up'), 0)
})

test('an iteration buffers events while the consumer is busy, and ends with break, the signal or the manager', async () => {
  const emitter = new EndingEmitter()
  const events = createEventSource(emitter)
  const emit = (...nodes: string[]) => {
    for (const node of nodes) emitter.emit('peer:up', { node })
  }
  const received: string[] = []
  const iteration = events.iterate('peer:up')
  emit('1', '2')
  for await (const { node } of iteration) {
    received.push(node)
    if (node === '1') emit('3', '4')
    if (node === '3') break
  }
  assert.deepEqual(received, ['1', '2', '3'])
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
