// Events describe every change of the manifest, and no listener can disturb the others.

import assert from 'node:assert/strict'
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { stringify } from 'yaml'
import { ClusterManager } from '../../lib/cluster-manager.ts'
import type { EventName, Payload } from '../../lib/events/events.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import { applyChange } from '../../lib/manifest/diff.ts'
import {
  type ChangeCause,
  type Manifest,
  type ManifestNode,
  nodeKey,
  type Route,
  routeKey,
} from '../../lib/manifest/manifest.ts'
import { eventually } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'

const text = `# kept
clustering:
  enabled: false
  nodeName: node1
  hubServer: { cluster: { network: { routes: [{ host: a, port: 1 }] } } }
  nodes:
    - name: node2
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true }
`
const route = (host: string, port = 1): Route => ({ host, port })

async function withManager<T>(work: (cluster: ClusterManager, path: string) => Promise<T>, content = text): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-events-'))
  const path = join(directory, 'database.yaml')
  try {
    await writeFile(path, content)
    const cluster = await ClusterManager.open({ configFile: path, host: new MemoryHost() })
    try {
      return await work(cluster, path)
    } finally {
      await cluster.close()
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

const fineEvents = ['route:added', 'route:removed', 'node:added', 'node:updated', 'node:removed'] as const
type Fine = { [Name in (typeof fineEvents)[number]]: { event: Name } & Payload<Name> }[(typeof fineEvents)[number]]

/** Applies a detailed event to the lists of a manifest; these events do not contain the order. */
class Lists {
  readonly routes: Record<'hub' | 'leaf', Map<string, Route>>
  readonly nodes: Map<string, ManifestNode>

  constructor({ routes, nodes }: Manifest) {
    const byKey = (list: readonly Route[]) => new Map(list.map((each) => [routeKey(each), each]))
    this.routes = { hub: byKey(routes.hub), leaf: byKey(routes.leaf) }
    this.nodes = new Map(nodes.map((node) => [nodeKey(node), node]))
  }

  follow(reported: Fine): void {
    if (reported.event === 'route:added') {
      const list = this.routes[reported.server]
      assert.ok(!list.has(routeKey(reported.route)), 'a route that was there is added')
      list.set(routeKey(reported.route), reported.route)
    } else if (reported.event === 'route:removed') {
      assert.deepEqual(this.routes[reported.server].get(routeKey(reported.route)), reported.route)
      this.routes[reported.server].delete(routeKey(reported.route))
    } else if (reported.event === 'node:added') {
      assert.ok(!this.nodes.has(reported.node.name), 'a node that was there is added')
      this.nodes.set(reported.node.name, reported.node)
    } else if (reported.event === 'node:updated') {
      assert.deepEqual(this.nodes.get(reported.node.name), reported.previous)
      assert.notDeepEqual(reported.node, reported.previous)
      this.nodes.set(reported.node.name, reported.node)
    } else {
      assert.deepEqual(this.nodes.get(reported.node.name), reported.node)
      this.nodes.delete(reported.node.name)
    }
  }

  get sorted(): unknown {
    const sort = <T>(map: ReadonlyMap<string, T>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1))
    return [sort(this.routes.hub), sort(this.routes.leaf), sort(this.nodes)]
  }
}

// Few names, so that steps collide; some are the same route in another spelling.
const routes = fc.array(
  fc.record({ host: fc.constantFrom('a', 'A', 'b', '::1', '[::1]'), port: fc.integer({ min: 1, max: 2 }) }),
  {
    maxLength: 4,
  },
)
const subscription = fc.record({
  database: fc.constant('dev'),
  table: fc.constantFrom('dog', 'cat', 'cow'),
  publish: fc.boolean(),
  subscribe: fc.boolean(),
})
const nodes = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('node2', 'node3', 'node4'),
    subscriptions: fc.uniqueArray(subscription, { maxLength: 3, selector: ({ table }) => table }),
  }),
  { maxLength: 3, selector: ({ name }) => name },
)
const server = fc.constantFrom('hub' as const, 'leaf' as const)
const step = fc.oneof(
  fc.record({ do: fc.constant('set' as const), server, routes }),
  fc.record({ do: fc.constant('delete' as const), routes }),
  fc.record({ do: fc.constant('edit' as const), hub: routes, leaf: routes, nodes }),
  fc.record({ do: fc.constant('replace' as const), hub: routes, leaf: routes, nodes }),
)

