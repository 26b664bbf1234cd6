// Appending to our own streams: every acknowledgement comes back on one inbox, so that a window of messages is in flight at once.

import { TableMap } from '../../table-map.ts'
import { type Expected, type Headers, MeshError, type Message, type TableName } from '../mesh.ts'
import { asMeshError, type Connection, jsonOf } from './connection.ts'
import { type ApiError, apiError, subjectOf } from './jetstream.ts'

type Done = (error: MeshError | undefined, sequence: number) => void
/** Where a table's messages go, and who is told of their answers. */
type Target = { readonly table: TableName; readonly subject: string; readonly done: Done }
type Acknowledgement = { seq?: number; error?: ApiError }

/** ms between two looks for what was not acknowledged, and after how many of them it is not known whether that was stored. */
const LOOK = 1_000
const MOST_LOOKS = 5
/** How the acknowledgement of what was stored begins, and what its number follows; nearly all end with that. */
const STORED = Buffer.from('{"stream":')
const SEQUENCE = Buffer.from('"seq":')
const [ZERO, NINE] = Buffer.from('09') as Buffer & [number, number]

/** The number that an acknowledgement ends with, read faster than as JSON; undefined when it may be anything else. */
function storedSequence(data: Uint8Array): number | undefined {
  let sequence = 0
  let at = data.length - 2
  for (let place = 1; data[at]! >= ZERO && data[at]! <= NINE; place *= 10) sequence += (data[at--]! - ZERO) * place
  const isNumber = at < data.length - 2 && endsAt(data, SEQUENCE, at + 1) && endsAt(data, STORED, STORED.length)
  return isNumber ? sequence : undefined
}

/** Do these bytes stand in front of `end`? */
function endsAt(data: Uint8Array, bytes: Uint8Array, end: number): boolean {
  for (let index = 0; index < bytes.length; index++) if (data[end - bytes.length + index] !== bytes[index]) return false
  return true
}

const headersOf = ({ sequence, id }: Expected): Headers =>
  id === undefined
    ? { 'Nats-Expected-Last-Sequence': `${sequence}` }
    : { 'Nats-Expected-Last-Sequence': `${sequence}`, 'Nats-Expected-Last-Msg-Id': id }

export class Appender {
  readonly #connection: Connection
  readonly #inbox: string
  readonly #subscription: { unsubscribe(): void }
  /** In the order of sending. */
  readonly #pending = new Map<number, Target>()
  readonly #timer: NodeJS.Timeout
  readonly #makeTarget: (table: TableName) => Target
  readonly #targets = new TableMap<Target>()
  /** The message that has waited for longest, and at how many looks it was that. */
  #oldest = { token: -1, looks: 0 }
  /** Tables whose messages were given up without an answer, until there is one. */
  readonly #silent = new Set<TableName>()
  #written: TableName | undefined
  #next = 0

  constructor(connection: Connection, node: string) {
    this.#connection = connection
    this.#makeTarget = (table) => ({ table, subject: subjectOf(node, table), done: () => {} })
    this.#inbox = `${connection.inbox()}.`
    this.#subscription = connection.subscribe(`${this.#inbox}*`, (message) => {
      const token = Number(message.subject.slice(this.#inbox.length))
      const target = this.#pending.get(token)
      if (!target) return
      this.#pending.delete(token)
      this.#written = target.table
      if (this.#silent.size > 0) this.#silent.delete(target.table)
      this.#settle(target.done, message.headers?.code, message.data)
    })
    this.#timer = setInterval(() => this.#look(), LOOK)
    this.#timer.unref()
  }

  /** A table whose stream is written: the one that has owed an answer for longest, if any does. */
  get written(): TableName | undefined {
    const [silent] = this.#silent.values()
    return silent ?? this.#pending.values().next().value?.table ?? this.#written
  }

  append(table: TableName, message: Message, expected: Expected, done: Done): void {
    const token = this.#next++
    const target = this.#targetOf(table, done)
    try {
      this.#connection.publish(target.subject, message.data, {
        reply: `${this.#inbox}${token}`,
        headers: message.headers,
        more: headersOf(expected),
      })
    } catch (error) {
      const reason = asMeshError(error)
      queueMicrotask(() => done(reason, 0))
      return
    }
    this.#pending.set(token, target)
  }

  /** Nearly always the one of the message before: who is told changes when something went wrong. */
  #targetOf(table: TableName, done: Done): Target {
    const known = this.#targets.get(table, this.#makeTarget)
    if (known.done === done) return known
    const target = { ...known, done }
    this.#targets.set(table, target)
    return target
  }

  /** Everything in flight fails: it is not known what of it was stored. */
  fail(error: MeshError): void {
    const pending = [...this.#pending.values()]
    this.#pending.clear()
    for (const { table } of pending) this.#silent.add(table)
    for (const { done } of pending) done(error, 0)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#subscription.unsubscribe()
    this.fail(new MeshError('disconnected', 'the mesh is closed'))
  }

  #settle(done: Done, status: number | undefined, data: Uint8Array): void {
    if (status) return done(new MeshError(status === 503 ? 'not_found' : 'refused', `status ${status}`), 0)
    const sequence = storedSequence(data)
    if (sequence !== undefined) return done(undefined, sequence)
    let answer: Acknowledgement
    try {
      answer = jsonOf<Acknowledgement>({ data })
    } catch (error) {
      return done(asMeshError(error), 0)
    }
    if (answer.error) return done(apiError(answer.error), 0)
    done(undefined, Number(answer.seq))
  }

  #look(): void {
    const [token = -1] = this.#pending.keys()
    if (token !== this.#oldest.token) this.#oldest = { token, looks: 0 }
    if (token < 0 || ++this.#oldest.looks <= MOST_LOOKS) return
    this.fail(new MeshError('timeout', `no acknowledgement within ${LOOK * MOST_LOOKS} ms`))
  }
}
