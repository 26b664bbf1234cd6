// A server that answers the login to a hub without end: the login ends all the same.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { logInToHub } from '../../lib/mesh/nats/hub-login.ts'
import { type Question, scriptedHub } from '../support/scripted-hub.ts'

/** Sends the same answer until the client is gone. */
function answerForEver({ socket, message }: Question): void {
  const many = message('{}').repeat(500)
  const send = () => {
    if (socket.destroyed) return
    if (socket.write(many)) setImmediate(send)
    else socket.once('drain', send)
  }
  send()
}

it('a login to a hub reads a bounded number of answers', { timeout: 20_000 }, async (test) => {
  const port = await scriptedHub(test, answerForEver)
  const result = await logInToHub({ host: '127.0.0.1', port, user: 'u', password: 'p', timeout: 600_000 })
  assert.deepEqual(result, { outcome: 'accepted', serverVersion: '2.10.0', hubs: [] })
})