describe('the events of the manifest', () => {
  it('lead from the first manifest to the last when they are replayed', { timeout: 140_000 }, async (test) => {
    const seed = seedOf()
    test.diagnostic(`SEED=${seed}`)
    let commits = 0
    const property = fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 6 }), (steps) =>
      withManager(async (cluster, path) => {
        const first = cluster.manifest
        const changed: Payload<'manifest:changed'>[] = []
        const fine: Fine[] = []
        const order: string[] = []
        cluster.on('manifest:changed', (payload) => {
          assert.equal(cluster.manifest, payload.current)
          changed.push(payload)
          order.push('whole')
        })
        const failures: unknown[] = []
        cluster.on('listener:failed', ({ error }) => failures.push(error))
        for (const event of fineEvents)
          cluster.on(event, (payload) => {
            assert.equal(payload.cause, changed.at(-1)!.cause)
            fine.push({ event, ...payload } as Fine)
            order.push(event)
          })

        let desired: { hub: Route[]; leaf: Route[]; nodes: ManifestNode[] } | undefined
        for (const each of steps) {
          if (each.do === 'set') await cluster.setRoutes({ server: each.server, routes: each.routes })
          else if (each.do === 'delete') await cluster.deleteRoutes({ routes: each.routes })
          else {
            desired = { hub: each.hub, leaf: each.leaf, nodes: each.nodes }
            const clustering = {
              enabled: false,
              nodeName: 'node1',
              hubServer: { cluster: { network: { routes: each.hub } } },
              leafServer: { network: { routes: each.leaf } },
              nodes: each.nodes,
            }
            const content = `# kept\n${stringify({ clustering }, { aliasDuplicateObjects: false })}`
            const place = each.do === 'edit' ? path : `${path}.new`
            await writeFile(place, content)
            if (place !== path) await rename(place, path)
            // An operation imports edits first: additions and modifications take effect here.
            await cluster.setRoutes({ server: 'hub', routes: [] })
          }
        }
        // Removals of an edit wait for two seconds; then memory and file are equal.
        const file = async () => new ConfigText(await readFile(path, 'utf8')).config?.manifest
        const inFile = await file()
        await eventually('memory follows the file', () => JSON.stringify(cluster.manifest) === JSON.stringify(inFile))
        assert.deepEqual(await file(), inFile)
        if (!desired)
          assert.deepEqual([...new Set(changed.map(({ cause }) => cause))], changed.length > 0 ? ['api'] : [])

        assert.deepEqual(failures, [])
        commits += changed.length
        // In order: each starts where the one before ended.
        let replayed = first
        let last = first
        for (const { previous, current, changes } of changed) {
          assert.equal(previous, last)
          last = current
          assert.ok(changes.length > 0)
          replayed = changes.reduce(applyChange, replayed)
          assert.deepEqual(replayed, current)
        }
        assert.deepEqual(replayed, cluster.manifest)
        const lists = new Lists(first)
        for (const each of fine) lists.follow(each)
        assert.deepEqual(lists.sorted, new Lists(cluster.manifest).sorted)
        // manifest:changed precedes its detailed events.
        const expected = changed.flatMap(({ changes }) => [
          'whole',
          ...changes.map(({ type }) => type).filter((type) => type !== 'order:changed'),
        ])
        assert.deepEqual(order, expected)
      }),
    )
    // The tests that wait for a removal run concurrently.
    const [lanes, runs] = [8, 8]
    await Promise.all(
      Array.from({ length: lanes }, (_, lane) =>
        fc.assert(property, { seed: seed + lane, numRuns: runs, endOnFailure: true }),
      ),
    )
    test.diagnostic(`${commits} commits`)
    assert.ok(commits > lanes * runs)
  })
})

