// A server that answers the login to a hub without end: the login ends all the same.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { it } from 'node:test'
import { logInToHub } from '../../lib/mesh/nats/hub-login.ts'

const INFO = { server_id: 'S', server_name: 'hub', version: '2.10.0', headers: true, max_payload: 1_048_576, proto: 1 }

/** Speaks as much of the protocol as a login needs, and sends `answer` to each question until the client is gone. */
function answerForEver(socket: Socket, answer: string): void {
  const subscriptions = new Map<string, string>()
  const flood = (inbox: string) => {
    const message = `MSG ${inbox} ${subscriptions.get(inbox)} ${answer.length}\r\n${answer}\r\n`
    const send = () => {
      if (socket.destroyed) return
      if (socket.write(message.repeat(500))) setImmediate(send)
      else socket.once('drain', send)
    }
    send()
  }
  socket.on('error', () => {})
  socket.write(`INFO ${JSON.stringify(INFO)}\r\n`)
  socket.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.split('\r\n')) {
      const [verb, subject = '', third = ''] = line.split(' ')
      if (verb === 'PING') socket.write('PONG\r\n')
      if (verb === 'SUB') subscriptions.set(subject, third)
      if (verb === 'PUB') flood(third)
    }
  })
}

it('a login to a hub reads a bounded number of answers', { timeout: 20_000 }, async (test) => {
  const server = createServer((socket) => answerForEver(socket, '{}'))
  test.after(() => server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const result = await logInToHub({ host: '127.0.0.1', port, user: 'u', password: 'p', timeout: 600_000 })
  assert.deepEqual(result, { outcome: 'accepted', serverVersion: '2.10.0', hubs: [] })
})
