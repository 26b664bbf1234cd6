// The dialling hub of two with one name sees only that its connection is closed at once.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { LogWatch } from '../../lib/mesh/nats/log-watch.ts'
import { RouteClosings } from '../../lib/mesh/nats/route-closings.ts'
import { silentLogger } from '../../lib/observe/logger.ts'

const created = (id: number, address = '10.0.0.2:9932') => `${address} - rid:${id} - Route connection created`
const closed = (id: number, reason: string, address = '10.0.0.2:9932') =>
  `${address} - rid:${id} - Router connection closed: ${reason}`

it('reports a hub that closes three connections at once, with the reasons of nats-server 2.9 and 2.15', () => {
  const closings = new RouteClosings()
  const reasons = ['Client Closed', 'Read Error', 'Read Error - Remote: node1-hub']
  const found = reasons.flatMap((reason, id) => [
    closings.line(created(id), 1_000 * id),
    closings.line(closed(id, reason), 1_000 * id + 1),
  ])
  assert.deepEqual(found, [undefined, undefined, undefined, undefined, undefined, '10.0.0.2:9932'])
})

it('reports no hub whose connections last, are duplicates, or come from it', () => {
  const closings = new RouteClosings()
  for (let id = 0; id < 20; id++) {
    assert.equal(closings.line(created(id), 10_000 * id), undefined)
    assert.equal(closings.line(closed(id, 'Client Closed'), 10_000 * id + 2_000), undefined)
    assert.equal(closings.line(created(100 + id), 0), undefined)
    assert.equal(closings.line(closed(100 + id, 'Duplicate Route'), 1), undefined)
    const address = `10.0.0.2:${40_000 + id}`
    assert.equal(closings.line(created(200 + id, address), 0), undefined)
    assert.equal(closings.line(closed(200 + id, 'Read Error', address), 1), undefined)
  }
})

it('reports no hub that is restarted from time to time', () => {
  const closings = new RouteClosings()
  for (let id = 0; id < 20; id++) {
    assert.equal(closings.line(created(id), 6_000 * id), undefined)
    assert.equal(closings.line(closed(id, 'Client Closed'), 6_000 * id + 1), undefined)
  }
})

it('reaches the listener of the mesh once', () => {
  const rejected: string[] = []
  const watch = new LogWatch({
    rejected: (peer, reason) => rejected.push(`${peer} ${reason}`),
    linked() {},
    routeLost() {},
    logger: silentLogger,
  })
  for (let id = 0; id < 10; id++)
    for (const line of [created(id), closed(id, 'Read Error')]) watch.line('hub', 'INF', line)
  assert.equal(rejected.length, 1)
  assert.match(rejected[0]!, /^10\.0\.0\.2:9932 it closes the connection at once, as a node of the same name does/)
})
