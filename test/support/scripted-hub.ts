// A server that speaks as much of the NATS protocol as a login to a hub needs, and answers questions as a test says.

import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

const INFO = { server_id: '1', server_name: 'node1-hub', version: '2.10.0', headers: true, max_payload: 1_048_576 }

/** `message`: an answer with this text, in the form of the protocol. */
export type Question = { subject: string; socket: Socket; message(text: string): string }

/** Ends with the test. Resolves with its port on 127.0.0.1. */
export async function scriptedHub(
  test: Pick<TestContext, 'after'>,
  answer: (question: Question) => void,
): Promise<number> {
  const server = createServer((socket) => {
    const numbers = new Map<string, string>()
    socket.on('error', () => {})
    socket.write(`INFO ${JSON.stringify(INFO)}\r\n`)
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.split('\r\n')) {
        const [verb, subject = '', third = ''] = line.split(' ')
        if (verb === 'PING') socket.write('PONG\r\n')
        if (verb === 'SUB') numbers.set(subject, third)
        const message = (data: string) => `MSG ${third} ${numbers.get(third)} ${data.length}\r\n${data}\r\n`
        if (verb === 'PUB') answer({ subject, socket, message })
      }
    })
  })
  test.after(() => server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}
