// Pure changes of the manifest, and the difference of two manifests.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { applyChange, diff, withoutRemovals } from '../../lib/manifest/diff.ts'
import {
  addRoutes,
  emptyManifest,
  type Manifest,
  makeManifest,
  removeNode,
  removeRoutes,
  replaceNodes,
  routeKey,
  setSubscriptions,
} from '../../lib/manifest/manifest.ts'
import { isHost, isNodeName, isToken } from '../../lib/manifest/names.ts'
import fc from '../support/properties.ts'

const a = { host: 'a', port: 1 }
const b = { host: 'b', port: 2 }
const dog = { database: 'dev', table: 'dog', publish: true, subscribe: false }
const cat = { database: 'dev', table: 'cat', publish: true, subscribe: true }

const unique = <T>(items: T[], key: (item: T) => string): T[] => [
  ...new Map(items.map((item) => [key(item), item])).values(),
]

const routes = fc
  .array(fc.record({ host: fc.constantFrom('a', 'A', 'b', 'c', '::1', '[::1]'), port: fc.integer({ min: 1, max: 3 }) }))
  .map((list) => unique(list, routeKey))
const subscriptions = fc
  .array(
    fc.record({
      database: fc.constantFrom('d', 'e'),
      table: fc.constantFrom('t', 'u', 'v'),
      publish: fc.boolean(),
      subscribe: fc.boolean(),
    }),
  )
  .map((list) => unique(list, (one) => `${one.database}.${one.table}`))
const nodes = fc
  .array(fc.record({ name: fc.constantFrom('n1', 'n2', 'n3', 'n4', 'n5'), subscriptions }))
  .map((list) => unique(list, (node) => node.name))
const manifests = fc
  .record({
    nodeName: fc.constantFrom('', 'me'),
    enabled: fc.boolean(),
    routes: fc.record({ hub: routes, leaf: routes }),
    nodes,
  })
  .map(makeManifest)

const isDeeplyFrozen = (value: unknown): boolean =>
  typeof value !== 'object' || value === null || (Object.isFrozen(value) && Object.values(value).every(isDeeplyFrozen))

describe('manifest changes', () => {
  it('adds routes that neither list has', () => {
    const first = addRoutes(emptyManifest, 'hub', [a, { host: 'A', port: 1 }, b])
    assert.deepEqual(first.set, [a, b])
    assert.deepEqual(first.skipped, [{ host: 'A', port: 1 }])
    const second = addRoutes(first.manifest, 'leaf', [a])
    assert.deepEqual(second.skipped, [a])
    assert.equal(second.manifest, first.manifest)
  })

  it('treats bracketed and bare IPv6 addresses as the same host', () => {
    const { manifest } = addRoutes(emptyManifest, 'hub', [{ host: '[::1]', port: 1 }])
    assert.deepEqual(addRoutes(manifest, 'leaf', [{ host: '::1', port: 1 }]).set, [])
    assert.deepEqual(removeRoutes(manifest, [{ host: '::1', port: 1 }]).manifest.routes.hub, [])
  })

  it('removes routes from the hub list first, then from the leaf list', () => {
    const manifest = makeManifest({ routes: { hub: [a], leaf: [a, b] } })
    const once = removeRoutes(manifest, [a])
    assert.deepEqual(once.manifest.routes, { hub: [], leaf: [a, b] })
    assert.equal(once.manifest.routes.leaf, manifest.routes.leaf)
    const twice = removeRoutes(manifest, [a, a, a])
    assert.deepEqual(twice.manifest.routes, { hub: [], leaf: [b] })
    assert.deepEqual(twice.skipped, [a])
  })

  it('upserts subscriptions and keeps the positions of the others', () => {
    const first = setSubscriptions(emptyManifest, 'n', [dog, cat])
    const second = setSubscriptions(first, 'n', [{ ...dog, subscribe: true }])
    assert.deepEqual(second.nodes[0]?.subscriptions, [{ ...dog, subscribe: true }, cat])
    assert.equal(second.nodes[0]?.subscriptions[1], first.nodes[0]?.subscriptions[1])
    assert.equal(setSubscriptions(second, 'n', [cat]), second)
  })

  it('replaces subscriptions, keeping those that stay', () => {
    const first = setSubscriptions(emptyManifest, 'n', [dog, cat])
    const bird = { ...dog, table: 'bird' }
    const second = setSubscriptions(first, 'n', [bird, cat], { replace: true })
    assert.deepEqual(second.nodes[0]?.subscriptions, [cat, bird])
    assert.equal(setSubscriptions(second, 'n', [bird, cat], { replace: true }), second)
  })

  it('uses the last subscription of a table, and strips unknown properties', () => {
    const desired = { ...dog, startTime: '2022-09-02T20:06:35.993Z' }
    const manifest = setSubscriptions(emptyManifest, 'n', [{ ...dog, publish: false }, desired])
    assert.deepEqual(manifest.nodes, [{ name: 'n', subscriptions: [dog] }])
  })

  it('returns the same manifest when the node to remove is missing', () => {
    const manifest = setSubscriptions(emptyManifest, 'n', [dog])
    assert.equal(removeNode(manifest, 'm'), manifest)
    assert.deepEqual(removeNode(manifest, 'n').nodes, [])
  })

  it('shares nodes that replaceNodes does not change', () => {
    const manifest = setSubscriptions(setSubscriptions(emptyManifest, 'n', [dog]), 'm', [cat])
    assert.equal(replaceNodes(manifest, structuredClone(manifest.nodes) as Manifest['nodes']), manifest)
    const turned = replaceNodes(manifest, manifest.nodes.toReversed())
    assert.equal(turned.nodes[0], manifest.nodes[1])
  })

  it('freezes everything', () => {
    fc.assert(fc.property(manifests, (manifest) => isDeeplyFrozen(manifest)))
    const changed = setSubscriptions(addRoutes(emptyManifest, 'hub', [a]).manifest, 'n', [dog])
    assert.ok(isDeeplyFrozen(changed))
  })

  it('is fast with ten thousand nodes and routes', () => {
    const list = Array.from({ length: 10_000 }, (_, index) => ({ name: `n${index}`, subscriptions: [dog] }))
    const hub = list.map(({ name }) => ({ host: name, port: 1 }))
    const start = performance.now()
    const before = makeManifest({ nodes: list, routes: { hub, leaf: [] } })
    const after = replaceNodes(before, list.slice(1).toReversed())
    assert.equal(addRoutes(before, 'leaf', hub).skipped.length, 10_000)
    assert.equal(removeRoutes(before, hub).deleted.length, 10_000)
    assert.equal(diff(before, after).length, 2)
    assert.ok(performance.now() - start < 2000)
  })
})

