// Inserts rows over HTTP, one for each request, on connections that stay open. Not with `fetch`: it takes more processor time for an
// insert than the node that it asks, and both share the same cores.

import { Agent, request } from 'node:http'
import { admin } from '../support/node-client.ts'

export type InsertClientOptions = {
  url: string
  table: string
  /** Text of each row. */
  text: string
  /** Maximum number of connections. */
  connections: number
}

export class InsertClient {
  readonly #options: InsertClientOptions
  readonly #agent: Agent
  readonly #headers: Record<string, string>
  #count = 0

  constructor(options: InsertClientOptions) {
    this.#options = options
    this.#agent = new Agent({ keepAlive: true, maxSockets: options.connections })
    const credentials = Buffer.from(`${admin.username}:${admin.password}`).toString('base64')
    this.#headers = { 'content-type': 'application/json', authorization: `Basic ${credentials}` }
  }

  /** Rows sent so far. */
  get count(): number {
    return this.#count
  }

  /** One row that no other call has sent. Fails unless the answer says that it was inserted. */
  insert(inserted: () => void, failed: (error: unknown) => void): void {
    const { url, table, text } = this.#options
    const records = [{ id: `row-${this.#count++}`, text }]
    const body = JSON.stringify({ operation: 'insert', database: 'dev', table, records })
    const headers = { ...this.#headers, 'content-length': String(Buffer.byteLength(body)) }
    const sent = request(url, { agent: this.#agent, method: 'POST', headers }, (response) => {
      let answer = ''
      response.setEncoding('utf8').on('data', (more: string) => {
        answer += more
      })
      response.on('end', () => {
        if (response.statusCode === 200 && isInserted(answer)) inserted()
        else failed(new Error(`${response.statusCode} ${answer}`))
      })
      // An answer that is cut off has no end, and is no error of the request.
      response.on('error', failed)
    })
    sent.on('error', failed)
    sent.end(body)
  }

  close(): void {
    this.#agent.destroy()
  }
}

function isInserted(answer: string): boolean {
  try {
    return JSON.parse(answer).inserted_hashes.length === 1
  } catch {
    return false
  }
}
