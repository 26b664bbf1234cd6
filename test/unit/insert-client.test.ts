// The client that the benchmarks insert with: an answer that is no answer of a node fails the insert, and does not end the process.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { it } from 'node:test'
import { InsertClient } from '../bench/insert-client.ts'

it('an insert fails when the answer is cut off, is no JSON or has another form', { timeout: 10_000 }, async (test) => {
  const answers: [RegExp | undefined, (response: ServerResponse) => void][] = [
    [undefined, (response) => response.end('{"inserted_hashes":["row-0"]}')],
    [/200 <html>/, (response) => response.end('<html>')],
    [/200 null/, (response) => response.end('null')],
    [/500 \{\}/, (response) => response.writeHead(500).end('{}')],
    [
      /aborted/,
      (response) => {
        response.writeHead(200, { 'content-length': '100' })
        response.write('{"inserted_hashes":', () => response.destroy())
      },
    ],
  ]
  let answer: (response: ServerResponse) => void = () => {}
  const server = createServer((request, response) => request.resume().on('end', () => answer(response)))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const client = new InsertClient({ url, table: 'dog', text: 'x', connections: 1 })
  test.after(() => {
    client.close()
    server.close()
    server.closeAllConnections()
  })
  for (const [message, each] of answers) {
    answer = each
    const inserted = new Promise<void>((resolve, reject) => client.insert(resolve, reject))
    await (message ? assert.rejects(inserted, { message }) : inserted)
  }
})
