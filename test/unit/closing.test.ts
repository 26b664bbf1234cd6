// `close` ends everything whatever fails on the way, and a failed `open` leaves nothing behind.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { stringify } from 'yaml'
import type { ClusterOptions } from '../../lib/cluster/options.ts'
import { Reconciler } from '../../lib/cluster/reconcile.ts'
import { Service } from '../../lib/cluster/service.ts'
import { ClusterManager } from '../../lib/cluster-manager.ts'
import { ManifestStore } from '../../lib/manifest/store.ts'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { Negotiator } from '../../lib/peers/negotiator.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { Registers } from '../../lib/peers/registers.ts'
import { Publisher } from '../../lib/replication/publish/publisher.ts'
import { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { Replicator } from '../../lib/replication/subscribe/replicator.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { runSteps } from '../../lib/util/run-steps.ts'
import { temporaryDirectory } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'

const fault = () => {
  throw new Error('injected')
}

async function scene(t: TestContext, options: Partial<ClusterOptions> = {}) {
  const [directory, remove] = await temporaryDirectory()
  const configFile = join(directory, 'config.yaml')
  await writeFile(configFile, stringify({ clustering: { enabled: true, nodeName: 'node1', user: 'cluster_user' } }))
  const network = new MemoryNetwork()
  t.after(async () => {
    await network.close()
    await remove()
  })
  const open = async (more: Partial<ClusterOptions> = {}) => {
    const mesh = network.mesh()
    const cluster = ClusterManager.open({
      configFile,
      host: new MemoryHost([['dev', 'dog']]),
      mesh,
      ...options,
      ...more,
    })
    return { mesh, cluster: await cluster.catch((error: unknown) => error as Error) }
  }
  /** Nothing is left: neither the mesh nor the lock. */
  const assertEnded = async (mesh: Mesh) => {
    assert.equal(mesh.state, 'stopped')
    const { cluster } = await open()
    assert.ok(cluster instanceof ClusterManager, String(cluster))
    await cluster.close()
  }
  return { open, assertEnded }
}

describe('steps', () => {
  it('run in order, also after failures, and the errors are reported at the end', async () => {
    const done: string[] = []
    const failed: string[] = []
    const step = (name: string, error?: unknown) =>
      [
        name,
        async () => {
          done.push(name)
          if (error) throw error
        },
        100,
      ] as const
    const never = ['never', () => new Promise(() => {}), 5] as const
    const thrown = ['thrown', fault, 100] as const
    await runSteps([step('a'), step('b')])
    await assert.rejects(runSteps([step('c', new Error('one')), step('d')]), { message: 'one' })
    await assert.rejects(
      runSteps([step('e', 'text'), never, thrown, step('f')], (name, { message }) =>
        failed.push(`${name}: ${message}`),
      ),
      { name: 'AggregateError', message: 'text; never did not end within 5 ms; injected' },
    )
    assert.deepEqual(done, ['a', 'b', 'c', 'd', 'e', 'f'])
    assert.deepEqual(failed, ['e: text', 'never: never did not end within 5 ms', 'thrown: injected'])
  })
})

describe('closing', () => {
  const parts: [name: string, prototype: object, method: string][] = [
    ['the file', ManifestStore.prototype, 'close'],
    ['the publisher', Publisher.prototype, 'close'],
    ['the negotiator', Negotiator.prototype, 'close'],
    ['the peers', Peers.prototype, 'close'],
    ['the reconciler', Reconciler.prototype, 'close'],
    ['the wait for the reconciler', Reconciler.prototype, 'idle'],
    ['the subscriptions', Replicator.prototype, 'close'],
    ['the revisions', Registers.prototype, 'flush'],
    ['the service', Service.prototype, 'close'],
  ]
  for (const [name, prototype, method] of parts)
    it(`ends everything else when ${name} fails, and says so`, async (t) => {
      const log: object[] = []
      const { open, assertEnded } = await scene(t, {
        logger: { debug() {}, info() {}, warn() {}, error: (fields) => void log.push(fields) },
      })
      const { mesh, cluster } = await open()
      assert.ok(cluster instanceof ClusterManager)
      const original = prototype[method as never] as (...args: unknown[]) => unknown
      t.mock.method(
        prototype,
        method as never,
        async function (this: unknown, ...args: unknown[]) {
          await original.apply(this, args)
          fault()
        } as never,
      )
      await assert.rejects(cluster.close(), { code: 'internal', message: /injected/ })
      await assert.rejects(cluster.close(), { code: 'internal' }, 'the same result')
      assert.equal(cluster.state, 'closed')
      assert.ok(log.some((fields) => (fields as { reason?: string }).reason === 'injected'))
      t.mock.restoreAll()
      await assertEnded(mesh)
    })

  it('does not wait for a host that does not answer', { timeout: 60_000 }, async (t) => {
    const { open, assertEnded } = await scene(t)
    const host = new MemoryHost([['dev', 'dog']])
    host.readOutbox = () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) })
    const { mesh, cluster } = await open({ host })
    assert.ok(cluster instanceof ClusterManager)
    const published = assert.rejects(cluster.publish({ id: '1', timestamp: cluster.timestamp(), writes: [] }))
    // Fulfilled if calls of the host are given up earlier.
    await cluster.close().catch(({ message }) => assert.match(message, /did not end within/))
    await published
    assert.equal(cluster.state, 'closed')
    await assertEnded(mesh)
  })

  it('does not depend on the logger, the meter or the listeners of the host', async (t) => {
    const { open, assertEnded } = await scene(t, {
      logger: { debug: fault, info: fault, warn: fault, error: async () => fault() },
      listeners: { 'mesh:state': fault, 'subscription:state': async () => fault() },
    })
    const { mesh, cluster } = await open()
    assert.ok(cluster instanceof ClusterManager, String(cluster))
    await cluster.close()
    await assertEnded(mesh)
  })
})

