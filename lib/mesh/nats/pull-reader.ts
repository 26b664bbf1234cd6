// Reading a stream of any node: a pull consumer without acknowledgements, asked for as much as there is room for.

import type { Msg } from 'nats'
import { type Entry, MeshError, type Reader, type RemoteTable, type RequestOptions } from '../mesh.ts'
import { leafName, MAX_PAYLOAD_BYTES } from './configuration.ts'
import type { Connection } from './connection.ts'
import type { Consumers } from './consumers.ts'
import { type JetStream, streamName } from './jetstream.ts'

/** A request for messages stays with the server this long, in ms, before it is made again. */
const PULL_EXPIRES_MS = 60_000
/** How much longer than that an answer may take before the reader counts as lost. */
const PULL_GRACE_MS = 5_000
const DELETE_TIMEOUT_MS = 2_000
/** Bytes that one request may bring; a message larger than that is asked for alone. */
const MAX_PULL_BYTES = 4 * 1024 * 1024

/** Bytes of a message's headers: ours have far fewer, and those of a message that has more are not believed. */
const MAX_HEADER_BYTES = 64 * 1024

const UNREQUESTED_MESSAGE = 'a message came that was not asked for'
const PENDING_MESSAGES_HEADER = 'Nats-Pending-Messages'

export type ReaderOptions = RequestOptions & { maxMessages: number; closed(reader: PullReader): void }
/** What leads to a stream: the connection to its node, and who makes consumers there. */
export type StreamAccess = { connection: Connection; jetStream: JetStream; consumers: Pick<Consumers, 'create'> }

export class PullReader implements Reader {
  readonly #access: StreamAccess
  readonly #source: RemoteTable
  readonly #options: ReaderOptions
  readonly #inbox: string
  #subscription: { unsubscribe(): void } | undefined
  #consumer = ''
  #buffer: Entry[] = []
  /** Messages asked for and not yet received. */
  #outstanding = 0
  /** How the replies of our messages begin, up to what tells them apart. */
  #prefix = ''
  /** The next message did not fit in a request. */
  #nextIsLarge = false
  #failure: MeshError | undefined
  #wake: (() => void) | undefined
  #deadline: NodeJS.Timeout | undefined

  private constructor(access: StreamAccess, source: RemoteTable, options: ReaderOptions) {
    this.#access = access
    this.#source = source
    this.#options = options
    this.#inbox = access.connection.inbox()
  }

  static async open(
    access: StreamAccess,
    source: RemoteTable,
    sequence: number,
    options: ReaderOptions,
  ): Promise<PullReader> {
    const reader = new PullReader(access, source, options)
    const { name } = await access.consumers.create(source, { sequence: Math.max(sequence, 1) }, options)
    reader.#consumer = name
    reader.#subscription = access.connection.subscribe(reader.#inbox, (message) => reader.#receive(message))
    reader.#pull()
    return reader
  }

