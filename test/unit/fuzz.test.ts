// Thousands of nearly valid inputs, and a hundred thousand with `npm run test:long`: bodies of operations, the configuration file,
// messages of remote nodes. Each is accepted or rejected with an error of this module, and a rejection changes nothing.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { ClusterError } from '../../lib/errors.ts'
import type { Transaction, Write } from '../../lib/host/host.ts'
import { defaultConfigText } from '../../lib/manifest/config.ts'
import { editConfig } from '../../lib/manifest/config-edit.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import { diff } from '../../lib/manifest/diff.ts'
import { addRoutes, type Manifest, setSubscriptions } from '../../lib/manifest/manifest.ts'
import { execute } from '../../lib/operations/index.ts'
import * as protocol from '../../lib/peers/protocol.ts'
import { decodeStored, encodeFrame, Frame } from '../../lib/replication/wire/frame.ts'
import { WireError } from '../../lib/replication/wire/names.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { isLong } from '../support/long.ts'
import { nearly, nearlyBytes, nearlyText } from '../support/mutate.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'
import { openContext, superUser } from './operations-context.ts'

const numRuns = isLong ? 100_000 : 2_000
const seed = seedOf()
console.log(`SEED=${seed}`)

const subscription = { database: 'dev', table: 'dog', publish: true, subscribe: false }
const node = { node_name: 'node2', subscriptions: [subscription] }
const bodies = [
  { operation: 'cluster_set_routes', server: 'hub', routes: [{ host: '10.0.0.2', port: 9932 }] },
  { operation: 'cluster_get_routes' },
  { operation: 'cluster_delete_routes', routes: [{ host: '10.0.0.2', port: '9932' }] },
  { operation: 'add_node', ...node },
  {
    operation: 'add_node',
    node_name: 'node3',
    subscriptions: [{ ...subscription, start_time: '2026-01-01T00:00:00Z' }],
  },
  { operation: 'update_node', ...node },
  { operation: 'set_node_replication', ...node },
  { operation: 'remove_node', node_name: 'node2' },
  { operation: 'configure_cluster', connections: [node], dry_run: 'false' },
  { operation: 'cluster_status' },
  { operation: 'cluster_network', timeout: '100', connected_nodes: true, routes: false },
  { operation: 'purge_stream', database: 'dev', table: 'dog', options: { keep: 10 } },
  { operation: 'purge_stream', schema: 'dev', table: 'dog', options: { seq: '10' } },
]

describe('the body of an operation', { timeout: 900_000 }, () => {
  const body = fc.oneof({ weight: 9, arbitrary: nearly(bodies) }, { weight: 1, arbitrary: fc.anything() })

  it('is accepted, or rejected with a ClusterError without any change', async (test) => {
    const { context, path } = await openContext(test)
    const outcomes = { accepted: 0, rejected: 0 }
    const property = fc.asyncProperty(body, async (each) => {
      const { manifest } = context.store
      try {
        await execute(context, each, superUser)
        outcomes.accepted++
      } catch (error) {
        outcomes.rejected++
        assert.ok(error instanceof ClusterError, String((error as Error)?.stack ?? error))
        assert.notEqual(error.code, 'internal', error.stack)
        assert.equal(typeof error.message, 'string')
        assert.equal(context.store.manifest, manifest)
      }
    })
    await fc.assert(property, { seed, numRuns })
    test.diagnostic(JSON.stringify(outcomes))
    assert.ok(outcomes.accepted > numRuns / 20 && outcomes.rejected > numRuns / 20)
    assert.equal(({} as { polluted?: boolean }).polluted, undefined)
    // The file contains the accepted changes and is readable.
    assert.match(await readFile(path, 'utf8'), /nodeName: node1/)
  })

  it('is rejected for every caller who is not a super user', async (test) => {
    const { context } = await openContext(test)
    const callers = [undefined, {}, { superUser: false }, { superUser: 'true' }, { superUser: 1 }] as never[]
    const property = fc.asyncProperty(body, fc.constantFrom(...callers), async (each, caller) => {
      await assert.rejects(execute(context, each, caller), { code: 'forbidden' })
    })
    await fc.assert(property, { seed, numRuns: numRuns / 10 })
  })
})

describe('the configuration file', { timeout: 900_000 }, () => {
  const readme = readFileSync(new URL('../../lib/manifest/README.md', import.meta.url), 'utf8')
  const sample = /```yaml\n(rootPath[^`]*)```/.exec(readme)![1]!
  const anchored = `dog: &dog { database: dev, table: dog, publish: true, subscribe: true }
clustering:
  enabled: true
  nodeName: node1
  user: u
  nodes:
  - name: node2
    subscriptions: [*dog]
  - { name: "node3", subscriptions: [{ <<: *dog, table: cat }] }
