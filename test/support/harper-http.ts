// The operations API of a simulated HarperDB node over HTTP: the operations that read, with HarperDB's answers, in JSON or MessagePack.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Packr } from 'msgpackr'
import { HarperDatabase } from './harper-database.ts'
import type { HarperRecord, HarperTableOptions, HarperTableRows } from './harper-rows.ts'

type Body = Record<string, unknown> & { operation: string }
export type HarperConnectionAnswer = {
  node_name: string
  status?: string
  ports?: { clustering?: number; operations_api?: number }
  subscriptions: { schema: string; table: string; publish: boolean; subscribe: boolean }[]
  system_info?: { hdb_version: string }
}
export type HarperMemberAnswer = { name: string; routes: { host: string; port: number }[] }

export type HarperHttpOptions = {
  name: string
  tables?: HarperTableOptions[]
  /** false: answers JSON only. */
  hasMessagePack?: boolean
}

export const harperLogin = { username: 'HDB_ADMIN', password: 'admin of harper' }
const packr = new Packr({ useRecords: false })
const MAX_BODY_BYTES = 1_000_000

/** For the caller of the API. */
class HarperError extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export class HarperHttp {
  readonly name: string
  readonly database: HarperDatabase
  connections: HarperConnectionAnswer[] = []
  members: HarperMemberAnswer[]
  isEnabled = true
  /** The operations that were asked for, oldest first. */
  readonly operations: string[] = []
  /** Called before an operation is answered, with its number from 1 on. When it throws, the connection is destroyed without an answer. */
  beforeAnswer: ((body: Body, number: number) => void | Promise<void>) | undefined
  /** Returns what is answered instead. */
  changeAnswer: ((body: Body, answer: unknown) => unknown) | undefined
  /** Sent as MessagePack instead of every answer. */
  sent: Buffer | undefined
  readonly #hasMessagePack: boolean
  #server: Server | undefined
  #port = 0

  private constructor({ name, tables = [], hasMessagePack = true }: HarperHttpOptions) {
    this.name = name
    this.database = new HarperDatabase(tables)
    this.members = [{ name, routes: [] }]
    this.#hasMessagePack = hasMessagePack
  }

  /** Ends with the test. */
  static async start(test: { after(work: () => unknown): void }, options: HarperHttpOptions): Promise<HarperHttp> {
    const harper = new HarperHttp(options)
    test.after(() => harper.stop())
    await harper.listen()
    return harper
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }
  get port(): number {
    return this.#port
  }

  get tables(): readonly HarperTableRows[] {
    return this.database.tables
  }

  table(database: string, table: string): HarperTableRows {
    const found = this.database.find(database, table)
    if (!found) throw new HarperError(404, `Table '${database}.${table}' does not exist`)
    return found
  }

  /** On the port of before, if there was one. */
  async listen(): Promise<void> {
    const server = createServer((request, response) => void this.#serve(request, response))
    server.listen(this.#port, '127.0.0.1')
    await once(server, 'listening')
    this.#port = (server.address() as AddressInfo).port
    this.#server = server
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const body = await readBody(request)
      this.operations.push(body.operation)
      await this.beforeAnswer?.(body, this.operations.length)
      const answer = this.#answer(request, body)
      this.#send(request, response, this.changeAnswer ? this.changeAnswer(body, answer) : answer)
    } catch (error) {
      if (!(error instanceof HarperError)) return void response.destroy()
      response.statusCode = error.status
      this.#send(request, response, { error: error.message })
    }
  }

  /** Lists of records as MessagePack are one value after the other. */
  #send({ headers }: IncomingMessage, response: ServerResponse, answer: unknown): void {
    const isPacked = this.#hasMessagePack && (headers.accept ?? '').includes('application/x-msgpack')
    response.setHeader('content-type', isPacked ? 'application/x-msgpack' : 'application/json')
    if (this.sent) response.end(this.sent)
    else if (!isPacked) response.end(JSON.stringify(answer))
    else if (Array.isArray(answer)) response.end(Buffer.concat(answer.map((each) => packr.pack(each))))
    else response.end(packr.pack(answer))
  }

  #answer({ headers }: IncomingMessage, body: Body): unknown {
    const { username, password } = harperLogin
    if (headers.authorization !== `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`)
      throw new HarperError(401, 'Login failed')
    switch (body.operation) {
      case 'cluster_status':
        return { node_name: this.name, is_enabled: this.isEnabled, connections: this.connections }
      case 'cluster_network':
        return { nodes: this.members.map((each) => ({ response_time: 4, connected_nodes: [], ...each })) }
      case 'describe_all':
        return this.database.describe()
      case 'describe_table':
        return this.#tableOf(body).describe()
      case 'search_by_value':
        if (body.search_value !== '*') throw new HarperError(400, 'only * is simulated')
        return this.#tableOf(body).after(undefined, body.limit as number)
      case 'search_by_conditions':
        return search(this.#tableOf(body), body)
      case 'search_by_hash':
        return this.#tableOf(body)
          .some(body.hash_values as unknown[])
          .map((record) => (record ? pick(record, body.get_attributes as string[]) : null))
      default:
        throw new HarperError(400, `Operation '${body.operation}' not found`)
    }
  }

  #tableOf({ database, table }: Body): HarperTableRows {
    return this.table(String(database), String(table))
  }
}

/** By one condition on the primary key. */
function search(rows: HarperTableRows, { conditions, limit, get_attributes }: Body): HarperRecord[] {
  const [condition] = conditions as { search_type: string; search_value: unknown }[]
  if (condition?.search_type === 'greater_than') return rows.after(condition.search_value, limit as number)
  if (condition?.search_type !== 'equals') throw new HarperError(400, 'only equals and greater_than are simulated')
  const found = rows.some([condition.search_value]).filter((record) => record !== undefined)
  return found.map((record) => pick(record, get_attributes as string[]))
}

const pick = (record: HarperRecord, names: readonly string[]): HarperRecord =>
  names.includes('*') ? record : Object.fromEntries(names.map((name) => [name, record[name] ?? null]))

async function readBody(request: IncomingMessage): Promise<Body> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk
    if (text.length > MAX_BODY_BYTES) throw new HarperError(413, 'the body is too large')
  }
  return JSON.parse(text) as Body
}