describe('listeners', () => {
  it('that throw, reject, or remove themselves do not affect others', () =>
    withManager(async (cluster, path) => {
      const failed: [string, string][] = []
      const heard: string[] = []
      cluster.on('listener:failed', ({ event, error }) => failed.push([event, (error as Error).message]))
      cluster.on('listener:failed', () => {
        throw new Error('even this one')
      })
      let once = 0
      const itself = () => {
        once++
        cluster.off('manifest:changed', itself)
      }
      cluster.on('manifest:changed', () => {
        throw new Error('thrown')
      })
      cluster.on('manifest:changed', itself)
      cluster.on('manifest:changed', async () => {
        throw new Error('rejected')
      })
      cluster.once('route:added', ({ route: { host } }) => {
        throw new Error(`once ${host}`)
      })
      cluster.events.on('manifest:changed', ({ cause }) => heard.push(cause))
      cluster.events.on('route:added', ({ route: { host } }) => heard.push(host))

      const { set } = await cluster.setRoutes({ server: 'hub', routes: [route('b'), route('c')] })
      assert.deepEqual(set, [route('b'), route('c')])
      await writeFile(path, (await readFile(path, 'utf8')).replace('host: a', 'host: d'))
      await eventually('the edit is heard', () => heard.includes('d'))
      assert.deepEqual(heard, ['api', 'b', 'c', 'file', 'd'])
      assert.equal(once, 1)
      await eventually('every failure is reported', () => failed.length === 5)
      assert.deepEqual(failed.map(([event, message]) => `${event} ${message}`).sort(), [
        'manifest:changed rejected',
        'manifest:changed rejected',
        'manifest:changed thrown',
        'manifest:changed thrown',
        'route:added once b',
      ])
    }))

  it('may call operations: these run in order, each with its events', () =>
    withManager(async (cluster) => {
      const causes: ChangeCause[] = []
      const hosts: string[] = []
      const answers: Promise<unknown>[] = []
      cluster.on('manifest:changed', ({ cause, current }) => {
        causes.push(cause)
        const last = current.routes.hub.at(-1)?.port ?? 0
        if (last < 10) answers.push(cluster.setRoutes({ server: 'hub', routes: [route('chain', last + 1)] }))
      })
      cluster.on('route:added', async ({ route: added }) => {
        hosts.push(`${added.host}${added.port}`)
        assert.ok((await cluster.getRoutes()).hub.some(({ host }) => host === added.host))
        if (added.port === 10) await cluster.deleteRoutes({ routes: [route('chain', 5)] })
      })
      const failures: unknown[] = []
      cluster.on('listener:failed', ({ error }) => failures.push(error))
      await cluster.setRoutes({ server: 'hub', routes: [route('chain', 2)] })
      await eventually(
        'the chain ends',
        () => !cluster.manifest.routes.hub.some(({ port }) => port === 5) && hosts.length > 5,
      )
      await Promise.all(answers)
      assert.deepEqual(hosts, [
        'chain2',
        'chain3',
        'chain4',
        'chain5',
        'chain6',
        'chain7',
        'chain8',
        'chain9',
        'chain10',
      ])
      assert.deepEqual(failures, [])
      assert.deepEqual([...new Set(causes)], ['api'])
      assert.equal(cluster.manifest.routes.hub.length, 9)
    }))

  it('may close the manager: the operation is answered, and later ones are rejected', () =>
    withManager(async (cluster) => {
      let closing: Promise<void> | undefined
      const later: string[] = []
      cluster.on('manifest:changed', () => {
        closing ??= cluster.close()
      })
      cluster.on('manifest:changed', ({ current }) => later.push(current.routes.hub.map(({ host }) => host).join()))
      const first = cluster.setRoutes({ server: 'hub', routes: [route('b')] })
      assert.deepEqual((await first).set, [route('b')])
      await closing
      assert.equal(cluster.state, 'closed')
      assert.deepEqual(later, ['a,b'])
      await assert.rejects(cluster.setRoutes({ server: 'hub', routes: [route('c')] }), { code: 'closed' })
    }))

  it('cannot modify the values of other listeners and of the manager', () =>
    withManager(async (cluster) => {
      const events = ['manifest:changed', ...fineEvents] as const satisfies readonly EventName[]
      let attempts = 0
      const frozen = (value: unknown): void => {
        if (typeof value !== 'object' || value === null) return
        attempts++
        assert.ok(Object.isFrozen(value), JSON.stringify(value))
        for (const part of Object.values(value)) frozen(part)
      }
      const failures: unknown[] = []
      cluster.on('listener:failed', ({ error }) => failures.push(error))
      for (const event of events) cluster.on(event, frozen)
      await cluster.setRoutes({ server: 'leaf', routes: [route('b')] })
      await cluster.deleteRoutes({ routes: [route('b'), route('a')] })
      assert.deepEqual(failures, [])
      assert.ok(attempts > 20)
      assert.equal('emit' in cluster.events, false)
    }))
})

it('closing the manager ends iterations and rejects awaited events', async () => {
  const heard: string[] = []
  let iterated: Promise<void> | undefined
  let awaited: Promise<unknown> | undefined
  await withManager(async (cluster) => {
    const added = cluster.events.iterate('route:added')
    iterated = (async () => {
      for await (const { route } of added) heard.push(route.host)
    })()
    awaited = assert.rejects(cluster.events.once('node:removed'), { code: 'closed' })
    await cluster.setRoutes({ server: 'hub', routes: [route('b'), route('c')] })
  })
  await Promise.all([iterated, awaited])
  assert.deepEqual(heard, ['b', 'c'])
})
