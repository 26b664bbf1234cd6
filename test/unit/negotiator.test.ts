// How often an agreement asks: the other node, and our own database.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import { clusterError } from '../../lib/errors.ts'
import { emptyManifest, type Manifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Negotiator } from '../../lib/peers/negotiator.ts'
import type { Registers } from '../../lib/peers/registers.ts'
import { systemTimers } from '../../lib/util/timers.ts'

const settled = () => new Promise((resolve) => setImmediate(resolve))

/** With one node, `node2`, whose tables are asked for with `describe`; it and the database count. */
function open(describe: () => Promise<never[]>, size = 0) {
  const asked = { there: 0, here: 0, made: 0 }
  let manifest: Manifest = emptyManifest
  const negotiator = new Negotiator({
    timers: systemTimers,
    progress: () => () => {},
    node: 'node1',
    host: {
      describe: async () => {
        asked.here++
        return []
      },
      createTable: async () => {
        asked.made++
      },
    } as never,
    peers: {
      describeTables: () => {
        asked.there++
        return describe()
      },
      request: async () => [],
      isUp: () => true,
    } as never,
    starts: { ensureStream: async () => {}, setStart: async () => {}, clearStart: async () => {} },
    registers: {
      forNode: () => [],
      get: () => undefined,
      set: () => {},
      reserve: (more: number, max: number) => size + more <= max,
    } as unknown as Registers,
    timestamp: () => '1',
    observe: () => true,
    manifest: () => manifest,
    commit: async (change: (current: Manifest) => Manifest) => {
      manifest = change(manifest)
    },
    nameFault: () => undefined,
    logger: silentLogger,
  })
  return { negotiator, asked, manifest: () => manifest }
}

it('a comparison that failed is made again: soon, then twice as late each time, up to ten seconds', async (test: TestContext) => {
  let fails = true
  const { negotiator, asked } = open(async () => {
    if (fails) throw clusterError('node_not_listening', 'compare_node', 'node2')
    return []
  })
  test.after(() => negotiator.close())
  test.mock.timers.enable({ apis: ['setTimeout'] })
  await negotiator.compare('node2')
  let times = 1
  for (const wait of [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]) {
    test.mock.timers.tick(wait - 1)
    await settled()
    assert.equal(asked.there, times, `${wait - 1} ms later`)
    test.mock.timers.tick(1)
    await settled()
    assert.equal(asked.there, ++times, `${wait} ms later`)
  }
  fails = false
  test.mock.timers.tick(10_000)
  await settled()
  fails = true
  await negotiator.compare('node2')
  test.mock.timers.tick(1_000)
  await settled()
  assert.equal(asked.there, times + 3, 'after one that succeeded it begins anew')
})

it('what other nodes ask for ends at a hundred thousand subscriptions: nothing of the request is taken over or made', async () => {
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
  assert.deepEqual([asked.made, manifest().nodes], [0, []])
  await negotiator.handleRequest({ ...request, operation: 'add_node', subscriptions: [subscription] })
  assert.equal(asked.made, 1)
})

it('however many tables another node compares, the database is asked once what it has, and once for the answer', async () => {
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
  assert.equal(asked.here, 2)
})
