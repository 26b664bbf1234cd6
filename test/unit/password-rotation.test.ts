// A new password reaches both servers, however often that fails.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { PasswordRotation } from '../../lib/mesh/nats/password-rotation.ts'
import { TestClock } from '../../lib/testing.ts'
import { SerialQueue } from '../../lib/util/serial-queue.ts'

function scene(t: TestContext) {
  const clock = new TestClock({ stopped: true })
  const queue = new SerialQueue()
  const state = {
    wanted: 'old' as string | Error,
    inUse: 'old',
    servers: { hub: 'old', leaf: 'old' },
    failures: { hub: 0, leaf: 0 },
    errors: [] as object[],
    stopped: false,
  }
  const rotation = new PasswordRotation({
    fetch: async () => {
      if (state.wanted instanceof Error) throw state.wanted
      return state.wanted
    },
    current: () => state.inUse,
    use: (password) => {
      state.inUse = password
    },
    restart: async (server) => {
      if (state.failures[server]-- > 0) throw new Error('the disk is full')
      state.servers[server] = state.inUse
    },
    exclusively: (work) => queue.run(work),
    stopped: () => state.stopped,
    logger: { debug() {}, info() {}, warn() {}, error: (fields) => void state.errors.push(fields) },
    timers: clock,
  })
  t.after(() => rotation.close())
  return { clock, queue, state, rotation }
}

test('a password that did not change restarts no server', async (t) => {
  const { state, rotation } = scene(t)
  state.failures = { hub: 1, leaf: 1 }
  await rotation.rotate()
})

test('a new password is in effect on both servers when the call resolves', async (t) => {
  const { state, rotation } = scene(t)
  state.wanted = 'new'
  await rotation.rotate()
  assert.deepEqual(state.servers, { hub: 'new', leaf: 'new' })
})

for (const server of ['hub', 'leaf'] as const)
  test(`a rotation that fails at the ${server} is reported, and completed later`, async (t) => {
    const { clock, state, rotation } = scene(t)
    state.wanted = 'new'
    state.failures[server] = 3
    const names = server === 'hub' ? 'hub and leaf' : 'leaf'
    await assert.rejects(rotation.rotate(), {
      code: 'server_failed',
      message: `The ${names} server did not start: it does not use the new password yet, retrying: the disk is full`,
    })
    for (let second = 0; second < 20; second++) await clock.advance(1_000)
    assert.deepEqual(state.servers, { hub: 'new', leaf: 'new' })
    assert.equal(state.errors.length, 3)
  })

test('another call after a failure is another attempt, also with the same password', async (t) => {
  const { state, rotation } = scene(t)
  state.wanted = 'new'
  state.failures.leaf = 1
  await assert.rejects(rotation.rotate(), { code: 'server_failed' })
  await rotation.rotate()
  assert.deepEqual(state.servers, { hub: 'new', leaf: 'new' })
})

test('a newer password replaces one that failed', async (t) => {
  const { clock, state, rotation } = scene(t)
  state.wanted = 'new'
  state.failures.leaf = 1
  await assert.rejects(rotation.rotate())
  state.wanted = 'newer'
  await rotation.rotate()
  await clock.advance(100_000)
  assert.deepEqual(state.servers, { hub: 'newer', leaf: 'newer' })
})

test('the previous password comes back after a failure', async (t) => {
  const { clock, state, rotation } = scene(t)
  state.wanted = 'new'
  state.failures.leaf = 1
  await assert.rejects(rotation.rotate())
  state.wanted = 'old'
  await rotation.rotate()
  await clock.advance(100_000)
  assert.deepEqual(state.servers, { hub: 'old', leaf: 'old' })
})

test('a password that cannot be read changes nothing, and holds up nothing', async (t) => {
  const { queue, state, rotation } = scene(t)
  state.wanted = new Error('the vault is closed')
  await assert.rejects(rotation.rotate(), { message: 'the vault is closed' })
  assert.deepEqual(state.servers, { hub: 'old', leaf: 'old' })
  await queue.idle()
})

test('nothing is tried again after closing', async (t) => {
  const { clock, state, rotation } = scene(t)
  state.wanted = 'new'
  state.failures.hub = 1
  await assert.rejects(rotation.rotate())
  rotation.close()
  state.stopped = true
  await clock.advance(100_000)
  assert.deepEqual(state.servers, { hub: 'old', leaf: 'old' })
})
