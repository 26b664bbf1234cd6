// The number of requests that negotiations and comparisons make, to the remote node and to the local database.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import { clusterError } from '../../lib/errors.ts'
import { emptyManifest, type Manifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Negotiator } from '../../lib/peers/negotiator.ts'
import type { Registers } from '../../lib/peers/registers.ts'
import { systemTimers } from '../../lib/util/timers.ts'
import { fakeSystemTimers } from '../support/elapsed.ts'

const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

/** A negotiator with one peer, `node2`, whose tables `describe` returns; `asked` counts the calls. */
function open(describe: () => Promise<never[]>, size = 0) {
  const asked = { remote: 0, local: 0, created: 0 }
  let manifest: Manifest = emptyManifest
  const negotiator = new Negotiator({
    timers: systemTimers,
    progress: () => () => {},
    node: 'node1',
    host: {
      describe: async () => {
        asked.local++
        return []
      },
      createTable: async () => {
        asked.created++
      },
    } as never,
    peers: {
      describeTables: () => {
        asked.remote++
        return describe()
      },
      request: async () => [],
      isUp: () => true,
      isHarper: () => false,
    } as never,
    streams: { ensure: async () => {} },
    starts: { setStart: async () => async () => {} },
    refused: () => {},
    registers: {
      changedWhileDown: new Map(),
      forNode: () => [],
      get: () => undefined,
      set: () => {},
      openStart: () => undefined,
      begun: { has: () => false },
      reserve: (more: number, max: number) => size + more <= max,
    } as unknown as Registers,
    clock: { timestamp: () => '1', merge: () => true },
    checkClock: () => {},
    store: {
      get manifest() {
        return manifest
      },
      commit: async (change: (current: Manifest) => Manifest) => {
        manifest = change(manifest)
      },
    } as never,
    nameFault: () => undefined,
    tableCreated() {},
    attributesAdded() {},
    sourceKeysKnown() {},
    logger: silentLogger,
  })
  return { negotiator, asked, manifest: () => manifest }
}

it('a failed comparison is retried after 1 s, then after twice the wait each time, up to 10 s', async (test: TestContext) => {
  let fails = true
  test.mock.method(Math, 'random', () => 0)
  const { negotiator, asked } = open(async () => {
    if (fails) throw clusterError('node_not_listening', 'compare_node', 'node2')
    return []
  })
  test.after(() => negotiator.close())
  fakeSystemTimers(test, 'setTimeout')
  await negotiator.compare('node2')
  let times = 1
  for (const wait of [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]) {
    test.mock.timers.tick(wait - 1)
    await nextTurn()
    assert.equal(asked.remote, times, `${wait - 1} ms later`)
    test.mock.timers.tick(1)
    await nextTurn()
    assert.equal(asked.remote, ++times, `${wait} ms later`)
  }
  fails = false
  test.mock.timers.tick(10_000)
  await nextTurn()
  fails = true
  await negotiator.compare('node2')
  test.mock.timers.tick(1_000)
  await nextTurn()
  assert.equal(asked.remote, times + 3, 'the first wait again after a success')
})

it('rejects a request of a peer that exceeds 100000 subscriptions, and creates nothing', async () => {
  const { negotiator, asked, manifest } = open(async () => [], 99_999)
  const subscription = { schema: 'dev', table: 'a', publish: true, subscribe: true, hash_attribute: 'id' }
  const request = { node_name: 'node2', revision: '1' }
  const entry = { ...subscription, removed: true, revision: '1' }
  const two = [subscription, { ...subscription, table: 'b' }]
  const entries = [entry, { ...entry, table: 'b' }]
  await assert.rejects(
    negotiator.handleRequest({ ...request, operation: 'add_node', subscriptions: two }),
    /too many subscriptions/,
  )
  await negotiator.handleRequest({ ...request, operation: 'compare_node', entries, range: { from: '' } })
  assert.deepEqual([asked.created, manifest().nodes], [0, []])
  await negotiator.handleRequest({ ...request, operation: 'add_node', subscriptions: [subscription] })
  assert.equal(asked.created, 1)
})

it('describes the local tables twice in a comparison, however many tables it has', async () => {
  const { negotiator, asked, manifest } = open(async () => [])
  const entries = Array.from({ length: 100 }, (_, index) => ({
    schema: 'dev',
    table: `table${index}`,
    publish: true,
    subscribe: true,
    hash_attribute: 'id',
    attributes: [],
    removed: false,
    revision: '1',
  }))
  await negotiator.handleRequest({
    operation: 'compare_node',
    node_name: 'node2',
    revision: '1',
    entries,
    range: { from: '' },
  })
  assert.equal(manifest().nodes[0]?.subscriptions.length, 100)
  assert.equal(asked.local, 2)
})
