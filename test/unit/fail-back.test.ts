// A leaf at a remote hub is restarted, with doubling pauses when that does not help.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { FailBack } from '../../lib/mesh/nats/fail-back.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { fakeSystemTimers } from '../support/elapsed.ts'

function scene(t: TestContext) {
  fakeSystemTimers(t, 'setTimeout')
  const state = { remote: '127.0.0.1:9931' as string | undefined, host: '127.0.0.1', isHubUp: true, restarts: 0 }
  const failBack = new FailBack({
    home: () => ({ host: state.host, port: 9931 }),
    remote: () => state.remote,
    isHubUp: () => state.isHubUp,
    restart: async () => void state.restarts++,
    logger: silentLogger,
  })
  t.after(() => failBack.close())
  /** Number of restarts after this time in ms. */
  const after = async (ms: number) => {
    t.mock.timers.tick(ms)
    // The name lookup is asynchronous and not under the mocked clock.
    for (let turn = 0; turn < 50; turn++) await setImmediate()
    return state.restarts
  }
  return { failBack, state, after }
}

test('a leaf at the local hub is not restarted, for any form of its host', async (t) => {
  const { failBack, state, after } = scene(t)
  failBack.schedule()
  assert.equal(await after(3_000), 0)
  state.host = '127.0.0.1'
  state.remote = undefined
  failBack.schedule()
  assert.equal(await after(3_000), 0)
})

test('a leaf at a remote hub is restarted after 3 s, then with doubling pauses', async (t) => {
  const { failBack, state, after } = scene(t)
  state.remote = '127.0.0.1:9999'
  failBack.schedule()
  assert.equal(await after(2_999), 0)
  assert.equal(await after(1), 1)
  // It connected to the remote hub again.
  failBack.schedule()
  assert.equal(await after(3_000), 1)
  assert.equal(await after(3_000), 2)
  for (let count = 2; count < 12; count++) {
    failBack.schedule()
    await after(300_000)
  }
  assert.equal(state.restarts, 12, 'at the latest after 5 minutes')
  state.remote = '127.0.0.1:9931'
  failBack.schedule()
  await after(300_000)
  state.remote = '127.0.0.1:9999'
  failBack.schedule()
  assert.equal(await after(3_000), 13, '3 s again after it was at the local hub')
})

test('a leaf at a fallback stays there while the local hub is down', async (t) => {
  const { failBack, state, after } = scene(t)
  Object.assign(state, { remote: '127.0.0.1:9999', isHubUp: false })
  failBack.schedule()
  assert.equal(await after(300_000), 0)
})
