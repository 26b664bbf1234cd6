// A hub that answers later than the others, because it is far or busy: it is waited for when it is expected.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { it } from 'node:test'
import { logInToHub } from '../../lib/mesh/nats/hub-login.ts'

const INFO = { server_id: '1', server_name: 'node1-hub', version: '2.10.0', headers: true, max_payload: 1_048_576 }
/** ms; longer than the pause after which a hub that is not expected is given up. */
const LATE_MS = 600

const hub = (node: string, id: string, data: object) => JSON.stringify({ server: { name: `${node}-hub`, id }, data })

/** The local hub answers at once, that of node2 later. */
function answer(socket: Socket): void {
  const numbers = new Map<string, string>()
  const send = (inbox: string, text: string) =>
    socket.write(`MSG ${inbox} ${numbers.get(inbox)} ${text.length}\r\n${text}\r\n`)
  socket.on('error', () => {})
  socket.write(`INFO ${JSON.stringify(INFO)}\r\n`)
  socket.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.split('\r\n')) {
      const [verb, subject = '', third = ''] = line.split(' ')
      if (verb === 'PING') socket.write('PONG\r\n')
      if (verb === 'SUB') numbers.set(subject, third)
      if (verb !== 'PUB') continue
      if (subject.endsWith('ROUTEZ')) send(third, hub('node1', '1', { routes: [{ remote_id: '2', ip: '10.0.0.2' }] }))
      else {
        send(third, hub('node1', '1', { cluster: { cluster_port: 9001 } }))
        setTimeout(() => send(third, hub('node2', '2', { cluster: { cluster_port: 9002 } })), LATE_MS)
      }
    }
  })
}

it('a hub that is expected may answer late', { timeout: 20_000 }, async (test) => {
  const server = createServer(answer)
  test.after(() => server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const login = { host: '127.0.0.1', port, user: 'u', password: 'p', timeout: 10_000 }
  const result = await logInToHub({ ...login, expected: ['node2'] })
  assert.equal(result.outcome, 'accepted')
  assert.deepEqual(result.hubs, [
    { node: 'node1', address: undefined },
    { node: 'node2', address: { host: '10.0.0.2', port: 9002 } },
  ])
})