  async next(): Promise<Entry[]> {
    while (this.#buffer.length === 0) {
      if (this.#failure) throw this.#failure
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const entries = this.#buffer
    this.#buffer = []
    if (!this.#failure) this.#pull()
    return entries
  }

  get failed(): boolean {
    return this.#failure !== undefined
  }

  close(): void {
    this.fail('closed')
  }

  /** What lies unread is dropped too: it is read again behind the checkpoint. */
  fail(reason: string): void {
    if (this.#failure) return
    this.#failure = new MeshError('reader_lost', reason)
    this.#buffer = []
    clearTimeout(this.#deadline)
    this.#subscription?.unsubscribe()
    this.#options.closed(this)
    this.#wake?.()
    this.#access.jetStream.deleteConsumer(this.#source, this.#consumer, { timeout: DELETE_TIMEOUT_MS }).catch(() => {
      // Its server drops it by itself when nobody asks it for anything.
    })
  }

  /** Asks for what there is room for, once that is half of the most we hold. */
  #pull(): void {
    const capacity = this.#options.maxMessages - this.#outstanding - this.#buffer.length
    if (capacity < this.#options.maxMessages / 2) return
    const subject = `$JS.${leafName(this.#source.node)}.API.CONSUMER.MSG.NEXT.${streamName(this.#source)}.${this.#consumer}`
    const batch = this.#nextIsLarge ? 1 : capacity
    const max_bytes = this.#nextIsLarge ? 2 * MAX_PAYLOAD_BYTES : MAX_PULL_BYTES
    this.#nextIsLarge = false
    const body = { batch, expires: PULL_EXPIRES_MS * 1e6, max_bytes }
    try {
      this.#access.connection.publish(subject, JSON.stringify(body), { reply: this.#inbox })
    } catch (error) {
      return this.fail(String(error))
    }
    this.#outstanding += batch
    this.#expectAnswer()
  }

  /** The server answers every request, at the latest when it expires; silence means that it forgot us. */
  #expectAnswer(): void {
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => this.fail('no answer to a request for messages'), PULL_EXPIRES_MS + PULL_GRACE_MS)
    this.#deadline.unref()
  }

  #receive(message: Msg): void {
    // A status comes to our inbox; a message keeps the subject of its stream.
    if (message.subject === this.#inbox) return this.#status(message)
    const entry = this.#parseEntry(message)
    // Somebody else's, who has found our inbox.
    if (!entry || this.#outstanding <= 0) return this.fail(UNREQUESTED_MESSAGE)
    this.#outstanding--
    this.#buffer.push(entry)
    this.#wake?.()
  }

  #status(message: Msg): void {
    const code = message.headers?.code ?? 0
    const unanswered = Number(message.headers?.get(PENDING_MESSAGES_HEADER) || Number.NaN)
    const description = message.headers?.description ?? ''
    if (code === 0) return this.fail(UNREQUESTED_MESSAGE)
    // Whatever its code, a status that counts what is pending ends one request (408 expired; 409 the next message exceeds
    // max_bytes; from 2.10 on 409 the batch is complete). Any other ends the consumer.
    if (Number.isNaN(unanswered)) return this.fail(`${code} ${description}`)
    this.#outstanding = Math.max(0, this.#outstanding - unanswered)
    this.#nextIsLarge ||= code === 409 && /exceeds maxbytes/i.test(description)
    this.#pull()
  }

  /**
   * `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.<pending>[.<token>]`, in older
   * servers without domain and account. Undefined for what no consumer sent.
   */
  #parseEntry(message: Msg): Entry | undefined {
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
    return { data: message.data, headers: parseHeaders(message), sequence, delivery, time: nanoseconds / 1e6 }
  }
}

/** Where the next four dots are; the last is -1 when there are fewer. */
function nextDots(text: string, at: number): [number, number, number, number] {
  const first = text.indexOf('.', at)
  const second = first < 0 ? -1 : text.indexOf('.', first + 1)
  const third = second < 0 ? -1 : text.indexOf('.', second + 1)
  return [first, second, third, third < 0 ? -1 : text.indexOf('.', third + 1)]
}

/** Headers that were for the server that stored the message. */
const EXPECTED_PREFIX = 'Nats-Expected-'
/** Those of ours, of different lengths: a text that is there already need not be made anew for each message. */
const KNOWN_KEYS = ['Nats-Msg-Id', 'origin', 'epoch', 'transacted_nodes']

function internKey(text: string, at: number, end: number): string {
  for (const key of KNOWN_KEYS) if (key.length === end - at && text.startsWith(key, at)) return key
  return text.slice(at, end)
}

/** What the client has of a message that it has not looked into yet. */
type UnparsedMessage = { _rdata?: Uint8Array; _msg?: { hdr?: number } }

/**
 * None when they are longer than any of ours. Out of the bytes: the client checks each key and value anew, which costs more than
 * all else that is done with a message.
 */
function parseHeaders(message: Msg): Record<string, string> {
  const headers: Record<string, string> = {}
  const { _rdata: bytes, _msg: { hdr: length = -1 } = {} } = message as UnparsedMessage
  if (bytes === undefined) {
    let size = 0
    for (const [key, [value = '']] of message.headers ?? []) {
      headers[key] = value
      size += key.length + value.length
    }
    return size <= MAX_HEADER_BYTES ? headers : {}
  }
  if (length <= 0 || length > MAX_HEADER_BYTES) return headers
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, length).toString()
  for (let at = text.indexOf('\r\n') + 2; at > 1 && at < text.length; ) {
    const end = text.indexOf('\r\n', at)
    const colon = text.indexOf(':', at)
    if (end < 0 || colon < 0 || colon > end) break
    if (!text.startsWith(EXPECTED_PREFIX, at)) headers[internKey(text, at, colon)] ??= text.slice(colon + 1, end).trim()
    at = end + 2
  }
  return headers
}
