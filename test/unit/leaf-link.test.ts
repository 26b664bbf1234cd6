// A leaf that is at a remote hub, or lacks what its hub knows, is restarted, with doubling pauses when that does not help.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { LeafLink } from '../../lib/mesh/nats/leaf-link.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { fakeSystemTimers } from '../support/elapsed.ts'

function scene(t: TestContext) {
  fakeSystemTimers(t, 'setTimeout')
  const state = {
    remote: '127.0.0.1:9931' as string | undefined,
    host: '127.0.0.1',
    isHubUp: true,
    restarts: 0,
    linked: 0,
    missing: [] as string[],
    isSent: true,
  }
  const leafLink = new LeafLink({
    home: () => ({ host: state.host, port: 9931 }),
    remote: () => state.remote,
    interest: { sent: async () => state.isSent, missing: async () => state.missing },
    linked: () => void state.linked++,
    isHubUp: () => state.isHubUp,
    restart: async () => void state.restarts++,
    logger: silentLogger,
  })
  t.after(() => leafLink.close())
  /** Number of restarts after this time in ms. */
  const after = async (ms: number) => {
    t.mock.timers.tick(ms)
    // The name lookup is asynchronous and not under the mocked clock.
    for (let turn = 0; turn < 50; turn++) await setImmediate()
    return state.restarts
  }
  return { leafLink, state, after }
}

test('a leaf at the local hub is not restarted, for any form of its host', async (t) => {
  const { leafLink, state, after } = scene(t)
  leafLink.schedule()
  assert.equal(await after(3_000), 0)
  state.host = '127.0.0.1'
  state.remote = undefined
  leafLink.schedule()
  assert.equal(await after(3_000), 0)
})

test('a leaf at a remote hub is restarted after 3 s, then with doubling pauses', async (t) => {
  const { leafLink, state, after } = scene(t)
  state.remote = '127.0.0.1:9999'
  leafLink.schedule()
  assert.equal(await after(2_999), 0)
  assert.equal(await after(1), 1)
  // It connected to the remote hub again.
  leafLink.schedule()
  assert.equal(await after(3_000), 1)
  assert.equal(await after(3_000), 2)
  for (let count = 2; count < 12; count++) {
    leafLink.schedule()
    await after(300_000)
  }
  assert.equal(state.restarts, 12, 'at the latest after 5 minutes')
  state.remote = '127.0.0.1:9931'
  leafLink.schedule()
  await after(300_000)
  state.remote = '127.0.0.1:9999'
  leafLink.schedule()
  assert.equal(await after(3_000), 13, '3 s again after it was at the local hub')
})

test('a leaf at a fallback stays there while the local hub is down', async (t) => {
  const { leafLink, state, after } = scene(t)
  Object.assign(state, { remote: '127.0.0.1:9999', isHubUp: false })
  leafLink.schedule()
  assert.equal(await after(300_000), 0)
})

test('a leaf that does not know what remote nodes serve is restarted, with doubling pauses', async (t) => {
  const { leafLink, state, after } = scene(t)
  state.missing = ['enmesh.consumer.node2']
  leafLink.schedule()
  assert.equal(await after(3_000), 1)
  leafLink.schedule()
  assert.equal(await after(5_999), 1)
  state.missing = []
  assert.equal(await after(1), 1, 'nothing is missing after the restart')
})

test('a link counts when the hub knows the subscriptions of the leaf, and not after closing', async (t) => {
  const { leafLink, state, after } = scene(t)
  state.isSent = false
  await leafLink.connected()
  assert.equal(state.linked, 0, 'another link is waited for')
  state.isSent = true
  await leafLink.connected()
  assert.equal(state.linked, 1)
  leafLink.close()
  state.missing = ['enmesh.consumer.node2']
  await leafLink.connected()
  assert.deepEqual([state.linked, await after(300_000)], [1, 0])
})
