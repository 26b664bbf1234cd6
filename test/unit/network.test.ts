// Members of the mesh, with invalid answers among the valid ones.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { members } from '../../lib/mesh/nats/members.ts'
import { fakeSystemTimers } from '../support/elapsed.ts'
import { ScriptedConnection } from '../support/scripted-connection.ts'

test('invalid answers and floods of invented servers do not hide members', async () => {
  const server = new ScriptedConnection()
  const asked = members(server.connection, 'node1', { timeout: 200 })
  const answer = (value: unknown) =>
    server.deliver(server.subscriptions[0]!, {
      data: Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)),
    })
  const part = { server: { name: 'node2-hub', id: 'x' } }
  for (const odd of [
    null,
    7,
    {},
    { server: null },
    { server: { name: 7 } },
    { ...part, statsz: { routes: 'x' } },
    { ...part, statsz: { routes: [null] } },
    { ...part, data: { cluster: { urls: [1] } } },
    { ...part, data: { cluster: { urls: 'x' } } },
  ])
    answer(odd)
  for (let number = 0; number < 3_000; number++) answer({ server: { name: `made-up${number}-hub` } })
  assert.equal((await asked).length, 2_000)

  const again = members(server.connection, 'node1', { timeout: 2_000 })
  answer({ ...part, statsz: { routes: 'x' } })
  for (const name of ['node1', 'node2']) {
    const other = name === 'node1' ? 'node2' : 'node1'
    answer({ server: { name: `${name}-hub` }, statsz: { routes: [{ name: `${other}-hub` }] } })
    answer({ server: { name: `${name}-hub` }, data: { cluster: { urls: ['127.0.0.1:9932'] } } })
  }
  assert.deepEqual(
    (await again).map(({ node, connectedNodes, routes }) => [node, connectedNodes, routes]),
    [
      ['node1', ['node2'], [{ host: '127.0.0.1', port: 9932 }]],
      ['node2', ['node1'], [{ host: '127.0.0.1', port: 9932 }]],
    ],
  )
})

test('a route to a hub that has just ended delays the members only until the servers have noticed', async (t) => {
  fakeSystemTimers(t, 'setInterval')
  const server = new ScriptedConnection()
  const asked = members(server.connection, 'node1', { timeout: 60_000 })
  const answer = (value: object) =>
    server.deliver(server.subscriptions[0]!, { data: Buffer.from(JSON.stringify(value)) })
  const self = { server: { name: 'node1-hub' } }
  answer({ ...self, statsz: { routes: [{ name: 'node2-hub' }] } })
  answer({ ...self, data: { cluster: { urls: [] } } })
  const before = server.sent.length
  t.mock.timers.tick(500)
  assert.equal(server.sent.length, 2 * before, 'the same requests again')
  answer({ ...self, statsz: { routes: [] } })
  assert.deepEqual(
    (await asked).map(({ node, connectedNodes }) => [node, connectedNodes]),
    [['node1', []]],
  )
})

test('members are those that have answered when the connection is closed meanwhile', async (t) => {
  fakeSystemTimers(t, 'setInterval')
  const server = new ScriptedConnection()
  const asked = members(server.connection, 'node1', { timeout: 60_000 })
  server.deliver(server.subscriptions[0]!, {
    data: Buffer.from(JSON.stringify({ server: { name: 'node1-hub' }, statsz: { routes: [{ name: 'node2-hub' }] } })),
  })
  server.refusal = new Error('closed')
  t.mock.timers.tick(500)
  assert.deepEqual(
    (await asked).map(({ node }) => node),
    ['node1'],
  )
})
