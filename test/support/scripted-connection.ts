// A client connection on which the test plays the server.

import { headers, type Msg } from 'nats'
import type { Headers, RequestOptions } from '../../lib/mesh/mesh.ts'
import type { Connection, PublishOptions } from '../../lib/mesh/nats/connection.ts'

export type Sent = { subject: string; data: string; reply: string; headers: Headers }

export class ScriptedConnection {
  readonly sent: Sent[] = []
  /** Answers requests, by subject and body. */
  serve: (subject: string, body: Record<string, unknown>) => object | Promise<object> = () => ({})
  /** Thrown by every later publish. */
  refusal: Error | undefined
  readonly #subscriptions = new Map<string, (message: Msg) => void>()
  #inboxes = 0

  get connection(): Connection {
    return this as unknown as Connection
  }

  get subscriptions(): string[] {
    return [...this.#subscriptions.keys()]
  }

  inbox(): string {
    return `_INBOX.${++this.#inboxes}`
  }

  publish(subject: string, data: Uint8Array | string, options: PublishOptions = {}): void {
    if (this.refusal) throw this.refusal
    const { reply = '', headers, extraHeaders } = options
    this.sent.push({ subject, data: Buffer.from(data).toString(), reply, headers: { ...headers, ...extraHeaders } })
  }

  subscribe(subject: string, callback: (message: Msg) => void): { unsubscribe(): void } {
    this.#subscriptions.set(subject, callback)
    return { unsubscribe: () => void this.#subscriptions.delete(subject) }
  }

  async request(subject: string, data: string, _: RequestOptions) {
    const answer = await this.serve(subject, data === '' ? {} : JSON.parse(data))
    return { data: Buffer.from(JSON.stringify(answer)) }
  }

  /** Delivers a message to the subscribers of this subject, or of its wildcard. */
  deliver(
    subject: string,
    message: Partial<Msg> & { status?: [code: number, description: string, more?: Headers] },
  ): void {
    const { status: [code, description, more] = [], ...rest } = message
    const head = code === undefined ? undefined : headers(code, description)
    for (const [key, value] of Object.entries(more ?? {})) head?.set(key, value)
    const whole = { data: new Uint8Array(), ...(head && { headers: head }), subject, ...rest } as Msg
    const parent = subject.replace(/[^.]+$/, '*')
    for (const each of [subject, parent]) this.#subscriptions.get(each)?.(whole)
  }
}
