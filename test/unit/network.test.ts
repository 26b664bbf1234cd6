// Members of the mesh, with invalid answers among the valid ones.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { members } from '../../lib/mesh/nats/members.ts'
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
