// Appending to our own streams: every acknowledgement comes back on one inbox, so that a window of messages is in flight at once.

import { StringCodec } from 'nats'
import { type Expected, MeshError, type Message, type TableName } from '../mesh.ts'
import { asMeshError, type Connection } from './connection.ts'
import { type ApiError, apiError, subjectOf } from './jetstream.ts'

type Done = (error: MeshError | undefined, sequence: number) => void
type Pending = { table: TableName; done: Done; sentAt: number }
type Acknowledgement = { seq?: number; error?: ApiError }

const EXPECTED_SEQUENCE = 'Nats-Expected-Last-Sequence'
const EXPECTED_ID = 'Nats-Expected-Last-Msg-Id'
/** ms without an acknowledgement after which it is not known whether a message was stored. */
const ACK_TIMEOUT = 5_000
const text = StringCodec()
/** What nearly every acknowledgement is, read faster than as JSON. */
const STORED = /^\{"stream":"\w+",(?: ?"domain":"[^"]+",)? ?"seq":(\d+)\}$/

export class Appender {
  readonly #connection: Connection
  readonly #inbox: string
  readonly #subscription: { unsubscribe(): void }
  /** In the order of sending. */
  readonly #pending = new Map<number, Pending>()
  readonly #timer: NodeJS.Timeout
  readonly #node: string
  /** Tables whose messages were given up without an answer, until there is one. */
  readonly #silent = new Map<string, TableName>()
  #written: TableName | undefined
  #next = 0

  constructor(connection: Connection, node: string) {
    this.#connection = connection
    this.#node = node
    this.#inbox = `${connection.inbox()}.`
    this.#subscription = connection.subscribe(`${this.#inbox}*`, (message) => {
      const token = Number(message.subject.slice(this.#inbox.length))
      const pending = this.#pending.get(token)
      if (!pending) return
      this.#pending.delete(token)
      this.#written = pending.table
      if (this.#silent.size > 0) this.#silent.delete(subjectOf(this.#node, pending.table))
      this.#settle(pending.done, message.headers?.code, message.data)
    })
    this.#timer = setInterval(() => this.#expire(), ACK_TIMEOUT / 5)
    this.#timer.unref()
  }

  /** A table whose stream is written: the one that has owed an answer for longest, if any does. */
  get written(): TableName | undefined {
    const [silent] = this.#silent.values()
    return silent ?? this.#pending.values().next().value?.table ?? this.#written
  }

  append(table: TableName, message: Message, expected: Expected, done: Done): void {
    const token = this.#next++
    try {
      this.#connection.publish(subjectOf(this.#node, table), message.data, {
        reply: `${this.#inbox}${token}`,
        headers: message.headers,
        more:
          expected.id === undefined
            ? { [EXPECTED_SEQUENCE]: `${expected.sequence}` }
            : { [EXPECTED_SEQUENCE]: `${expected.sequence}`, [EXPECTED_ID]: expected.id },
      })
    } catch (error) {
      const reason = asMeshError(error)
      queueMicrotask(() => done(reason, 0))
      return
    }
    this.#pending.set(token, { table, done, sentAt: performance.now() })
  }

  /** Everything in flight fails: it is not known what of it was stored. */
  fail(error: MeshError): void {
    const pending = [...this.#pending.values()]
    this.#pending.clear()
    for (const { table } of pending) this.#silent.set(subjectOf(this.#node, table), table)
    for (const { done } of pending) done(error, 0)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#subscription.unsubscribe()
    this.fail(new MeshError('disconnected', 'the mesh is closed'))
  }

  #settle(done: Done, status: number | undefined, data: Uint8Array): void {
    if (status) return done(new MeshError(status === 503 ? 'not_found' : 'refused', `status ${status}`), 0)
    const answered = text.decode(data)
    const sequence = STORED.exec(answered)?.[1]
    if (sequence !== undefined) return done(undefined, Number(sequence))
    let answer: Acknowledgement
    try {
      answer = JSON.parse(answered) as Acknowledgement
    } catch (error) {
      return done(asMeshError(error), 0)
    }
    if (answer.error) return done(apiError(answer.error), 0)
    done(undefined, Number(answer.seq))
  }

  #expire(): void {
    const oldest = this.#pending.values().next().value
    if (oldest && performance.now() - oldest.sentAt > ACK_TIMEOUT)
      this.fail(new MeshError('timeout', `no acknowledgement within ${ACK_TIMEOUT} ms`))
  }
}
