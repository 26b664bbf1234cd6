// One table's stream in memory: entries numbered without holes between the first and the last, and who reads them.

import { type ExpectedLast, MeshError, type Message, type StreamLimits, type StreamState } from '../mesh.ts'

/** A message as it is stored; its bytes and headers are nobody else's. */
export type StoredMessage = Message & { readonly sequence: number; readonly time: number }

/** Told when something was appended. */
export interface StreamConsumer {
  pump(): void
}

const MESSAGE_ID_HEADER = 'Nats-Msg-Id'
/** What a header takes beside its own text. */
const HEADER_FRAME_BYTES = 4

/** Bytes of a message, headers included. */
export const sizeOf = ({ data, headers }: Message): number =>
  Object.entries(headers).reduce(
    (bytes, [key, value]) => bytes + Buffer.byteLength(key) + Buffer.byteLength(value) + HEADER_FRAME_BYTES,
    data.byteLength,
  )

export class MemoryStream {
  description: string
  readonly created: string
  readonly readers = new Set<StreamConsumer>()
  #entries: StoredMessage[] = []
  #last = 0
  #lastId = ''
  #bytes = 0
  readonly #limits: () => StreamLimits
  readonly #now: () => number

  constructor(description: string, created: string, limits: () => StreamLimits, now: () => number) {
    this.description = description
    this.created = created
    this.#limits = limits
    this.#now = now
  }

  get state(): StreamState {
    this.#applyLimits()
    const { description, created } = this
    return {
      description,
      created,
      firstSequence: this.#first,
      lastSequence: this.#last,
      messages: this.#entries.length,
    }
  }

  /** The same messages, on another disk. */
  copy(limits: () => StreamLimits): MemoryStream {
    const copy = new MemoryStream(this.description, this.created, limits, this.#now)
    copy.#entries = [...this.#entries]
    copy.#last = this.#last
    copy.#lastId = this.#lastId
    copy.#bytes = this.#bytes
    return copy
  }

  get #first(): number {
    return this.#last - this.#entries.length + 1
  }

  /** The sequence it was given. Throws wrong_sequence. The message is kept as it is. */
  append({ data, headers }: Message, expected: ExpectedLast): number {
    if (expected.sequence !== this.#last)
      throw new MeshError('wrong_sequence', `wrong last sequence: ${this.#last}, expected ${expected.sequence}`)
    if (expected.id !== undefined && expected.id !== this.#lastId)
      throw new MeshError('wrong_sequence', `wrong last id: ${this.#lastId}, expected ${expected.id}`)
    const sequence = ++this.#last
    this.#lastId = headers[MESSAGE_ID_HEADER] ?? ''
    this.#entries.push({ data, headers, sequence, time: this.#now() })
    this.#bytes += sizeOf({ data, headers })
    this.#applyLimits()
    for (const reader of this.readers) reader.pump()
    return sequence
  }

  /** Removes what lies before this sequence; beyond the end that is all. */
  purge(before: number): void {
    for (const removed of this.#entries.splice(0, Math.max(0, before - this.#first))) this.#bytes -= sizeOf(removed)
  }

  /** Removes all but the last `count`. */
  keep(count: number): void {
    this.purge(this.#last - count + 1)
  }

  /** The first that is there at this sequence or behind it. */
  firstFrom(sequence: number): StoredMessage | undefined {
    this.#applyLimits()
    return this.#entries[Math.max(0, sequence - this.#first)]
  }

  /** The sequence of the first message at or after `time`; last + 1 when there is none. */
  sequenceAt(time: number): number {
    this.#applyLimits()
    return this.#entries.find((entry) => entry.time >= time)?.sequence ?? this.#last + 1
  }

  /** Removes what the limits leave no room for. Whoever looks sees it gone, so that no clock has to run. */
  #applyLimits(): void {
    const { maxMsgs = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY, maxAge } = this.#limits()
    const oldest = maxAge === undefined ? Number.NEGATIVE_INFINITY : this.#now() - maxAge * 1_000
    let bytes = this.#bytes
    let expired = Math.max(0, this.#entries.length - maxMsgs)
    for (const entry of this.#entries.slice(0, expired)) bytes -= sizeOf(entry)
    for (
      let entry = this.#entries[expired];
      entry && (bytes > maxBytes || entry.time <= oldest);
      entry = this.#entries[expired]
    ) {
      bytes -= sizeOf(entry)
      expired++
    }
    if (expired > 0) this.purge(this.#first + expired)
  }
}

/** Throws not_found. */
export function requireStream(stream: MemoryStream | undefined): MemoryStream {
  if (!stream) throw new MeshError('not_found', 'no such stream')
  return stream
}
