// Appends to the local streams. All acknowledgements arrive on one inbox, so that many messages are in flight at once.

import { clearInterval, queueMicrotask, setInterval } from '../../util/timers.ts'
import { type ExpectedLast, type Headers, MeshError, type Message, type TableName } from '../mesh.ts'
import { TableMap } from '../table-map.ts'
import { type Connection, parseJson, toMeshError } from './connection.ts'
import { type ApiError, apiError, subjectOf } from './jetstream.ts'

type AppendCallback = (error: MeshError | undefined, sequence: number) => void
/** A table's subject, and the callback for its acknowledgements. */
type Target = { readonly table: TableName; readonly subject: string; readonly done: AppendCallback }
type Acknowledgement = { seq?: number; error?: ApiError; duplicate?: boolean }

const CHECK_INTERVAL_MS = 1_000
/** After this many checks without an acknowledgement, pending messages fail: they may or may not be stored. */
const MAX_CHECKS = 5
/** A positive acknowledgement begins with `STORED`, and nearly always ends with `SEQUENCE`, the number and a brace. */
const STORED = Buffer.from('{"stream":')
const SEQUENCE = Buffer.from('"seq":')
const [ZERO, NINE] = Buffer.from('09') as Buffer & [number, number]

/** The sequence at the end of a positive acknowledgement, faster than JSON.parse; undefined for any other form. */
function parseStoredSequence(data: Uint8Array): number | undefined {
  let sequence = 0
  let at = data.length - 2
  for (let factor = 1; data[at]! >= ZERO && data[at]! <= NINE; factor *= 10) sequence += (data[at--]! - ZERO) * factor
  const isNumber = at < data.length - 2 && endsAt(data, SEQUENCE, at + 1) && endsAt(data, STORED, STORED.length)
  return isNumber ? sequence : undefined
}

/** True when `data` has these bytes directly before offset `end`. */
function endsAt(data: Uint8Array, bytes: Uint8Array, end: number): boolean {
  for (let index = 0; index < bytes.length; index++) if (data[end - bytes.length + index] !== bytes[index]) return false
  return true
}

const headersOf = ({ sequence, id }: ExpectedLast): Headers =>
  id === undefined
    ? { 'Nats-Expected-Last-Sequence': `${sequence}` }
    : { 'Nats-Expected-Last-Sequence': `${sequence}`, 'Nats-Expected-Last-Msg-Id': id }

export class Appender {
  readonly #connection: Connection
  readonly #inbox: string
  readonly #subscription: { unsubscribe(): void }
  /** By token, in the order of sending. */
  readonly #pending = new Map<number, Target>()
  readonly #timer: NodeJS.Timeout
  readonly #createTarget: (table: TableName) => Target
  readonly #targets = new TableMap<Target>()
  /** The longest pending message, and the number of checks since it became that. */
  #oldest = { token: -1, checks: 0 }
  /** Tables with messages that failed without an answer, until the next answer for the table. */
  readonly #unanswered = new Set<TableName>()
  #lastWritten: TableName | undefined
  #next = 0

  constructor(connection: Connection, node: string) {
    this.#connection = connection
    this.#createTarget = (table) => ({ table, subject: subjectOf(node, table), done: () => {} })
    this.#inbox = `${connection.inbox()}.`
    this.#subscription = connection.subscribe(`${this.#inbox}*`, (message) => {
      const token = Number(message.subject.slice(this.#inbox.length))
      const target = this.#pending.get(token)
      if (!target) return
      this.#pending.delete(token)
      this.#lastWritten = target.table
      if (this.#unanswered.size > 0) this.#unanswered.delete(target.table)
      this.#complete(target.done, message.headers?.code, message.data)
    })
    this.#timer = setInterval(() => this.#checkTimeouts(), CHECK_INTERVAL_MS)
    this.#timer.unref()
  }

  /** A table whose stream is written: preferably the one that has been waiting for an answer for longest. */
  get writtenTable(): TableName | undefined {
    const [unanswered] = this.#unanswered.values()
    return unanswered ?? this.#pending.values().next().value?.table ?? this.#lastWritten
  }

  append(table: TableName, message: Message, expected: ExpectedLast | undefined, done: AppendCallback): void {
    const token = this.#next++
    const target = this.#targetOf(table, done)
    try {
      this.#connection.publish(target.subject, message.data, {
        reply: `${this.#inbox}${token}`,
        headers: message.headers,
        ...(expected && { extraHeaders: headersOf(expected) }),
      })
    } catch (error) {
      const reason = toMeshError(error)
      queueMicrotask(() => done(reason, 0))
      return
    }
    this.#pending.set(token, target)
  }

  /** Reuses the table's last target: the callback changes only after a failure. */
  #targetOf(table: TableName, done: AppendCallback): Target {
    const known = this.#targets.get(table, this.#createTarget)
    if (known.done === done) return known
    const target = { ...known, done }
    this.#targets.set(table, target)
    return target
  }

  /** Fails all pending messages: they may or may not be stored. */
  fail(error: MeshError): void {
    const pending = [...this.#pending.values()]
    this.#pending.clear()
    for (const { table } of pending) this.#unanswered.add(table)
    for (const { done } of pending) done(error, 0)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#subscription.unsubscribe()
    this.fail(new MeshError('disconnected', 'the mesh is closed'))
  }

  #complete(done: AppendCallback, status: number | undefined, data: Uint8Array): void {
    if (status) return done(new MeshError(status === 503 ? 'not_found' : 'rejected', `status ${status}`), 0)
    const sequence = parseStoredSequence(data)
    if (sequence !== undefined) return done(undefined, sequence)
    let answer: Acknowledgement
    try {
      answer = parseJson<Acknowledgement>({ data })
    } catch (error) {
      return done(toMeshError(error), 0)
    }
    if (answer.error) return done(apiError(answer.error), 0)
    // The server did not store this message: it answers with the one that has this id.
    if (answer.duplicate) return done(new MeshError('wrong_sequence', 'the server has a message of this id'), 0)
    done(undefined, Number(answer.seq))
  }

  #checkTimeouts(): void {
    const [token = -1] = this.#pending.keys()
    if (token !== this.#oldest.token) this.#oldest = { token, checks: 0 }
    if (token < 0 || ++this.#oldest.checks <= MAX_CHECKS) return
    this.fail(new MeshError('timeout', `no acknowledgement within ${CHECK_INTERVAL_MS * MAX_CHECKS} ms`))
  }
}
