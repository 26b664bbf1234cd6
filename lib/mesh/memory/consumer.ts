// A consumer at the node of a stream: it sends as many messages as its reader has granted.

import type { Entry } from '../mesh.ts'
import type { MemoryStream, StreamConsumer } from './stream.ts'

/** It counts every message that it sends, so that a lost message shows as a jump of `delivery`. */
export class Consumer implements StreamConsumer {
  readonly #stream: MemoryStream
  readonly #send: (entry: Entry) => void
  #next: number
  #delivery = 0
  #credit = 0
  #ended = false

  /** Begins at `sequence`, or at the end of the stream when `sequence` is beyond it. */
  constructor(stream: MemoryStream, sequence: number, send: (entry: Entry) => void) {
    this.#stream = stream
    this.#next = Math.min(sequence, stream.state.lastSequence + 1)
    this.#send = send
  }

  grant(count: number): void {
    if (this.#ended) return
    this.#stream.readers.add(this)
    this.#credit += count
    this.pump()
  }

  pump(): void {
    for (; this.#credit > 0; this.#credit--) {
      const stored = this.#stream.firstFrom(this.#next)
      if (!stored) return
      this.#next = stored.sequence + 1
      this.#send({
        ...stored,
        data: stored.data.slice(),
        headers: { ...stored.headers },
        delivery: ++this.#delivery,
      })
    }
  }

  end(): void {
    this.#ended = true
    this.#stream.readers.delete(this)
  }
}