other: [1, 2, *dog]
`
  const files = [defaultConfigText, sample, anchored, sample.replaceAll('\n', '\r\n'), `\ufeff${anchored}`]
  const changed = (manifest: Manifest): Manifest => {
    const { manifest: routed } = addRoutes(manifest, 'hub', [{ host: 'new.example', port: 1 }])
    return setSubscriptions(routed, 'new', [{ database: 'dev', table: 'dog', publish: true, subscribe: false }])
  }

  it('is read or rejected with positions, and an edit changes nothing else in it', (test) => {
    const outcomes = { read: 0, wrong: 0, written: 0, left: 0 }
    const property = fc.property(nearlyText(files), (onDisk) => {
      const text = new ConfigText(onDisk)
      if (!text.config) {
        outcomes.wrong++
        assert.ok(text.problems.length > 0)
        for (const { line = 1, column = 1, message } of text.problems) {
          assert.ok(line >= 1 && column >= 1 && line <= onDisk.split('\n').length + 1, `line ${line}, column ${column}`)
          assert.ok(typeof message === 'string' && message !== '')
        }
        return
      }
      outcomes.read++
      const desired = changed(text.config.manifest)
      let edited: ConfigText
      try {
        edited = editConfig(text, diff(text.config.manifest, desired))
      } catch (error) {
        outcomes.left++
        assert.ok(error instanceof Error && error.constructor === Error, String((error as Error)?.stack ?? error))
        return
      }
      outcomes.written++
      const again = new ConfigText(edited.onDisk)
      assert.deepEqual([again.problems, again.config?.manifest], [[], desired])
      const { clustering: _, ...others } = text.tree as Record<string, unknown>
      const { clustering: __, ...same } = again.tree as Record<string, unknown>
      assert.deepEqual(same, others)
    })
    fc.assert(property, { seed, numRuns })
    test.diagnostic(JSON.stringify(outcomes))
    assert.ok(outcomes.written > numRuns / 20 && outcomes.wrong > numRuns / 20)
    assert.equal(({} as { polluted?: boolean }).polluted, undefined)
  })
})

describe('a message of a remote node', { timeout: 900_000 }, () => {
  const timestamp = '01a2101d75bb-000000-node1'
  const register = { schema: 'dev', table: 'dog', publish: true, subscribe: true }
  const requests: Parameters<typeof protocol.encode>[0][] = [
    {
      operation: 'add_node',
      node_name: 'node1',
      revision: timestamp,
      subscriptions: [{ ...register, hash_attribute: 'id' }],
    },
    {
      operation: 'compare_node',
      node_name: 'node1',
      entries: [{ ...register, removed: false, revision: timestamp }],
      range: { from: '' },
    },
    { status: 'success', message: { dev: { dog: { hash_attribute: 'id', attributes: [{ attribute: 'id' }] } } } },
    { node: 'node1', instance: 'i', started: 1, session: 's', streams: [['dev', 'dog', 'e1', 7, 9]] },
  ]

  it('is a valid request, answer or heartbeat, or undefined: no decoder throws', () => {
    const readers = [protocol.decodeRequest, protocol.decodeResponse, protocol.decodeHeartbeat]
    let read = 0
    const property = fc.property(nearlyBytes(requests.map(protocol.encode)), (data) => {
      for (const reader of readers) if (reader(data) !== undefined) read++
    })
    fc.assert(property, { seed, numRuns: numRuns * 5 })
    assert.ok(read > 0)
  })

  it('is a valid transaction, or a WireError is thrown', () => {
    const source = { node: 'node1', database: 'dev', table: 'dog' }
    const write: Write = {
      operation: 'upsert',
      database: 'dev',
      table: 'dog',
      records: [{ id: 1, name: 'Rex', at: new Date(0) }],
    }
    const writes: Write[] = [write, { operation: 'delete', database: 'dev', table: 'dog', ids: ['a', 2] }]
    const transactions: Transaction[] = [
      { id: 't1', timestamp, writes: [write] },
      { id: 't2', timestamp, user: 'u', writes },
      { id: 't3', timestamp, writes, origin: { node: 'node3', epoch: 'e3', index: 9, relayedBy: ['node3'] } },
    ]
    const parts = transactions.map((each) => encodePart(each, each.writes, 'node1'))
    const { data: whole, headers } = encodeFrame({ node: 'node1', epoch: 'e1', first: 1 }, parts)
    const place = { sequence: 1, delivery: 1, time: 0 }
    const stored = Frame.read({ ...place, headers, data: whole }).part(0)
    const outcomes = { read: 0, rejected: 0 }
    const check = (part: typeof stored) => {
      try {
        const { writes, timestamp, id } = decodeStored(source, part)
        outcomes.read++
        assert.equal(typeof id, 'string')
        assert.equal(typeof timestamp, 'string')
        for (const each of writes) assert.deepEqual([each.database, each.table], ['dev', 'dog'])
      } catch (error) {
        outcomes.rejected++
        assert.ok(error instanceof WireError, String((error as Error)?.stack ?? error))
      }
    }
    const property = fc.property(nearlyBytes(parts), nearlyBytes([whole]), (data, body) => {
      check({ ...stored, data })
      const frame = Frame.read({ ...place, headers, data: body })
      if (frame.fault === undefined) for (let offset = 0; offset < frame.count; offset++) check(frame.part(offset))
    })
    fc.assert(property, { seed, numRuns: numRuns * 5 })
    assert.ok(outcomes.read > 0 && outcomes.rejected > 0, JSON.stringify(outcomes))
    assert.equal(({} as { polluted?: boolean }).polluted, undefined)
  })
})
