// Reads the stream of any node: a pull consumer without acknowledgements, which requests as many messages as there is capacity for.

import type { Msg } from 'nats'
import { clearTimeout, setImmediate, setTimeout } from '../../util/timers.ts'
import { type Entry, MeshError, type Reader, type ReadOptions, type RemoteTable } from '../mesh.ts'
import { PullWindow } from '../pull-window.ts'
import { leafName, MAX_STORED_BYTES } from './configuration.ts'
import type { Connection } from './connection.ts'
import type { Consumers } from './consumers.ts'
import type { HeaderReader } from './header-reader.ts'
import { type JetStream, streamName } from './jetstream.ts'

/** ms after which the server ends an unanswered pull request. */
const PULL_EXPIRES_MS = 60_000
/** The same for a request that takes much of the memory that readers share. */
const BRIEF_PULL_EXPIRES_MS = 5_000
/** ms beyond `PULL_EXPIRES_MS` without an answer after which the reader fails. */
const PULL_GRACE_MS = 5_000
/** The server of a silent source says so often that it still has the request, while it has no messages; and how long the reader waits for that. */
const IDLE_HEARTBEAT_MS = 5_000
const HEARTBEAT_GRACE_MS = 2 * IDLE_HEARTBEAT_MS + 1_000
/**
 * The last part of these times begins when the process comes to it: after a pause of the process, answers wait in the socket, which Node.js reads
 * after the timers, about 2 MB in a turn of the event loop.
 */
const LAST_WAIT_MS = 1_000
const IDLE_HEARTBEAT_CODE = 100
const DELETE_TIMEOUT_MS = 2_000
/** Of an entry beside its data: headers and subjects, which the server counts too. */
const ENTRY_BYTES = 256

const UNREQUESTED_MESSAGE = 'unrequested message received'
const PENDING_MESSAGES_HEADER = 'Nats-Pending-Messages'

/** `connection` leads to the stream's node, `consumers` creates consumers there. */
export type StreamAccess = {
  connection: Connection
  jetStream: JetStream
  consumers: Pick<Consumers, 'create'>
  headers: HeaderReader
}

export class PullReader implements Reader {
  readonly #access: StreamAccess
  readonly #source: RemoteTable
  readonly #closed: (reader: PullReader) => void
  readonly #inbox: string
  readonly #isSilent: boolean
  readonly #window: PullWindow
  #subscription: { unsubscribe(): void } | undefined
  #consumer = ''
  #buffer: Entry[] = []
  /** Common part of the messages' reply subjects, up to the numbers. */
  #prefix = ''
  #failure: MeshError | undefined
  #wake: (() => void) | undefined
  #deadline: NodeJS.Timeout | undefined

  private constructor(
    access: StreamAccess,
    source: RemoteTable,
    { maxMessages, budget, isSilent = false }: ReadOptions,
    closed: (reader: PullReader) => void,
  ) {
    this.#access = access
    this.#source = source
    this.#closed = closed
    this.#isSilent = isSilent
    this.#inbox = access.connection.inbox()
    const ready = () => this.#pull()
    this.#window = new PullWindow({ maxMessages, maxMessageBytes: MAX_STORED_BYTES, budget, ready })
  }

  static async open(
    access: StreamAccess,
    source: RemoteTable,
    sequence: number,
    options: ReadOptions,
    closed: (reader: PullReader) => void,
  ): Promise<PullReader> {
    const reader = new PullReader(access, source, options, closed)
    try {
      const { name } = await access.consumers.create(source, { sequence: Math.max(sequence, 1) }, options)
      reader.#consumer = name
    } catch (error) {
      reader.#window.close()
      throw error
    }
    reader.#subscription = access.connection.subscribe(reader.#inbox, (message) => reader.#receive(message))
    reader.#pull()
    return reader
  }

