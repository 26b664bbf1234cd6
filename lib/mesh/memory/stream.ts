// The stream of one table in memory: entries without holes between the first and the last sequence, and their consumers.

import { type ExpectedLast, MeshError, type Message, type StreamLimits, type StreamState } from '../mesh.ts'

/** A stored message, with copies of its bytes and headers. */
export type StoredMessage = Message & { readonly sequence: number; readonly time: number }

/** `pump` is called after each append. */
export interface StreamConsumer {
  pump(): void
}

const MESSAGE_ID_HEADER = 'Nats-Msg-Id'
/** Bytes of a header line beside key and value. */
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

  /** A copy with the limits of another disk. */
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

  /** Returns the sequence. Throws wrong_sequence. Stores the message without a copy. */
  append({ data, headers }: Message, expected: ExpectedLast | undefined): number {
    if (expected && expected.sequence !== this.#last)
      throw new MeshError('wrong_sequence', `wrong last sequence: ${this.#last}, expected ${expected.sequence}`)
    if (expected?.id !== undefined && expected.id !== this.#lastId)
      throw new MeshError('wrong_sequence', `wrong last id: ${this.#lastId}, expected ${expected.id}`)
    const sequence = ++this.#last
    this.#lastId = headers[MESSAGE_ID_HEADER] ?? ''
    this.#entries.push({ data, headers, sequence, time: this.#now() })
    this.#bytes += sizeOf({ data, headers })
    this.#applyLimits()
    for (const reader of this.readers) reader.pump()
    return sequence
  }

  /** Removes the messages before this sequence. */
  purge(before: number): void {
    for (const removed of this.#entries.splice(0, Math.max(0, before - this.#first))) this.#bytes -= sizeOf(removed)
  }

  /** Removes all but the last `count` messages. */
  keep(count: number): void {
    this.purge(this.#last - count + 1)
  }

  /** The first message at or after this sequence. */
  firstFrom(sequence: number): StoredMessage | undefined {
    this.#applyLimits()
    return this.#entries[Math.max(0, sequence - this.#first)]
  }

  /** The sequence of the first message at or after `time`; or last + 1. */
  sequenceAt(time: number): number {
    this.#applyLimits()
    return this.#entries.find((entry) => entry.time >= time)?.sequence ?? this.#last + 1
  }

  /** Removes messages beyond the limits. Every read calls it, so that no timer is needed. */
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