describe('a failed open leaves nothing behind', () => {
  const steps: [name: string, object: object, method: string][] = [
    ['the file', ManifestStore, 'open'],
    ['the clock of the database', MemoryHost.prototype, 'lastTimestamp'],
    ['the quarantine', Quarantine, 'open'],
    ['the revisions', Registers, 'open'],
    ['the parts', Service.prototype, 'start'],
    ['the peers', Peers.prototype, 'start'],
    ['the subscriptions', Replicator.prototype, 'reconcile'],
    ['the reconciler', Reconciler.prototype, 'reconcile'],
  ]
  for (const [name, object, method] of steps)
    it(`when ${name} cannot be opened`, async (t) => {
      const { open, assertEnded } = await scene(t)
      t.mock.method(object, method as never, fault as never)
      const { mesh, cluster } = await open()
      assert.match(String(cluster), /injected/)
      t.mock.restoreAll()
      await assertEnded(mesh)
    })

  for (const method of ['setLimits', 'open', 'serve', 'listen'] as const)
    it(`when the mesh fails in ${method}`, async (t) => {
      const { open, assertEnded } = await scene(t)
      const mesh = new MemoryNetwork().mesh()
      mesh[method] = fault
      const { cluster } = await open({ mesh })
      assert.match(String(cluster), /injected/)
      await assertEnded(mesh)
    })

  for (const createHistogram of [fault, () => ({})])
    it(`when the meter fails, ${createHistogram === fault ? 'before' : 'after'} the start`, async (t) => {
      const { open, assertEnded } = await scene(t)
      const meter = {
        createObservableCounter: fault,
        createObservableGauge: fault,
        createHistogram,
        addBatchObservableCallback: fault,
        removeBatchObservableCallback: fault,
      }
      const { mesh, cluster } = await open({ meter: meter as never })
      assert.match(String(cluster), /injected/)
      await assertEnded(mesh)
    })
})
