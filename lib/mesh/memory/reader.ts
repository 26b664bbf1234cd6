// A reader where the entries of a stream are wanted: it gives credit for what it has room for.

import { type Entry, MeshError, type Reader } from '../mesh.ts'
import type { Consumer } from './consumer.ts'

export type ReaderOptions = {
  /** Where the stream lies. */
  peer: string
  maxMessages: number
  /** Has `work` done at the peer, unless it gets lost on the way. */
  post(work: () => void): void
  /** Called once, when the reader is lost or closed. */
  ended(reader: MemoryReader): void
}

export class MemoryReader implements Reader {
  readonly #options: ReaderOptions
  #consumer: Consumer | undefined
  #buffer: Entry[] = []
  /** Credit given and not yet used, as far as we know. */
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

  /** What lies unread is dropped too: it is read again behind the checkpoint. */
  fail(reason: string): void {
    if (this.#failure) return
    this.#failure = new MeshError('reader_lost', reason)
    this.#buffer = []
    this.endConsumer()
    this.#options.ended(this)
    this.#wake?.()
  }

  /** The other side ends, and nobody tells us. */
  endConsumer(): void {
    this.#consumer?.end()
  }

  /** Gives credit for what there is room for, once that is half of the most we hold. */
  #grantCredit(): void {
    const { maxMessages, post } = this.#options
    const capacity = maxMessages - this.#outstanding - this.#buffer.length
    if (capacity < maxMessages / 2) return
    this.#outstanding += capacity
    post(() => this.#consumer?.grant(capacity))
  }
}