describe('diff', () => {
  it('leads from the first manifest to the second', () => {
    fc.assert(
      fc.property(manifests, manifests, (previous, current) => {
        assert.deepEqual(diff(previous, current).reduce(applyChange, previous), current)
      }),
      { numRuns: 1000 },
    )
  })

  it('is empty only for equal manifests', () => {
    fc.assert(
      fc.property(manifests, (manifest) => {
        assert.deepEqual(diff(manifest, makeManifest(structuredClone(manifest) as Manifest)), [])
      }),
    )
  })

  it('contains only an order when only the order differs', () => {
    const previous = makeManifest({
      nodes: [
        { name: 'x', subscriptions: [dog] },
        { name: 'y', subscriptions: [] },
      ],
    })
    const changes = diff(previous, replaceNodes(previous, previous.nodes.toReversed()))
    assert.deepEqual(changes, [{ type: 'order:changed', list: 'nodes', keys: ['y', 'x'] }])
  })

  it('contains the previous value of an update', () => {
    const previous = setSubscriptions(emptyManifest, 'n', [dog])
    const current = setSubscriptions(previous, 'n', [cat])
    assert.deepEqual(diff(previous, current), [
      { type: 'node:updated', node: current.nodes[0], previous: previous.nodes[0] },
    ])
  })

  it('without removals keeps everything and adds the rest', () => {
    fc.assert(
      fc.property(manifests, manifests, (previous, target) => {
        const merged = withoutRemovals(previous, target)
        const kinds = new Set(diff(previous, merged).map((change) => change.type))
        assert.ok(!kinds.has('node:removed'))
        const left = diff(merged, target).map((change) => change.type)
        assert.ok(!left.includes('node:added') && !left.includes('settings:changed'))
      }),
    )
  })
})

describe('names', () => {
  it('validates hosts', () => {
    const good = [
      'a',
      'node-2',
      'db_1.local',
      '10.0.0.1',
      '::1',
      '[2001:db8::1]',
      'EXAMPLE.com',
      'a.b.',
      'x'.repeat(63),
    ]
    const bad = [
      '',
      'two words',
      'a/b',
      'user:pw@h',
      'h:1',
      ' a',
      'a ',
      '-a',
      '256.1.1.1',
      '[a]',
      '[::1',
      'a..b',
      '1.2',
      'fe80::1%eth0',
      `${'a.'.repeat(127)}`,
    ]
    assert.deepEqual(
      good.filter((host) => !isHost(host)),
      [],
    )
    assert.deepEqual(bad.filter(isHost), [])
  })

  it('validates node names and subject tokens', () => {
    const bad = ['', 'a b', 'a.b', 'a*', 'a>', 'a\n', 'a\u0000', 'a\u00a0b']
    assert.deepEqual(bad.filter(isToken), [])
    assert.deepEqual([...bad, 'a/b', 'a,b'].filter(isNodeName), [])
    assert.deepEqual(
      ['a/b', 'ä', 'a,b', 'a-b'].filter((name) => !isToken(name)),
      [],
    )
    assert.ok(isNodeName('ec2-3-22-181-22'))
  })
})
