// Tasks of one key run one after the other, and an aborted one keeps the order.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { KeyedMutex } from '../../lib/util/keyed-mutex.ts'

const turn = () => new Promise((resolve) => setImmediate(resolve))

describe('keyed mutex', () => {
  it('is free for a key until a task of it is added, and again when that has ended', async () => {
    const mutex = new KeyedMutex()
    let end = () => {}
    assert.ok(mutex.isFree('dog'))
    const first = mutex.run('dog', () => new Promise<void>((resolve) => (end = resolve)))
    assert.deepEqual([mutex.isFree('dog'), mutex.isFree('cat')], [false, true])
    await turn()
    end()
    await first
    await turn()
    assert.ok(mutex.isFree('dog'))
  })

  it('goes on after a task that rejects', async () => {
    const mutex = new KeyedMutex()
    const order: number[] = []
    const first = mutex.run('dog', async () => {
      order.push(1)
      throw new Error('broken')
    })
    const second = mutex.run('dog', () => order.push(2))
    await assert.rejects(first, /broken/)
    await second
    assert.deepEqual(order, [1, 2])
  })

  it('never runs a task whose signal aborts while it waits; the next one still waits for the first', async () => {
    const mutex = new KeyedMutex()
    const controller = new AbortController()
    const order: string[] = []
    let end = () => {}
    const first = mutex.run('dog', () => new Promise<void>((resolve) => (end = resolve)))
    const second = mutex.run('dog', () => order.push('second'), controller.signal)
    const third = mutex.run('dog', () => order.push('third'))
    controller.abort(new Error('aborted'))
    await assert.rejects(second, /aborted/)
    await turn()
    assert.deepEqual(order, [])
    end()
    await Promise.all([first, third])
    assert.deepEqual(order, ['third'])
  })
})