  async next(): Promise<Entry[]> {
    this.#window.processed()
    if (this.#buffer.length === 0) this.#pull()
    while (this.#buffer.length === 0) {
      if (this.#failure) throw this.#failure
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const entries = this.#buffer
    this.#buffer = []
    this.#window.taken()
    if (!this.#failure) this.#pull()
    return entries
  }

  get failed(): boolean {
    return this.#failure !== undefined
  }

  close(): void {
    this.fail('closed')
  }

  /** Drops unread messages too: the next reader starts at the checkpoint. */
  fail(reason: string): void {
    if (this.#failure) return
    this.#failure = new MeshError('reader_lost', reason)
    this.#buffer = []
    this.#window.close()
    clearTimeout(this.#deadline)
    this.#subscription?.unsubscribe()
    this.#closed(this)
    this.#wake?.()
    this.#access.jetStream.deleteConsumer(this.#source, this.#consumer, { timeout: DELETE_TIMEOUT_MS }).catch(() => {
      // Its server deletes an inactive consumer by itself.
    })
  }

  #pull(): void {
    const pull = this.#window.next()
    if (!pull) return
    const subject = `$JS.${leafName(this.#source.node)}.API.CONSUMER.MSG.NEXT.${streamName(this.#source)}.${this.#consumer}`
    const expires = pull.brief ? BRIEF_PULL_EXPIRES_MS : PULL_EXPIRES_MS
    const body = {
      batch: pull.batch,
      expires: expires * 1e6,
      max_bytes: pull.maxBytes,
      // The server refuses more than half of the time after which the request expires.
      ...(this.#isSilent && !pull.brief && { idle_heartbeat: IDLE_HEARTBEAT_MS * 1e6 }),
    }
    try {
      this.#access.connection.publish(subject, JSON.stringify(body), { reply: this.#inbox })
    } catch (error) {
      return this.fail(String(error))
    }
    this.#expectAnswer()
  }

  /** The server answers every request, at the latest when it expires; without an answer it has lost the consumer. */
  #expectAnswer(): void {
    clearTimeout(this.#deadline)
    const ms = this.#isSilent ? HEARTBEAT_GRACE_MS : PULL_EXPIRES_MS + PULL_GRACE_MS
    this.#deadline = setTimeout(() => this.#failSoon(), ms - LAST_WAIT_MS).unref()
  }

  #failSoon(): void {
    const check = () => {
      // All requests may be answered, and the messages wait here: the next request sets the deadline again.
      if (this.#deadline === deadline && this.#window.isRequesting) this.fail('no answer to a pull request')
    }
    const deadline = setTimeout(() => setImmediate(check), LAST_WAIT_MS).unref()
    this.#deadline = deadline
  }

  #receive(message: Msg): void {
    if (this.#isSilent) this.#expectAnswer()
    // A status has the inbox as its subject; a message keeps the subject of its stream.
    if (message.subject === this.#inbox) return this.#status(message)
    const { entry, pending } = this.#parseEntry(message) ?? {}
    // Sent by a peer that knows the inbox.
    if (!entry || !this.#window.received(message.data.byteLength + ENTRY_BYTES, pending ?? 0))
      return this.fail(UNREQUESTED_MESSAGE)
    this.#buffer.push(entry)
    this.#wake?.()
  }

  #status(message: Msg): void {
    const code = message.headers?.code ?? 0
    const unanswered = Number(message.headers?.get(PENDING_MESSAGES_HEADER) || Number.NaN)
    const description = message.headers?.description ?? ''
    if (code === 0) return this.fail(UNREQUESTED_MESSAGE)
    if (code === IDLE_HEARTBEAT_CODE && this.#isSilent) return
    // A status with a count of pending messages ends one request (408 expired; 409 the next message exceeds max_bytes; from 2.10 on
    // 409 the batch is complete). Any other status ends the consumer.
    if (Number.isNaN(unanswered)) return this.fail(`${code} ${description}`)
    this.#window.ended(unanswered, code === 409 && /exceeds maxbytes/i.test(description))
    this.#pull()
  }

  /**
   * `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.<pending>[.<token>]`, in older
   * servers without domain and account. Undefined when the message is not from a consumer.
   */
  #parseEntry(message: Msg): { entry: Entry; pending: number } | undefined {
    const reply = message.reply ?? ''
    if (this.#prefix === '' || !reply.startsWith(this.#prefix)) {
      const tokens = reply.split('.')
      this.#prefix = tokens
        .slice(0, tokens.length > 9 ? 6 : 4)
        .map((token) => `${token}.`)
        .join('')
    }
    const [deliveries, stream, consumer, time] = nextDots(reply, this.#prefix.length)
    const sequence = Number(reply.slice(deliveries + 1, stream))
    const delivery = Number(reply.slice(stream + 1, consumer))
    const nanoseconds = Number(reply.slice(consumer + 1, time))
    if (time < 0 || !(sequence > 0) || !Number.isSafeInteger(sequence)) return undefined
    if (!Number.isSafeInteger(delivery) || !Number.isFinite(nanoseconds)) return undefined
    const headers = this.#access.headers.read(message)
    const entry = { data: message.data, headers, sequence, delivery, time: nanoseconds / 1e6 }
    return { entry, pending: Number.parseInt(reply.slice(time + 1), 10) }
  }
}

/** Offsets of the next four dots; the last is -1 when there are fewer. */
function nextDots(text: string, at: number): [number, number, number, number] {
  const first = text.indexOf('.', at)
  const second = first < 0 ? -1 : text.indexOf('.', first + 1)
  const third = second < 0 ? -1 : text.indexOf('.', second + 1)
  return [first, second, third, third < 0 ? -1 : text.indexOf('.', third + 1)]
}
