// A reader of a stream: it requests as many messages from its consumer as it can hold.

import { type Entry, MeshError, type Reader } from '../mesh.ts'
import { PullWindow, type PullWindowOptions } from '../pull-window.ts'
import type { Consumer } from './consumer.ts'
import { sizeOf } from './stream.ts'

export type ReaderOptions = Omit<PullWindowOptions, 'ready'> & {
  /** The node of the stream. */
  peer: string
  /** Runs `work` at the peer, unless the message is lost. */
  post(work: () => void): void
  /** Called once, when the reader is lost or closed. */
  ended(reader: MemoryReader): void
}

export class MemoryReader implements Reader {
  readonly #options: ReaderOptions
  readonly #window: PullWindow
  #consumer: Consumer | undefined
  #buffer: Entry[] = []
  #failure: MeshError | undefined
  #wake: (() => void) | undefined

  constructor(options: ReaderOptions) {
    this.#options = options
    this.#window = new PullWindow({ ...options, ready: () => this.#pull() })
  }

  get peer(): string {
    return this.#options.peer
  }

  attach(consumer: Consumer): void {
    this.#consumer = consumer
    if (this.#failure) consumer.end()
    else this.#pull()
  }

  receive(entry: Entry, pending: number): void {
    if (this.#failure) return
    this.#window.received(sizeOf(entry), pending)
    this.#buffer.push(entry)
    this.#wake?.()
  }

  pullEnded(missing: number, bySize: boolean): void {
    if (this.#failure) return
    this.#window.ended(missing, bySize)
    this.#pull()
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
    this.#pull()
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
    this.#window.close()
    this.endConsumer()
    this.#options.ended(this)
    this.#wake?.()
  }

  /** Ends the consumer without failing the reader. */
  endConsumer(): void {
    this.#consumer?.end()
  }

  #pull(): void {
    if (!this.#consumer) return
    const pull = this.#window.next()
    if (pull) this.#options.post(() => this.#consumer?.pull(pull))
  }
}
