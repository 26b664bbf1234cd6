// Commits come into effect: the newest value only, again and again after a failure, and no more once closed.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Reconciler } from '../../lib/cluster/reconcile.ts'
import { addRoutes, type Manifest } from '../../lib/manifest/manifest.ts'
import { TestClock } from '../../lib/testing.ts'

const empty: Manifest = { nodeName: 'node1', enabled: true, routes: { hub: [], leaf: [] }, nodes: [] } as never
const withRoute = (manifest: Manifest, port: number) =>
  addRoutes(manifest, 'hub', [{ host: '10.0.0.2', port }]).manifest

function scene() {
  const clock = new TestClock({ stopped: true })
  const store = { manifest: empty, settings: { streams: {} } as { streams: { maxAge?: number } } }
  const calls: unknown[] = []
  const reviews: number[] = []
  const errors: { step: string; retryAfterMs: number }[] = []
  const state = { failures: 0, hold: Promise.resolve() }
  const apply = async (call: unknown) => {
    calls.push(call)
    if (state.failures-- > 0) throw new Error('out of order')
  }
  const reconciler = new Reconciler({
    mesh: {
      timers: clock,
      setRoutes: ({ hub }) => apply(hub.map(({ port }) => port)),
      setLimits: ({ maxAge }) => apply({ maxAge }),
      reviewReaders: async () => {
        reviews.push(store.manifest.nodes.length)
        await state.hold
      },
    },
    replicator: { reconcile: ({ nodes }) => apply(nodes.map(({ name }) => name)) },
    store: store as never,
    servesRows: false,
    logger: { debug() {}, info() {}, warn() {}, error: (fields) => void errors.push(fields as never) },
    inEffect: { routes: empty.routes, nodes: empty.nodes, readers: empty.nodes, limits: store.settings.streams },
  })
  const reconcile = async () => {
    reconciler.reconcile()
    await reconciler.idle()
  }
  return { clock, store, calls, reviews, errors, state, reconciler, reconcile }
}

describe('the reconciler', () => {
  it('applies what changed, and nothing else', async () => {
    const { store, calls, reconcile } = scene()
    await reconcile()
    assert.deepEqual(calls, [])
    store.manifest = withRoute(store.manifest, 1)
    store.settings = { streams: { maxAge: 60 } }
    await reconcile()
    await reconcile()
    assert.deepEqual(calls, [[1], { maxAge: 60 }])
  })

  it('retries with growing delays until it succeeds', async () => {
    const { clock, store, calls, errors, state, reconcile } = scene()
    state.failures = 3
    store.manifest = withRoute(store.manifest, 1)
    await reconcile()
    assert.deepEqual(calls, [[1]])
    for (let second = 0; second < 60; second++) await clock.advance(1_000)
    assert.deepEqual(calls, [[1], [1], [1], [1]])
    assert.deepEqual(
      errors.map(({ step }) => step),
      ['routes', 'routes', 'routes'],
    )
    const [first, second, third] = errors.map(({ retryAfterMs }) => retryAfterMs)
    assert.ok(first! < second! && second! < third!)
  })

  it('applies a newer commit at once, instead of the one that failed', async () => {
    const { clock, store, calls, state, reconcile } = scene()
    state.failures = 1
    store.manifest = withRoute(store.manifest, 1)
    await reconcile()
    store.manifest = withRoute(store.manifest, 2)
    await reconcile()
    await clock.advance(60_000)
    assert.deepEqual(calls, [[1], [1, 2]])
  })

  it('sets the previous value again when a failed change is taken back', async () => {
    const { store, calls, state, reconcile } = scene()
    state.failures = 1
    store.manifest = withRoute(empty, 1)
    await reconcile()
    store.manifest = empty
    await reconcile()
    assert.deepEqual(calls, [[1], []])
  })

  it('reviews readers again when that is asked for during a review', async () => {
    const { calls, reviews, state, reconciler } = scene()
    let release = () => {}
    state.hold = new Promise<void>((resolve) => {
      release = resolve
    })
    reconciler.reviewReaders()
    await new Promise((resolve) => setImmediate(resolve))
    reconciler.reviewReaders()
    release()
    await reconciler.idle()
    assert.deepEqual([reviews, calls], [[0, 0], []])
  })

  it('does not retry once it is closed', async () => {
    const { clock, store, calls, state, reconciler, reconcile } = scene()
    state.failures = 1
    store.manifest = withRoute(store.manifest, 1)
    await reconcile()
    reconciler.close()
    await clock.advance(60_000)
    await reconcile()
    assert.deepEqual(calls, [[1]])
  })
})
