// Listeners observe: whatever one of them does, the others hear and whoever emits goes on.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readOnly, SafeEmitter } from '../../lib/events.ts'

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
  const events = readOnly(emitter)
  let frozen = false
  events.on('peer:up', (each) => {
    frozen = Object.isFrozen(each)
  })
  emitter.emit('peer:up', { ...payload })
  assert.ok(frozen)
  assert.equal('emit' in events, false)
})
