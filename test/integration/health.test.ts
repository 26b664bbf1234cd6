// What the local servers contribute to the health of a node, on real servers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exposuresOf, factsOf, isMaintained } from '../../lib/mesh/nats/advisories.ts'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { eventually, TestCluster } from '../support/cluster.ts'

test('routes that lead nowhere, and known security holes of the server, are conditions', {
  timeout: 60_000,
}, async (t) => {
  const cluster = TestCluster.for(t)
  const late = await cluster.prepare('node2')
  const node = await cluster.start('node1', { routes: [late.ports.cluster] })
  const conditionOf = (code: string) => node.cluster.health().degraded.find((each) => each.code === code)
  assert.equal(conditionOf('no_route_linked'), undefined, 'the link may still come')
  const { version } = await findBinary()
  const holes = exposuresOf(version, factsOf({ listen: '127.0.0.1', tls: undefined })).map(({ id }) => id)
  assert.equal(conditionOf('server_exposed') !== undefined, holes.length > 0 || !isMaintained(version))
  for (const id of holes) assert.match(conditionOf('server_exposed')!.message, new RegExp(id))
  const changed = node.cluster.events.once('health:changed', {
    where: ({ began }) => began.some(({ code }) => code === 'no_route_linked'),
  })
  assert.deepEqual((await changed).ready, true)
  assert.equal(node.cluster.meshState, 'connected', 'no node of the manifest is missing')

  await cluster.open(late, {})
  await eventually('the link is noticed', () => conditionOf('no_route_linked') === undefined)
})
