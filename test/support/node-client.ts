// A client of a node's operations API over HTTP.

import { createHash } from 'node:crypto'

export type Answer = { status: number; body: Record<string, unknown> }
export type Login = { username: string; password: string }
export const admin: Login = { username: 'admin', password: 'admin password' }

export abstract class NodeClient {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  abstract get url(): string

  /** One operation over HTTP. */
  async request(body: object | string, login: Login | undefined = admin): Promise<Answer> {
    const authorization = login && `Basic ${Buffer.from(`${login.username}:${login.password}`).toString('base64')}`
    const response = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
    return { status: response.status, body: (await response.json()) as Answer['body'] }
  }

  /** As `request`; rejects when the status is not 200. */
  async operation<T = Record<string, unknown>>(body: object): Promise<T> {
    const answer = await this.request(body)
    if (answer.status !== 200) throw new Error(`${this.name}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body as T
  }

  async rows(database: string, table: string): Promise<Record<string, unknown>[]> {
    return this.operation<Record<string, unknown>[]>({
      operation: 'search_by_value',
      database,
      table,
      search_attribute: 'id',
      search_value: '*',
      get_attributes: ['*'],
    })
  }

  async count(database: string, table: string): Promise<number> {
    const [row] = await this.operation<{ c: number }[]>({
      operation: 'sql',
      sql: `SELECT count(*) AS c FROM ${database}.${table}`,
    })
    return row?.c ?? 0
  }

  /** A hash of all rows, independent of their order: equal on two nodes when their tables are equal. */
  async digest(database: string, table: string): Promise<string> {
    const lines = (await this.rows(database, table)).map(canonical).sort()
    return createHash('sha256').update(lines.join('\n')).digest('hex').slice(0, 16)
  }
}

/** JSON with sorted keys, without the times at which each node wrote the row. */
export function canonical(row: Record<string, unknown>): string {
  const { __createdtime__: _created, __updatedtime__: _updated, ...own } = row
  return JSON.stringify(own, (_, value) =>
    value && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  )
}
