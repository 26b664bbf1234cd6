// A hub that answers later than the others, because it is far or busy: it is waited for when it is expected.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { logInToHub } from '../../lib/mesh/nats/hub-login.ts'
import { type Question, scriptedHub } from '../support/scripted-hub.ts'

/** ms; longer than the pause after which a hub that is not expected is given up. */
const LATE_MS = 600

const hub = (node: string, id: string, data: object) => JSON.stringify({ server: { name: `${node}-hub`, id }, data })

/** The local hub answers at once, that of node2 later. */
function answer({ subject, socket, message }: Question): void {
  if (subject.endsWith('ROUTEZ'))
    socket.write(message(hub('node1', '1', { routes: [{ remote_id: '2', ip: '10.0.0.2' }] })))
  else {
    socket.write(message(hub('node1', '1', { cluster: { cluster_port: 9001 } })))
    setTimeout(() => socket.write(message(hub('node2', '2', { cluster: { cluster_port: 9002 } }))), LATE_MS)
  }
}

it('a hub that is expected may answer late', { timeout: 20_000 }, async (test) => {
  const port = await scriptedHub(test, answer)
  const login = { host: '127.0.0.1', port, user: 'u', password: 'p', timeout: 10_000 }
  const result = await logInToHub({ ...login, expected: ['node2'] })
  assert.equal(result.outcome, 'accepted')
  assert.deepEqual(result.hubs, [
    { node: 'node1', address: undefined },
    { node: 'node2', address: { host: '10.0.0.2', port: 9002 } },
  ])
})
