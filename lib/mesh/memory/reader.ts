// A reader of a stream: it grants its consumer as many messages as it can buffer.

import { type Entry, MeshError, type Reader } from '../mesh.ts'
import type { Consumer } from './consumer.ts'

export type ReaderOptions = {
  /** The node of the stream. */
  peer: string
  maxMessages: number
  /** Runs `work` at the peer, unless the message is lost. */
  post(work: () => void): void
  /** Called once, when the reader is lost or closed. */
  ended(reader: MemoryReader): void
}

export class MemoryReader implements Reader {
  readonly #options: ReaderOptions
  #consumer: Consumer | undefined
  #buffer: Entry[] = []
  /** Granted messages that have not arrived. */
  #outstanding = 0
  #failure: MeshError | undefined
  #wake: (() => void) | undefined

  constructor(options: ReaderOptions) {
    this.#options = options
  }

  get peer(): string {
    return this.#options.peer
  }

  attach(consumer: Consumer): void {
    this.#consumer = consumer
    if (this.#failure) consumer.end()
    else this.#grantCredit()
  }

  receive(entry: Entry): void {
    if (this.#failure) return
    this.#outstanding--
    this.#buffer.push(entry)
    this.#wake?.()
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
    this.#grantCredit()
    return entries
  }

  close(): void {
    this.fail('closed')
  }

  /** Also drops unread entries: the subscriber reads them again after its checkpoint. */
  fail(reason: string): void {
    if (this.#failure) return
    this.#failure = new MeshError('reader_lost', reason)
    this.#buffer = []
    this.endConsumer()
    this.#options.ended(this)
    this.#wake?.()
  }

  /** Ends the consumer without failing the reader. */
  endConsumer(): void {
    this.#consumer?.end()
  }

  /** Grants the free capacity once it is at least half of `maxMessages`. */
  #grantCredit(): void {
    const { maxMessages, post } = this.#options
    const capacity = maxMessages - this.#outstanding - this.#buffer.length
    if (capacity < maxMessages / 2) return
    this.#outstanding += capacity
    post(() => this.#consumer?.grant(capacity))
  }
}
