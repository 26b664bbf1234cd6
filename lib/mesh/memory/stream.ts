// One table's stream in memory: entries numbered without holes between the first and the last, and who reads them.

import { type Expected, MeshError, type Message, type StreamState } from '../mesh.ts'

/** A message as it is stored; its bytes and headers are nobody else's. */
export type Stored = Message & { readonly sequence: number; readonly time: number }

/** Told when something was appended. */
export interface StreamReader {
  pump(): void
}

const ID = 'Nats-Msg-Id'

export class MemoryStream {
  description: string
  readonly created: string
  readonly readers = new Set<StreamReader>()
  #entries: Stored[] = []
  #last = 0
  #lastId = ''

  constructor(description: string, created: string) {
    this.description = description
    this.created = created
  }

  get state(): StreamState {
    const { description, created } = this
    return {
      description,
      created,
      firstSequence: this.#first,
      lastSequence: this.#last,
      messages: this.#entries.length,
    }
  }

  get #first(): number {
    return this.#last - this.#entries.length + 1
  }

  /** The sequence it was given. Throws wrong_sequence. The message is kept as it is. */
  append({ data, headers }: Message, expected: Expected, time: number): number {
    if (expected.sequence !== this.#last)
      throw new MeshError('wrong_sequence', `wrong last sequence: ${this.#last}, expected ${expected.sequence}`)
    if (expected.id !== undefined && expected.id !== this.#lastId)
      throw new MeshError('wrong_sequence', `wrong last id: ${this.#lastId}, expected ${expected.id}`)
    const sequence = ++this.#last
    this.#lastId = headers[ID] ?? ''
    this.#entries.push({ data, headers, sequence, time })
    for (const reader of this.readers) reader.pump()
    return sequence
  }

  /** Removes what lies before this sequence; beyond the end that is all. */
  purge(before: number): void {
    this.#entries.splice(0, Math.max(0, before - this.#first))
  }

  /** Removes all but the last `count`. */
  keep(count: number): void {
    this.purge(this.#last - count + 1)
  }

  /** The first that is there at this sequence or behind it. */
  from(sequence: number): Stored | undefined {
    return this.#entries[Math.max(0, sequence - this.#first)]
  }

  /** The sequence of the first message at or after `time`; last + 1 when there is none. */
  sequenceAt(time: number): number {
    return this.#entries.find((entry) => entry.time >= time)?.sequence ?? this.#last + 1
  }
}

/** Throws not_found. */
export function existing(stream: MemoryStream | undefined): MemoryStream {
  if (!stream) throw new MeshError('not_found', 'no such stream')
  return stream
}
